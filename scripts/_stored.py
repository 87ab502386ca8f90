"""What two runs of one experiment must have in common, bit for bit; `_torture.py` reads it.

All that a run stores must be equal: result.json, the lines of metrics.jsonl, the newest checkpoint
and the best parameters, files of arrays, and pictures. Left out is what tells where, when and by
whom a run was made:

- in result.json, `run`: the directory, the command, the machine, the code and the wall times;
- in result.json, `config.run`: the run flags, which have the name and the folder of the run;
- `ms_per_...` and the lines of the split "time": measured times;
- older checkpoints: which of them stay depends on when a run was stopped.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.files import leaves
from jaxdl.runs.checkpoint import Checkpoints


def differences(one: Path, other: Path) -> list[str]:
    """The names of what two run directories do not have in common."""
    here, there = dict(contents(one)), dict(contents(other))
    return [name for name in sorted({*here, *there}) if here.get(name) != there.get(name)]


def contents(directory: Path) -> Iterator[tuple[str, Any]]:
    """Names and values of all that must be equal; arrays as bytes."""
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.name == "result.json":
            found = json.loads(path.read_text())
            del found["run"]
            found.get("config", {}).pop("run", None)
            yield name, timeless(found)
        elif path.name == "metrics.jsonl":
            lines = map(json.loads, path.read_text().splitlines())
            yield name, [timeless(line) for line in lines if line["split"] != "time"]
        elif path.name in ("checkpoints", "best"):
            with Checkpoints(path) as checkpoints:
                yield f"{name}, step", checkpoints.steps()[-1:]
                for leaf, array in checkpoints.arrays():
                    yield (
                        f"{name}, {leaves.name(leaf.path)}",
                        (str(array.dtype), array.shape, array.tobytes()),
                    )
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                for key in arrays:
                    yield f"{name}, {key}", arrays[key].tobytes()
        elif path.suffix == ".png":
            yield name, path.read_bytes()


def timeless(value: Any) -> Any:
    """Without measured times."""
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items() if not key.startswith("ms_per")}
    return [timeless(each) for each in value] if isinstance(value, list) else value
