"""Loads the state or the best parameters of a run without opening a `Run`."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdl import parallel
from jaxdl.errors import InputError
from jaxdl.files.paths import whole_path
from jaxdl.runs.checkpoint import Checkpoints
from jaxdl.types import Params, PyTree


def load_last(directory: Path | str, like: PyTree) -> Any:
    """The newest state of a run, with the structure and shapes of `like`.

    Raises:
        InputError: if the run has no checkpoint yet.
        RunError: if the checkpoint is damaged or has another shape.
    """
    with Checkpoints(whole_path(directory, "directory") / "checkpoints") as checkpoints:
        if not checkpoints.steps():
            raise InputError(f"{directory} has no checkpoint yet. Train first")
        return checkpoints.restore(like)


def load_best(directory: Path | str, like: Params) -> tuple[Params, np.ndarray]:
    """The best parameters of a run on validation, and their steps `[seeds]`.

    `like` gives the structure and shapes, leading axis `[seeds]` included.

    >>> import dataclasses, jaxdl, numpy as np, pathlib, tempfile
    >>> Config = dataclasses.make_dataclass("Config", ["steps", "run"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     config = Config(20, jaxdl.RunFlags(runs_dir=pathlib.Path(folder)))
    ...     with jaxdl.open_run("example", config) as run:  # its accuracies are of two seeds
    ...         run.keep_best(10, [0.7, 0.9], {"w": np.array([1.0, 2.0])})
    ...         run.keep_best(20, [0.8, 0.6], {"w": np.array([3.0, 4.0])})
    ...     params, steps = jaxdl.load_best(run.directory, like={"w": np.zeros(2)})
    >>> params["w"].tolist(), steps.tolist()
    ([3.0, 2.0], [20, 10])

    Raises:
        InputError: if `like` has no arrays `[seeds, ...]`.
        RunError: if there are none, or they are damaged, or of another shape.
    """
    leaves = jax.tree.leaves(like)
    if not leaves or not np.shape(leaves[0]):
        raise InputError(
            "`like=` has no axis of seeds. Give parameters such as jaxdl.init_states makes them:"
            " arrays `[seeds, ...]`"
        )
    seeds = len(leaves[0])
    target = {
        "score": np.zeros(seeds, np.float32),
        "step": np.zeros(seeds, np.int32),
        "params": parallel.local(like),
    }
    with Checkpoints(whole_path(directory, "directory") / "best") as checkpoints:
        best = checkpoints.restore(target)
    return best["params"], np.asarray(best["step"])
