"""Damaged weights, damaged runs and wrong flags, drawn by hypothesis: one sentence, or it works.

FUZZ_MINUTES is the time that each of the four kinds has, by default a third of a minute.
"""

import copy
import io
import itertools
import json
import os
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis
import numpy as np
import pytest
import yaml
from hypothesis import strategies as st

from experiments import few_shot
from jaxdl.data.prepare.cache import load_arrays, save_arrays
from jaxdl.errors import InputError, RunError
from jaxdl.models.torch_weights import load_torch_weights
from jaxdl.recipes.choice import find
from jaxdl.recipes.compare import comparison
from jaxdl.recipes.loaded import load_run
from jaxdl.recipes.plans import frame_of_images
from jaxdl.recipes.side_by_side import write_side_by_side
from jaxdl.runs import cli, identity
from jaxdl.runs import config as ranges
from jaxdl.runs.flags import flags_of
from jaxdl.runs.run import Run
from jaxdl.runs.weights import load_weights, save_weights, weights_digest
from tests import tiny_run
from tests.fixtures.runs_0_1 import FLAGS
from tests.models.test_torch_weights import net, saved, state_dict
from tests.stored_run import of_few_shot
from tests.test_stored_runs import ARCHIVE, Stored

pytestmark = pytest.mark.slow

SECONDS = 60 * float(os.environ.get("FUZZ_MINUTES", 1 / 3))
MOST_BYTES = 2e9
VALUES: list[Any] = [
    *[None, True, -1, 0, 3, 0.5, 1e308, 10**30, "", "x", "\x1b[31m", "nan", [], {}, [[]]],
    *[{"a": 1}, [-1], [2**40, 2**40], "float32", "../../x", float("nan"), float("inf")],
]
"""What takes the place of a value in JSON and YAML."""


def fuzz(test: Callable[[Any], None]) -> None:
    """Draws examples for `SECONDS`, 20 per round; memory must not rise by 2 GB."""
    end = time.monotonic() + SECONDS
    options: dict[str, Any] = {"max_examples": 20, "deadline": None, "derandomize": False}
    options |= {"database": None, "suppress_health_check": list(hypothesis.HealthCheck)}
    options |= {"phases": [hypothesis.Phase.generate]}  # to find a smaller case takes minutes
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins anew
    before = memory("VmRSS")
    for number in itertools.count():
        drawn = hypothesis.given(st.data())(lambda data: test(data))
        hypothesis.seed(number)(hypothesis.settings(**options)(drawn))()
        if time.monotonic() > end:
            break
    assert memory("VmHWM") - before < MOST_BYTES


def memory(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def in_a_sentence(call: Callable[[], Any]) -> None:
    """It works, or ends in an error that a user can read."""
    try:
        call()
    except (InputError, RunError) as error:
        text = str(error)
        assert 20 < len(text) < 1500, text
        assert text.isprintable(), repr(text)
        assert "Traceback" not in text
        assert ". " in text or ": " in text, text  # what is wrong, and what to do


def damaged(data: Any, content: bytes) -> bytes:
    """Bytes flipped, cut, doubled or replaced; or other values in JSON or YAML."""
    kinds = ["flip", "cut", "double", "replace"]
    parsed = structure(content)
    kind = data.draw(st.sampled_from(kinds + 4 * ["value"] * (parsed is not None)))
    if kind == "value":
        return replaced(data, parsed)
    at = data.draw(st.integers(0, max(0, len(content) - 1)))
    if kind == "cut":
        return content[:at]
    if kind == "double":
        return content[:at] + content
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4)) if changed else 0):
        at = data.draw(st.integers(0, len(changed) - 1))
        bit = 1 << data.draw(st.integers(0, 7))
        changed[at] = changed[at] ^ bit if kind == "flip" else data.draw(st.integers(0, 255))
    return bytes(changed)


def damaged_inside(data: Any, path: Path) -> bytes:
    """A `.npz` whose checksums are right: the text before an array is damaged, and another
    method may pack it."""
    methods = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    file = io.BytesIO()
    with zipfile.ZipFile(path) as old:
        chosen = data.draw(st.sampled_from(old.namelist()))
        with zipfile.ZipFile(file, "w", data.draw(st.sampled_from(methods))) as new:
            for name in old.namelist():
                content = old.read(name)
                if name == chosen:
                    size = 10 + int.from_bytes(content[8:10], "little")
                    header = content[10:size]
                    if data.draw(st.booleans()):
                        header = damaged(data, header)
                    else:
                        header = data.draw(st.text("({[}]),0:' <fU", max_size=60)).encode() + b"\n"
                    content = (
                        content[:8] + len(header).to_bytes(2, "little") + header + content[size:]
                    )
                new.writestr(name, content)
    return file.getvalue()


def structure(content: bytes) -> Any:
    """What JSON or YAML holds, if it is a mapping."""
    for load in (json.loads, yaml.safe_load):
        try:
            found = load(content)
        except (ValueError, yaml.YAMLError):
            continue
        if isinstance(found, dict):
            return found
    return None


def replaced(data: Any, found: Any) -> bytes:
    """JSON, which YAML can read, with a value replaced, removed, or under another key."""
    whole = copy.deepcopy(found)
    places: list[tuple[Any, Any]] = []

    def collect(value: Any) -> None:
        for key in range(len(value)) if isinstance(value, list) else list(value):
            places.append((value, key))
            if isinstance(value[key], dict | list):
                collect(value[key])

    collect(whole)
    if places:
        holder, key = data.draw(st.sampled_from(places))
        if data.draw(st.booleans()):
            holder[key] = copy.deepcopy(data.draw(st.sampled_from(VALUES)))
        elif isinstance(holder, dict):
            holder[data.draw(st.sampled_from(["x", "5", ""]))] = holder.pop(key)
        else:
            del holder[key]
    return json.dumps(whole).encode()


def test_weights(tmp_path):
    _, params, stats = net()
    tensors = {name: array for name, array in state_dict().items() if array.dtype == np.float32}
    whole = [saved(tmp_path, kind, tensors) for kind in ("npz", "safetensors")]
    save_weights(tmp_path / "ours.npz", params, stats)
    whole.append(tmp_path / "ours.npz")
    contents = {path: path.read_bytes() for path in whole}

    def one(data: Any) -> None:
        path = data.draw(st.sampled_from(whole))
        content = contents[path]
        if path.suffix == ".safetensors" and data.draw(st.booleans()):
            size = 8 + int.from_bytes(content[:8], "little")
            header = damaged(data, content[8:size])
            content = len(header).to_bytes(8, "little") + header + content[size:]
        elif path.suffix == ".npz" and data.draw(st.booleans()):
            content = damaged_inside(data, path)
        else:
            content = damaged(data, content)
        if path.suffix == ".npz" and data.draw(st.integers(0, 3)) == 0:
            content = damaged(data, content)
        broken = tmp_path / f"broken{path.suffix}"
        broken.write_bytes(content)
        in_a_sentence(lambda: load_torch_weights(broken, params, stats))
        in_a_sentence(lambda: load_weights(broken))
        in_a_sentence(lambda: weights_digest(broken))
        if path.suffix == ".npz":
            in_a_sentence(lambda: load_arrays(broken))

    fuzz(one)


def test_run_directories(tmp_path):
    tiny_run.validated(tiny_run.config(tmp_path / "whole", log_every=4))
    whole = tmp_path / "whole" / "tiny" / "a"
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert len(files) > 10

    def one(data: Any) -> None:
        folder = tmp_path / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        run = Path(shutil.copytree(whole, folder / "tiny" / "a"))
        path = run / data.draw(st.sampled_from(files))
        kind = data.draw(st.sampled_from(["content"] * 6 + ["folder", "gone"]))
        if kind == "content":
            path.write_bytes(damaged(data, path.read_bytes()))
        else:
            path.unlink()
            if kind == "folder":
                path.mkdir()
        steps = data.draw(st.sampled_from([6, 6, 8]))
        in_a_sentence(lambda: load_weights(run))
        in_a_sentence(lambda: identity.load_config(run, tiny_run.Config))
        in_a_sentence(lambda: tiny_run.validated(tiny_run.config(folder, steps=steps, log_every=4)))

    fuzz(one)


def test_finished_runs_of_experiments(tmp_path):
    """What an older revision stored of eleven experiments, and a run of few_shot of today."""
    stored = tmp_path / "stored"
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(stored, filter="data")
    few = tmp_path / "few" / "few_shot" / "run"
    few.mkdir(parents=True)
    of_few_shot(few, data="digits", ways=2)
    rng = np.random.default_rng(0)
    arrays = {f"maml/{name}": rng.random((2, 5)) for name in ("accuracy", "loss")}
    save_arrays(few / "episodes.npz", arrays)
    other = Path(shutil.copytree(few, tmp_path / "few" / "few_shot" / "other"))
    for name in ("metrics", "seconds"):
        line = (
            '{"step": 1, "split": "train", "loss": [1.0, 2.0], "seconds": 1, "compile_seconds": 0}'
        )
        (few / f"{name}.jsonl").write_text(f"{line}\n")

    def reprint(data: Any) -> None:
        name = data.draw(st.sampled_from(sorted(FLAGS)))
        folder = tmp_path / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(stored / "runs" / name, folder / name)
        run = Stored(name, folder, *(path.name for path in (folder / name).iterdir()))
        path = run.directory / data.draw(st.sampled_from(["result.json", "config.yaml"]))
        path.write_bytes(replaced(data, structure(path.read_bytes())))
        in_a_sentence(lambda: run.main(run.config("--name", run.name)))

    def read(data: Any) -> None:
        broken = tmp_path / "broken run"
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(few, broken)
        names = ["config.yaml", "metrics.jsonl", "seconds.jsonl", "episodes.npz"]
        path = broken / data.draw(st.sampled_from(names))
        if path.suffix == ".npz":
            kinds = [np.full((2, 5), "x"), np.float64(1), rng.random((2, 4)), rng.random((2, 5, 1))]
            kept = {k: v for k, v in arrays.items() if data.draw(st.booleans())}
            changed = {k: data.draw(st.sampled_from([v, *kinds])) for k, v in kept.items()}
            save_arrays(path, changed)
        else:
            path.write_bytes(damaged(data, path.read_bytes()))
        in_a_sentence(lambda: load_run(broken))
        in_a_sentence(lambda: comparison([other, broken]))
        in_a_sentence(
            lambda: write_side_by_side(tmp_path / "page.html", {"a": broken, "b": other}, "")
        )

    def one(data: Any) -> None:
        data.draw(st.sampled_from([reprint, read]))(data)

    with mock.patch.object(Run, "restore", side_effect=InputError("It would train. Stop it here")):
        fuzz(one)


def test_flags(tmp_path, capfd):
    flags = sorted(flags_of(few_shot.Config).values())
    values = ["0", "1", "-1", "1e999", "nan", "", "x", "--", "-", "5" * 400, "None", "1/2", "True"]
    values += ["a\nb", "\x1b[31m", "~nobody-here/x", "../..", "maml", "numbers", "1e-46", "0x10"]
    words = st.one_of(
        st.sampled_from([*flags, "--preset", "--shard", "--init-from"]),
        st.sampled_from(values),
        st.text(max_size=9).filter(lambda text: "\0" not in text),
    )

    def main(config: Any) -> None:
        """All that a command does before it trains."""
        ranges.check(config)
        few_shot.check(config)
        frame = frame_of_images(few_shot.check, find(config.learner), config)
        identity.directory("few_shot", config, frame["label"])

    def one(data: Any) -> None:
        given = data.draw(st.lists(words, max_size=8))
        options: dict[str, Any] = {"presets": few_shot.PRESETS, "complete": few_shot.complete}
        options["grid"] = lambda configs, grid: [main(config) for config in configs]
        with mock.patch("sys.argv", ["few_shot.py", *given]), mock.patch("jax.config.update"):
            try:
                main.__module__ = few_shot.__name__
                cli.command_line(main, few_shot.Config, **options)
                code = 0
            except SystemExit as end:
                code = end.code
        said = capfd.readouterr().err
        assert code in (0, 1, 2), (given, code)
        assert "Traceback" not in said
        assert code == 0 or said.strip() or "-h" in given, given

    fuzz(one)
