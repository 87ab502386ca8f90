"""What a run directory promises: resumed = never stopped, and nothing is lost by any end."""

import contextlib
import errno
import functools
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxdl.errors import InputError, RunError
from jaxdl.report import tables
from jaxdl.runs import progress
from jaxdl.runs import run as runs
from jaxdl.runs.best import Best, validation
from jaxdl.runs.checkpoint import Checkpoints
from jaxdl.runs.journal import Journal
from jaxdl.runs.run import Interrupted, Run, open_run
from jaxdl.runs.signals import Signals
from jaxdl.runs.stored import load_best
from jaxdl.runs.supervise import SECONDS, Training
from jaxdl.train.streams import run_keys
from jaxdl.types import TrainState
from tests.tiny_run import config, start, train, validated

ROOT = Path(__file__).resolve().parents[2]


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def saved_state(settings, folder="checkpoints"):
    """The newest checkpoint of a tiny run."""
    directory = settings.run.runs_dir / "tiny" / settings.run.name
    with Checkpoints(directory / folder) as checkpoints:
        return checkpoints.restore(start(settings)[1])


# ---- resumed = never stopped


@pytest.mark.parametrize("log_every", [2, 3])
def test_resumed_equals_never_stopped_bit_for_bit(tmp_path, log_every):
    settings = {"steps": 6, "seeds": 2, "log_every": log_every}
    never = train(config(tmp_path, name="never", **settings))
    with pytest.raises(Interrupted):
        # Step 3 lies between two lines of metrics.jsonl, or on one.
        train(config(tmp_path, name="stopped", **settings), signal_after=(3, signal.SIGTERM))
    stopped = train(config(tmp_path, name="stopped", **settings))
    train(config(tmp_path, name="raised", **{**settings, "steps": 3}))
    raised = train(config(tmp_path, name="raised", **settings))

    assert bits(stopped) == bits(never)
    assert bits(raised) == bits(never)
    lines = [
        (tmp_path / "tiny" / name / "metrics.jsonl").read_text()
        for name in ("never", "stopped", "raised")
    ]
    assert lines[1] == lines[0]
    assert lines[2] == lines[0]
    assert [json.loads(line)["step"] for line in lines[0].splitlines()] == list(
        range(log_every, 7, log_every)
    )
    assert not np.array_equal(*never.params["w"]), "two seeds, two results"


def test_lines_of_metrics_are_means_over_their_steps(tmp_path):
    train(config(tmp_path, name="each", log_every=1))
    train(config(tmp_path, name="by three", log_every=3))
    with open_run("tiny", config(tmp_path, name="each")) as run:
        each = run.metrics("train")
    with open_run("tiny", config(tmp_path, name="by three")) as run:
        by_three = run.metrics("train")
    assert by_three["step"].tolist() == [3, 6]
    for name in ("loss", "accuracy"):
        assert each[name].shape == (6, 2)
        expected = each[name].reshape(2, 3, 2).mean(axis=1)
        np.testing.assert_allclose(by_three[name], expected, rtol=1e-12)


def test_after_half_a_line_the_run_resumes(tmp_path):
    settings = {"steps": 6, "log_every": 2}
    never = train(config(tmp_path, name="never", **settings))
    with pytest.raises(Interrupted):
        train(config(tmp_path, **settings), signal_after=(4, signal.SIGINT))
    path = tmp_path / "tiny" / "a" / "metrics.jsonl"
    with path.open("ab") as file:  # a killed process: a line of step 6, half a line, and no text
        file.write(b'{"step": 6, "split": "train", "loss": [1, 2]}\n{"step": 6, "sp\xff')
    assert bits(train(config(tmp_path, **settings))) == bits(never)
    assert path.read_bytes() == (tmp_path / "tiny" / "never" / "metrics.jsonl").read_bytes()


def facts(folder, part=""):
    """All that a finished `validated` run has found, to the last bit."""
    directory = folder / "tiny" / "a"
    result = json.loads((directory / "result.json").read_text())
    del result["run"]
    like = {"w": np.zeros((4, 3), np.float32)}
    return (
        (directory / part / "metrics.jsonl").read_text(),
        result,
        jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), load_best(directory / part, like)),
    )


@pytest.fixture(scope="module")
def never(tmp_path_factory):
    """What a `validated` run of so many steps finds that was never stopped."""

    @functools.cache
    def of(steps, part="", **flags):
        folder = tmp_path_factory.mktemp("never")
        validated(config(folder, steps=steps, seeds=4, **flags), part=part)
        return facts(folder, part)

    return of


@pytest.mark.parametrize(
    ("log_every", "part", "stops"),
    [(2, "", (3, 4, 6, 7, 9)), (4, "", (3, 6, 9)), (1, "baseline", (3, 6, 9))],
)
def test_prolonged_equals_never_stopped_bit_for_bit(tmp_path, never, log_every, part, stops):
    """Every pair of last steps: on a validation or none, on a log point or none."""
    for first, last in itertools.combinations(stops, 2):
        folder = tmp_path / f"{first}-{last}"
        for steps in (first, last):
            validated(config(folder, steps=steps, seeds=4, log_every=log_every), part=part)
        assert facts(folder, part) == never(last, part, log_every=log_every), (first, last)


def copied(source, target):
    """A copy of a folder in which somebody writes."""
    while not target.exists():
        try:
            shutil.copytree(source, target)
        except (OSError, shutil.Error):  # what was there is there no more
            shutil.rmtree(target, ignore_errors=True)
    return target


class Killed(BaseException):
    """In place of a signal that ends a process at once."""


def killed_past(step):
    """`Training.save` of a process that is killed after the checkpoint of this step."""

    def save(run, state):
        if int(state.step) > step:
            raise Killed
        return real(run, state)

    real = Training.save
    return mock.patch.object(Training, "save", save)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [(6, 9), (9, 6)])
def test_killed_before_any_write_and_asked_for_any_steps_it_equals_never_stopped(
    tmp_path, never, monkeypatch, first, second
):
    """A run that ended at step 6, or was killed there on its way to 9, and then should go to 9, or
    to 6, at which no longer run validates. It was killed at any moment of this second part: a copy
    of its directory is what `kill -9` leaves there."""
    work, copies = tmp_path / "work", []

    def watch(kind, name):
        write = getattr(kind, name)

        def watched(self, *arguments, **options):
            copies.append(copied(work, tmp_path / f"{len(copies)} {kind.__name__}.{name}"))
            return write(self, *arguments, **options)

        monkeypatch.setattr(kind, name, watched)

    settings = {"seeds": 4, "log_every": 2, "save_minutes": 0.0}
    if first == 6:
        validated(config(work, steps=6, **settings))
        (work / "tiny" / "a" / "result.json").unlink()  # killed before its end
    else:
        with killed_past(6), pytest.raises(Killed):
            validated(config(work, steps=9, **settings))
    with monkeypatch.context() as monkeypatch:
        for kind, name in (
            (Journal, "append"),
            (Journal, "select"),
            (Checkpoints, "save"),
            (Best, "_move"),
            (Run, "finish"),
        ):
            watch(kind, name)
        validated(config(work, steps=second, **settings))
    names = {path.name.split()[1] for path in copies}
    assert {"Journal.append", "Journal.select", "Checkpoints.save", "Run.finish"} <= names

    for copy, steps in itertools.product(copies, (6, 7, 9, 12)):
        done = max(Checkpoints(copy / "tiny" / "a" / "checkpoints").steps())
        folder = copied(copy, tmp_path / "again" / f"{copy.name} {steps}")
        settings = config(folder, steps=steps, seeds=4, log_every=2)
        if done > steps:
            with pytest.raises(InputError, match=f"already done {done} steps"):
                validated(settings)
        else:
            validated(settings)
            assert facts(folder) == never(steps, log_every=2), (copy.name, steps)


@pytest.fixture(scope="module")
def sinusoid(tmp_path_factory):
    """How to start the real experiment, small, and a run of it that nothing disturbed."""
    folder = tmp_path_factory.mktemp("sinusoid")
    flags = ["--steps", "3000", "--tasks", "2", "--seeds", "2", "--test-tasks", "2"]
    flags += ["--devices", "1", "--log-every", "100", "--save-minutes", "0"]
    command = [sys.executable, "-m", "experiments.sinusoid", *flags, "--runs-dir", str(folder)]

    def begin(name, *more):
        return subprocess.Popen(
            [*command, "--name", name, *more],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    undisturbed = begin("undisturbed")
    output, errors = undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0, errors
    return begin, folder / "sinusoid", output


@pytest.mark.slow
def test_kill_9_at_random_moments_changes_nothing(sinusoid):
    begin, folder, _ = sinusoid
    moments = np.random.default_rng(int(time.time()))
    kills = []
    for part in (folder / "killed", folder / "killed" / "pretrained"):
        process = begin("killed")
        while process.poll() is None and not Checkpoints(part / "checkpoints").steps():
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.7))
        process.kill()
        process.communicate()
        kills.append((part.name, Checkpoints(part / "checkpoints").steps()))
        assert process.returncode == -signal.SIGKILL, kills
    process = begin("killed")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, (kills, errors)
    assert "resuming" in errors
    for part in ("", "pretrained"):
        one, other = folder / "undisturbed" / part, folder / "killed" / part
        lines = [(each / "metrics.jsonl").read_bytes() for each in (one, other)]
        assert lines[0] == lines[1], kills
    results = [
        json.loads((folder / name / "result.json").read_text())
        for name in ("undisturbed", "killed")
    ]
    # Every figure of the test is one of the final parameters.
    assert results[0]["maml"] == results[1]["maml"], kills
    assert results[0]["pretrained"] == results[1]["pretrained"], kills
    assert [raw_parameters(folder / "undisturbed")] == [raw_parameters(folder / "killed")], kills


def raw_parameters(directory):
    """The bits of the newest checkpoint's state, by the checksum that it was written with."""
    newest = Checkpoints(directory / "checkpoints").steps()[-1]
    record = (directory / "checkpoints" / str(newest) / "record" / "metadata").read_text()
    return newest, json.loads(record)["crc32"]


def test_the_same_command_reprints_a_finished_run(sinusoid):
    begin, folder, output = sinusoid
    before = contents(folder / "undisturbed")
    process = begin("undisturbed")
    again, errors = process.communicate(timeout=100)
    assert process.returncode == 0
    assert again == output
    assert "compiled" not in errors
    after = contents(folder / "undisturbed")
    assert {path: data for path, data in after.items() if path.name != "lock"} == {
        path: data for path, data in before.items() if path.name != "lock"
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_resume(sinusoid, number):
    begin, folder, _ = sinusoid
    name = number.name
    process = begin(name, "--steps", "1000000")
    for line in process.stderr:
        if line.startswith("step"):
            break
    process.send_signal(number)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 128 + number, errors
    last = errors.splitlines()[-1]
    newest = Checkpoints(folder / name / "checkpoints").steps()[-1]
    assert last == (
        f"stopped by {name}: saved at step {newest:,} of 1,000,000. The same command resumes"
        f" {folder / name}"
    )
    assert "Traceback" not in errors


# ---- signals


def test_a_signal_during_the_last_steps_is_not_lost(tmp_path):
    with pytest.raises(Interrupted, match="saved at step 6 of 6") as stop:
        train(config(tmp_path, steps=6, log_every=6), signal_after=(6, signal.SIGTERM))
    assert stop.value.exit_code == 143
    assert not (tmp_path / "tiny" / "a" / "result.json").exists()
    assert int(saved_state(config(tmp_path)).step) == 6


def test_a_second_signal_stops_at_once(tmp_path):
    def impatient(run, i, state):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("went on")

    with pytest.raises(Interrupted, match="goes on from the last checkpoint") as stop:
        train(config(tmp_path, log_every=2), at_log_point=impatient)
    assert stop.value.exit_code == 130


def stop_now(number):
    os.kill(os.getpid(), number)
    time.sleep(1)
    pytest.fail("went on")


def test_outside_the_loop_a_signal_stops_at_once_and_handlers_come_back(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGTERM"), open_run("tiny", config(tmp_path)):
        stop_now(signal.SIGTERM)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_no_except_clause_swallows_an_interrupt(tmp_path):
    def swallow_everything():
        try:
            stop_now(signal.SIGINT)
        except Exception:
            pytest.fail("swallowed")

    with pytest.raises(Interrupted), open_run("tiny", config(tmp_path)):
        swallow_everything()


def test_ignored_signals_stay_ignored(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with open_run("tiny", config(tmp_path)):
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


# ---- which run it is


def test_a_finished_run_is_not_run_again_and_more_steps_continue(tmp_path, capfd):
    train(config(tmp_path, steps=4, log_every=2))
    with open_run("tiny", config(tmp_path, steps=4)) as run:
        assert run.result()["run"]["steps"] == 4
    before = contents(tmp_path)
    with pytest.raises(InputError, match="already done 4 steps, more than `steps=3`"):
        train(config(tmp_path, steps=3))
    after = contents(tmp_path)
    assert after.pop(tmp_path / "tiny" / "a" / "lock")
    assert after.items() <= before.items(), "a refused request changes nothing"
    capfd.readouterr()
    train(config(tmp_path, steps=6, log_every=2))
    assert "resuming" in capfd.readouterr().err
    with open_run("tiny", config(tmp_path, steps=6)) as run:
        assert run.result()["run"]["steps"] == 6
    assert "steps: 6" in (tmp_path / "tiny" / "a" / "config.yaml").read_text()


@pytest.mark.parametrize("part", ["", "baseline"])
def test_the_configuration_tells_of_the_steps_on_the_way(tmp_path, part):
    """Also where what goes on is a part, or had not begun: a schedule may follow these steps."""
    told = tmp_path / "tiny" / "a" / "config.yaml"
    unbegun = config(tmp_path, steps=3, seeds=4)
    with pytest.raises(RunError), open_run("tiny", unbegun):
        raise RunError("killed")
    assert "steps: 3" in told.read_text()
    for steps in (4, 6):
        validated(config(tmp_path, steps=steps, seeds=4, log_every=2), part=part)
        assert f"steps: {steps}" in told.read_text()


def test_fewer_steps_than_a_stopped_run_has_done_are_refused(tmp_path):
    with pytest.raises(Interrupted):
        train(config(tmp_path, steps=6), signal_after=(4, signal.SIGTERM))
    with (
        pytest.raises(InputError, match="already done 4 steps"),
        open_run("tiny", config(tmp_path, steps=3)),
    ):
        pytest.fail("opened")


def test_a_changed_configuration_is_refused_by_its_flag(tmp_path):
    train(config(tmp_path))
    before = contents(tmp_path)
    with (
        pytest.raises(InputError, match=r"was made with `nan_from=1000000`, not 7.*`name=`"),
        open_run("tiny", config(tmp_path, nan_from=7)),
    ):
        pytest.fail("opened")
    before.pop(tmp_path / "tiny" / "a" / "lock")
    assert before.items() <= contents(tmp_path).items()


@pytest.mark.parametrize("stored", [False, True])
def test_a_run_refused_before_it_stored_anything_leaves_its_name_free(tmp_path, stored):
    def refused_late():
        with open_run("tiny", config(tmp_path)) as run:
            if stored:
                run.part("b").log(1, "train", {"loss": np.zeros(1)})
            raise InputError("wrong")

    with pytest.raises(InputError, match="wrong"):
        refused_late()
    assert (tmp_path / "tiny" / "a").exists() == stored
    other = config(tmp_path, nan_from=7)
    refused = pytest.raises(InputError, match="was made with")
    with refused if stored else contextlib.nullcontext(), open_run("tiny", other):
        pass


def test_a_run_that_has_begun_keeps_its_configuration_through_a_refusal(tmp_path):
    train(config(tmp_path))
    with pytest.raises(InputError, match="wrong"), open_run("tiny", config(tmp_path)):
        raise InputError("wrong")
    assert (tmp_path / "tiny" / "a" / "config.yaml").exists()


def test_steps_logging_and_devices_may_change(tmp_path):
    train(config(tmp_path, steps=2, log_every=2, devices=1, save_minutes=1.0))
    train(config(tmp_path, steps=4, log_every=1, devices=0, save_minutes=2.0))


def test_the_name_follows_the_configuration(tmp_path):
    def directory(**changes):
        with open_run("tiny", config(tmp_path, name="", **changes), label="x") as run:
            return run.directory

    assert directory() == directory(steps=9, log_every=3)
    assert directory() != directory(lr=0.2)
    assert directory().name.startswith("x-")


def test_a_run_is_locked(tmp_path):
    with open_run("tiny", config(tmp_path)):
        with (
            pytest.raises(RunError, match=f"in use by process {os.getpid()} on .*Wait for it"),
            open_run("tiny", config(tmp_path)),
        ):
            pytest.fail("opened twice")
        with open_run("tiny", config(tmp_path, name="b")):
            pass
    with open_run("tiny", config(tmp_path)):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_lock_needs_no_room(tmp_path, monkeypatch):
    opened = os.open

    def on_a_full_disk(path, *args, **kwargs):
        return opened("/dev/full" if Path(path).name == "lock" else path, *args, **kwargs)

    monkeypatch.setattr(os, "open", on_a_full_disk)
    with open_run("tiny", config(tmp_path)) as run:
        assert run.directory == tmp_path / "tiny" / "a"


def test_where_there_are_no_locks_it_says_so(tmp_path, monkeypatch, capfd):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with open_run("tiny", config(tmp_path)):
        pass
    assert "no lock on" in capfd.readouterr().err


# ---- divergence and full disks


def test_divergence_stops_with_the_step_and_the_last_good_checkpoint(tmp_path):
    settings = config(tmp_path, steps=9, nan_from=4, log_every=1, save_minutes=0.0)
    with pytest.raises(RunError) as error:
        train(settings)
    assert error.value.exit_code == 1
    said = str(error.value)
    assert "loss of seed 1 of 2 is not finite at step 5. The last good checkpoint is /" in said
    assert "/checkpoints/4. Try a lower" in said
    good = saved_state(settings)
    assert int(good.step) == 4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(good))


def test_a_state_that_is_not_finite_is_never_saved(tmp_path):
    settings = config(tmp_path)
    _, state = start(settings)
    broken = state._replace(params={"w": state.params["w"].at[1, 0].set(np.inf)})
    with open_run("tiny", settings) as run:
        finite = {"loss": np.ones((2, 1), np.float32)}
        with pytest.raises(RunError, match=r"the state is not finite at step 6\. No checkpoint"):
            list(run.watch([(6, broken._replace(step=np.int32(6)), finite)]))
    assert Checkpoints(run.directory / "checkpoints").steps() == []


def test_infinity_in_the_optimiser_is_no_divergence(tmp_path):
    settings = config(tmp_path)
    _, state = start(settings)
    state = state._replace(step=np.int32(6), opt_state={"best loss": np.full(2, np.inf)})
    with open_run("tiny", settings) as run:
        list(run.watch([(6, state, {"loss": np.ones((2, 1))})]))
    assert Checkpoints(run.directory / "checkpoints").steps() == [6]


def test_a_metric_that_is_no_loss_may_be_nan_and_is_logged_as_nan(tmp_path, capfd):
    """An accuracy over nothing, in one seed, before a stop within a window and after it."""
    settings = config(tmp_path, steps=3, log_every=3, save_minutes=0.0)
    _, state = start(settings)

    def chunks(first, last):
        for i in range(first, last + 1):
            accuracy = np.float32([[np.nan if i < 3 else 1.0], [0.5 * i]])
            metrics = {"loss": np.ones((2, 1), np.float32), "accuracy": accuracy}
            yield i, state._replace(step=np.int32(i)), metrics

    for first, last in ((1, 1), (2, 3)):
        with open_run("tiny", settings) as run:
            assert int(run.restore(state).step) == first - 1
            list(run.watch(chunks(first, last)))
    (line,) = (tmp_path / "tiny" / "a" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["accuracy"] == ["nan", 1.0]
    np.testing.assert_array_equal(run.metrics("train")["accuracy"], [[np.nan, 1.0]])
    assert "loss 1.0000  accuracy nan" in capfd.readouterr().err


def test_a_diverged_loss_is_named(tmp_path):
    settings = config(tmp_path)
    _, state = start(settings)
    bad = {"loss": np.ones((2, 1)), "accuracy": np.full((2, 1), np.nan)}
    bad["loss/1"] = np.array([[1.0], [np.inf]])
    with (
        open_run("tiny", settings) as run,
        pytest.raises(RunError, match=r"the loss/1 of seed 2 of 2 is not finite at step 4\. No"),
    ):
        list(run.watch([(4, state._replace(step=np.int32(4)), bad)]))


def test_a_calm_loss_that_is_nan_at_once_points_at_the_inner_optimiser(tmp_path):
    settings = config(tmp_path)
    _, state = start(settings)
    calm = {"loss": np.array([[0.5, 0.4, np.nan], [0.5, 0.4, 0.3]])}
    with (
        open_run("tiny", settings) as run,
        pytest.raises(
            RunError,
            match=r"its gradient is the suspect.*page inner-optimisers of the documentation$",
        ),
    ):
        list(run.watch([(3, state._replace(step=np.int32(3)), calm)]))


def no_room(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_stops_with_a_sentence_and_the_run_goes_on_later(tmp_path, monkeypatch):
    settings = {"steps": 6, "log_every": 2, "save_minutes": 0.0}
    never = train(config(tmp_path, name="never", **settings))

    def fill(run, i, state):
        if i == 4:
            run._training.checkpoints.wait()
            monkeypatch.setattr(run._training.checkpoints._manager, "save", no_room)

    with pytest.raises(RunError, match=r"checkpoint 4 could not .*checkpoint 3 is safe\. Free d"):
        train(config(tmp_path, **settings), at_log_point=fill)
    monkeypatch.undo()
    assert bits(train(config(tmp_path, **settings))) == bits(never)
    lines = [(tmp_path / "tiny" / name / "metrics.jsonl").read_text() for name in ("never", "a")]
    assert lines[0] == lines[1]


@pytest.mark.parametrize("file", ["metrics.jsonl", "result.json", "config.yaml"])
def test_no_room_for_a_small_file(tmp_path, file, monkeypatch):
    name = {"metrics.jsonl": "open"}.get(file, "replace")
    method = getattr(Path, name)

    def refuse(self, *arguments, **options):
        if file in self.name and (name == "replace" or "a" in arguments):
            no_room()
        return method(self, *arguments, **options)

    monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(RunError, match=f"cannot write .*{file} .No space left on device.\\. Free"):
        train(config(tmp_path))
    monkeypatch.undo()
    train(config(tmp_path))


# ---- the best parameters


def keep(run, step, scores):
    run.keep_best(step, scores, {"w": np.full((3, 2), step, np.float32)})


def best(run):
    params, steps = run.best({"w": np.zeros((3, 2), np.float32)})
    assert np.array_equal(np.asarray(params["w"]), np.repeat(steps[:, None], 2, axis=1))
    return steps.tolist()


def test_the_best_parameters_are_kept_for_each_seed(tmp_path):
    with open_run("tiny", config(tmp_path)) as run:
        keep(run, 1, [0.1, 0.5, np.nan])
        assert best(run) == [1, 1, 1]
        keep(run, 2, [0.2, 0.4, -9.0])
        assert best(run) == [2, 1, 2], "anything is better than NaN"
        keep(run, 3, [0.2, np.nan, -10.0])
        assert best(run) == [2, 1, 2], "the first of equals; NaN beats nothing"
        keep(run, 4, [0.3, 0.4, -9.0])
        assert best(run) == [4, 1, 2]
    with open_run("tiny", config(tmp_path)) as run:  # resumed from before step 2
        for step in (2, 4):
            keep(run, step, [9.0, 9.0, 9.0])
        assert best(run) == [4, 1, 2], "what has been judged once"
        keep(run, 5, [0.2, 0.6, -9.0])
        assert best(run) == [4, 5, 2]
    _, steps = load_best(run.directory, {"w": np.zeros((3, 2), np.float32)})
    assert steps.tolist() == [4, 5, 2]


def test_the_best_of_a_checkpoint_under_way_stays(tmp_path, monkeypatch):
    """A process that is killed right after may go on from it."""
    under_way = mock.Mock()
    under_way.steps.side_effect = lambda: [3] if under_way.wait.called else []
    with open_run("tiny", config(tmp_path)) as run:
        keep(run, 2, [2.0, 2.0, 2.0])
        keep(run, 4, [4.0, 4.0, 4.0])
        monkeypatch.setattr(run._training, "checkpoints", under_way)
        keep(run, 5, [5.0, 5.0, 5.0])
    assert Checkpoints(run.directory / "best").steps() == [2, 4, 5]


def test_best_parameters_survive_the_steps_after_them(tmp_path):
    # keep_best gets the live state, whose buffers the next steps overwrite.
    copies = {}

    def judge(run, i, state):
        copies[i] = np.array(state.params["w"])
        run.keep_best(i, [i, -i], state.params)

    train(config(tmp_path, steps=6, log_every=1), at_log_point=judge)
    like = {"w": np.zeros((2, 3), np.float32)}
    params, steps = load_best(tmp_path / "tiny" / "a", like)
    assert steps.tolist() == [6, 1]
    np.testing.assert_array_equal(params["w"], np.stack([copies[6][0], copies[1][1]]))


def test_checkpoints_hold_the_state_of_their_step(tmp_path):
    # Saving goes on in the background while donated buffers are overwritten.
    copies = {}

    def copy(run, i, state):
        copies[i] = jax.tree.map(lambda leaf: np.array(leaf), state)

    settings = config(tmp_path, steps=5, log_every=1, save_minutes=0.0)
    train(settings, at_log_point=copy)
    with Checkpoints(tmp_path / "tiny" / "a" / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [4, 5]
        for step in (4, 5):
            assert bits(checkpoints.restore(start(settings)[1], step)) == bits(copies[step])


@pytest.mark.parametrize("part", ["", "lstm"])
def test_validations_are_logged_said_and_choose_the_best(part, tmp_path, monkeypatch, capfd):
    def chunks(*_, devices):
        for i in (2, 4, 6, 8, 9):
            yield i, TrainState(i, {"w": np.array([i, i], np.float32)}, ())

    def validate(state):
        assert state.step in (4, 8, 9)
        return {"loss": [0.5, state.step], "score": [state.step, -state.step]}

    with open_run("tiny", config(tmp_path, steps=9, log_every=2)) as whole:
        run = whole.part(part) if part else whole
        monkeypatch.setattr(run, "log_points", chunks)
        rest = {"validate": validate, "eval_every": 4, "best": "score"}
        last = run.train(None, None, None, None, **rest)
        assert last.step == 9
        params, steps = run.best({"w": np.zeros(2, np.float32)})
        lines = run.metrics("validation")
        monkeypatch.setattr(run, "log_points", lambda *_, devices: iter(()))
        assert run.train(None, None, None, last, **rest) is not None
    assert steps.tolist() == [9, 4]
    assert params["w"].tolist() == [9, 4]
    assert lines["step"].tolist() == [4, 8, 9]
    assert lines["loss"].tolist() == [[0.5, 4], [0.5, 8], [0.5, 9]]
    said = f"{part}{', ' if part else ''}step 4  validation loss 2.2500, score 0.0000"
    assert said in capfd.readouterr().err.splitlines()


@pytest.mark.parametrize("every", [3, 5, 0])
def test_a_validation_between_log_points_is_refused(every, tmp_path):
    """It was left out, so that the flag `log_every` decided which parameters are the best."""
    with open_run("tiny", config(tmp_path, steps=9, log_every=2)) as run:
        rest = {"validate": lambda state: {"loss": [0.0]}, "eval_every": every}
        message = f"`eval_every={every}` must be a multiple of `log_every=2`"
        with pytest.raises(InputError, match=re.escape(message)):
            run.train(None, None, None, None, **rest)


@pytest.mark.parametrize("every", [None, 9, 12])
def test_without_a_number_of_steps_the_last_one_alone_is_validated(every, tmp_path, monkeypatch):
    points = [(i, TrainState(i, {"w": np.zeros(2)}, ())) for i in (2, 4, 6, 8, 9)]
    with open_run("tiny", config(tmp_path, steps=9, log_every=2)) as run:
        monkeypatch.setattr(run, "log_points", lambda *_, devices: iter(points))
        rest = {"validate": lambda state: {"loss": [0.5, 0.25]}, "eval_every": every}
        run.train(None, None, None, None, **rest)
        assert run.metrics("validation")["step"].tolist() == [9]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ((0.5, 0.25), "`validate` returned tuple. Let it return a dict of metrics"),
        (
            {"loss": [0.5]},
            "`best='accuracy'` is none of the metrics that `validate` returned: 'loss'",
        ),
        ({}, "there are none. Choose one of them"),
    ],
)
def test_a_validation_that_finds_something_else_is_refused(found, message):
    with pytest.raises(InputError, match=re.escape(message)):
        validation(found, "accuracy")


def test_a_run_that_another_text_of_the_program_made_says_so(tmp_path):
    """The same command prints the old result, although the program would compute another."""
    program = tmp_path / "own.py"
    text = (
        "import dataclasses, pathlib, jaxdl\n"
        "Config = dataclasses.make_dataclass('Config', ['steps', 'run'])\n"
        "flags = jaxdl.RunFlags(name='a', runs_dir=pathlib.Path('runs'))\n"
        "with jaxdl.open_run('own', Config(1, flags)) as run:\n"
        "    print((run.result() or run.finish({'value': 5}))['value'])\n"
    )
    said = []
    for changed in (text, text, text.replace("5", "7")):
        program.write_text(changed)
        command = [sys.executable, str(program)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "5"
        said.append(done.stderr)
    assert "own.py has changed since it made" in said[2]
    assert "has changed" not in said[0] + said[1]
    reader = tmp_path / "analyse.py"  # it made nothing
    reader.write_text(text.replace("5", "9"))
    done = subprocess.run(
        [sys.executable, str(reader)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.stdout.strip(), "has changed" in done.stderr) == ("5", False)


@pytest.mark.parametrize("seeds", [0, -2])
def test_no_seed_is_no_run(seeds):
    with pytest.raises(InputError, match=f"`seeds={seeds}`: choose a whole number of at least 1"):
        run_keys(0, seeds)


def test_a_seed_that_does_not_fit_is_told():
    with pytest.raises(InputError, match=r"`seed=2147483648`: choose a seed below 2\*\*31"):
        run_keys(2**31, 2)
    assert jax.jit(lambda seed: run_keys(seed, 2))(7)[1] == jax.random.key(8)


def test_a_negative_number_of_steps_is_told_as_such(tmp_path):
    with (
        pytest.raises(InputError, match="`steps=-5`: choose at least 1"),
        open_run("tiny", config(tmp_path, steps=-5)),
    ):
        pass


# ---- what people see


def test_progress_lines(tmp_path, capfd):
    train(config(tmp_path, steps=6, log_every=3))
    lines = capfd.readouterr().err.splitlines()
    number = r"[\d,.]+"
    assert len(lines) == 3
    assert re.fullmatch(r"compiled in [\d.]+ s", lines[0])
    for step, line in zip((3, 6), lines[1:], strict=True):
        pattern = rf"step {step}/6  {number} steps/s  loss {number}  accuracy {number}  0:0\d left"
        assert re.fullmatch(pattern, line), line


def test_rates_leave_out_compilation_and_validation(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    told = progress.Progress(100, 1100)
    wait(60)  # compilation
    told.restart(100)
    wait(2)
    told.stepped(200)
    assert told.line({"loss": [1.0, 2.0], "loss/0": [3.0, 4.0]}) == (
        "step   200/1,100  50 steps/s  loss 1.5000  0:18 left"
    )
    wait(6)  # a validation: no training, but time that passes
    told.resumed()
    wait(2)
    told.stepped(300)
    assert "50 steps/s" in told.line({})
    assert "loss/query 2.0000" in told.line({"accuracy": [1.0], "loss/query": [2.0]})
    assert "0:40 left" in told.line({})
    assert progress.clock(3 * 3600 + 61) == "3:01:01"


def test_a_long_test_shows_the_time_left_once_it_is_known(monkeypatch, capfd):
    """By the first part, which compiles, and then by the others alone. A log has a line per 20 s.

    Planted bugs: the first part counts for ever (1:40 left); sizes are ignored; a line at the end.
    """
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    for seconds in progress.timed([100, 12, 12, 48], "test", [1, 1, 1, 4]):
        now[0] += seconds
    assert capfd.readouterr().err.splitlines() == [
        "test: 14 % done, 10:00 left",
        "test: 43 % done, 0:48 left",
    ]
    for _ in progress.timed(range(5), "short"):
        now[0] += 2
    assert capfd.readouterr().err == ""


def test_wall_and_compile_time_add_up_over_resumes(tmp_path):
    with pytest.raises(Interrupted):
        train(config(tmp_path, log_every=1), signal_after=(3, signal.SIGTERM))
    path = tmp_path / "tiny" / "a" / "checkpoints" / "3" / "record" / "metadata"
    record = json.loads(path.read_text())
    record["notes"] |= {"seconds": 1000.0, "compile_seconds": 500.0}
    path.write_text(json.dumps(record))
    train(config(tmp_path, log_every=1))
    about = json.loads((tmp_path / "tiny" / "a" / "result.json").read_text())["run"]
    assert 1000 <= about["wall_seconds"] < 1100
    assert 500 <= about["compile_seconds"] < 600
    times = Journal(tmp_path / "tiny" / "a", name=SECONDS).read("train")
    assert times["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert (times["seconds"] > 1000).tolist() == [False] * 3 + [True] * 3
    assert (times["compile_seconds"] >= 500).tolist() == [False] * 3 + [True] * 3
    parts = {"revision", "jaxdl", "python", "packages", "device", "machine", "command"}
    assert parts <= about.keys()


def test_finish_returns_what_the_file_holds(tmp_path):
    with open_run("tiny", config(tmp_path)) as run:
        value = run.finish({1: np.float32(0.5), "steps": np.arange(2), "bad": float("nan")})
        assert value == json.loads((run.directory / "result.json").read_text())
        assert value == run.result()
    assert (value["1"], value["steps"], value["bad"]) == (0.5, [0, 1], "nan")


def test_a_result_from_before_jaxdl_had_a_revision_of_its_own_is_reprinted(tmp_path):
    with open_run("tiny", config(tmp_path)) as run:
        result = run.finish({"accuracy": 0.5})
        del result["run"]["jaxdl"]
        (run.directory / "result.json").write_text(json.dumps(result))
    with open_run("tiny", config(tmp_path)) as run:
        assert run.result() == result
        assert tables.made_by(result["run"]).endswith(str(run.directory))


def test_tensorboard_events(tmp_path):
    pytest.importorskip("tensorboardX")
    train(config(tmp_path, steps=2, log_every=1, tensorboard=True))
    (events,) = (tmp_path / "tiny" / "a").glob("events.out.tfevents.*")
    data = events.read_bytes()
    assert data.count(b"train/loss") == 2
    assert data.count(b"train/accuracy") == 2


def shown_by_tensorboard(directory):
    """The steps by tag that TensorBoard shows: a start purges the events at its step and later."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    shown = set()
    for path in sorted(directory.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:  # records: length, its checksum, an event, its checksum
            end = 12 + int.from_bytes(data[:8], "little")
            event, data = Event.FromString(data[12:end]), data[end + 4 :]
            if event.session_log.status == SessionLog.START:
                shown = {(tag, step) for tag, step in shown if step < event.step}
            shown |= {(value.tag, event.step) for value in event.summary.value}
    return {tag: sorted(s for t, s in shown if t == tag) for tag, _ in shown}


def test_what_no_longer_counts_is_purged_from_tensorboard(tmp_path):
    """The events of step 6, of which those of the training come back."""
    pytest.importorskip("tensorboardX")
    directory, found = tmp_path / "tiny" / "a", []
    for steps in (6, 9):
        validated(config(tmp_path, steps=steps, seeds=4, log_every=2, tensorboard=True))
        found.append(shown_by_tensorboard(directory))
        for path in directory.glob("events.out.*"):  # their names have seconds
            path.rename(path.with_name(f"events.out.tfevents.0{steps}"))
    assert (found[0]["train/loss"], found[0]["validation/score"]) == ([2, 4, 6], [4, 6])
    assert (found[1]["train/loss"], found[1]["validation/score"]) == ([2, 4, 6, 8, 9], [4, 8, 9])


def test_pictures_do_without_matplotlib(tmp_path, monkeypatch, capfd):
    with open_run("tiny", config(tmp_path)) as run:
        run.picture("drawn", lambda figure: figure.subplots().plot([1, 2]), size=(2, 2))
        assert (run.directory / "drawn.png").read_bytes().startswith(b"\x89PNG")
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        run.picture("missing", lambda figure: None, size=(2, 2))
    assert "no missing.png: matplotlib is not installed. Install it: pip" in capfd.readouterr().err


def test_parts_have_their_own_checkpoints_and_steps(tmp_path):
    with open_run("tiny", config(tmp_path, steps=6)) as run:
        part = run.part("baseline", 3)
        assert part is run.part("baseline")
        assert (part.steps, part.directory) == (3, run.directory / "baseline")
        assert isinstance(part, Run)
        part.log(1, "train", {"loss": [1.0]})
        assert run.metrics("train") == {}
        assert part.metrics("train")["loss"].tolist() == [[1.0]]


def test_public_names():
    assert all(hasattr(runs, name) for name in runs.__all__)
    assert not Signals().came


class Drawing(NamedTuple):
    """A state that carries random keys of its own, as samplers and environments do."""

    step: Any
    params: Any
    keys: Any


def test_a_state_with_typed_keys_is_resumed_bit_for_bit(tmp_path):
    def step(key, state, batch):
        del key, batch
        new, use = jax.random.split(state.keys)
        params = {"w": state.params["w"] + jax.random.normal(use, (3,))}
        return Drawing(state.step + 1, params, new), {"loss": jnp.sum(params["w"] ** 2)}

    def run(steps, **changes):
        keys = run_keys(0, 2)
        state = Drawing(jnp.int32(0), {"w": jnp.zeros((2, 3))}, keys)
        with open_run("drawing", config(tmp_path, steps=steps, **changes)) as run:
            stream = Partial(lambda key, step, shard: ())
            return run.train(step, stream, keys, run.restore(state))

    straight = run(6, name="straight")
    run(3, name="stopped")
    resumed = run(6, name="stopped")
    np.testing.assert_array_equal(resumed.params["w"], straight.params["w"])
    found, expected = (jax.random.key_data(each.keys) for each in (resumed, straight))
    np.testing.assert_array_equal(found, expected)
