"""The best parameters by the rule "highest score, the first of equals", whatever stops a run."""

import itertools
import shutil

import jax
import numpy as np
import pytest

from jaxdl.errors import InputError, RunError
from jaxdl.runs.best import Best
from jaxdl.runs.checkpoint import Checkpoints
from jaxdl.runs.stored import load_best
from jaxdl.runs.weights import load_weights
from tests import tiny_run

LIKE = {"w": np.zeros((2, 3), np.float32)}


def params(step):
    return {"w": np.full((2, 3), step, np.float32)}


def keep(best, step, scores, checkpoints=()):
    best.keep(step, np.asarray(scores), params(step), checkpoints)


def found(folder):
    """The chosen steps of a folder, of whose parameters they are."""
    chosen, steps = load_best(folder, LIKE)
    np.testing.assert_array_equal(chosen["w"], np.repeat(steps[:, None], 3, axis=1))
    return steps.tolist()


def entries(folder):
    return Checkpoints(folder / "best").steps()


@pytest.fixture
def best(tmp_path):
    """Three choices, and checkpoints of steps 3 and 6."""
    best = Best(tmp_path / "best")
    keep(best, 2, [0.1, 0.2])
    keep(best, 4, [0.2, 0.1], [3])
    keep(best, 8, [0.1, 0.3], [3, 6])
    yield best
    best.close()


def test_the_newest_two_stay_and_what_was_best_up_to_each_checkpoint(best, tmp_path):
    assert entries(tmp_path) == [2, 4, 8]
    keep(best, 10, [0.3, 0.1], [6, 9])
    assert entries(tmp_path) == [4, 8, 10]
    keep(best, 11, [0.4, 0.1], [9, 10])
    assert entries(tmp_path) == [8, 10, 11]
    keep(best, 12, [0.5, 0.1])
    assert entries(tmp_path) == [11, 12]
    assert found(tmp_path) == [12, 8]


@pytest.mark.parametrize(("last", "choice"), [(8, [4, 8]), (7, [4, 2]), (3, [2, 2])])
def test_what_is_forgotten_gives_way_to_what_was_best_before(best, tmp_path, last, choice):
    best.forget(lambda step: step <= last)
    assert found(tmp_path) == choice
    keep(best, last + 1, [0.15, 9.0])
    assert found(tmp_path) == [last + 1 if last == 3 else 4, last + 1]


def test_where_nothing_counts_there_is_no_choice(best, tmp_path):
    best.forget(lambda step: False)
    assert entries(tmp_path) == []
    with pytest.raises(RunError, match="there is no checkpoint"):
        found(tmp_path)
    keep(best, 1, [np.nan, 0.0])  # earlier than what was there
    assert found(tmp_path) == [1, 1]


def test_all_stops_choose_as_one_that_never_stopped(tmp_path):
    """Validations every 4 steps and at the last one; every pair of last steps, equal scores too."""
    scores = {step: np.random.default_rng(step).integers(0, 4, 2) for step in range(1, 11)}

    def chosen(folder, *stops):
        best, done = Best(folder / "best"), 0
        for last in stops:
            due = lambda step, last=last: step % 4 == 0 or step == last  # noqa: E731
            best.forget(lambda step, done=done: step <= done)
            best.forget(due)
            for step in filter(due, range(done + 1, last + 1)):
                keep(best, step, scores[step], [done, max(done, step - 1)])
            done = last
        best.close()
        return found(folder)

    stops = 2, 4, 7, 8, 10
    whole = {last: chosen(tmp_path / str(last), last) for last in stops}
    for first, last in itertools.combinations(stops, 2):
        assert chosen(tmp_path / f"{first}-{last}", first, last) == whole[last], (first, last)


def test_leftovers_of_a_process_that_was_killed_do_no_harm(best, tmp_path):
    shutil.copytree(tmp_path / "best" / "2", tmp_path / "best" / "8.orbax-checkpoint-tmp-gone")
    best.forget(lambda step: step <= 6)
    keep(best, 8, [0.1, 0.3], [6])
    best.forget(lambda step: step <= 6)
    assert found(tmp_path) == [4, 2]
    assert {path.name for path in (tmp_path / "best").iterdir()} == {"4"}


# ---- earlier versions, which kept the newest alone


@pytest.fixture
def alone(tmp_path):
    """What they left behind after step 8: the first seed was best at step 4."""
    tree = {"score": np.float32([0.2, 0.3]), "step": np.int32([4, 8])}
    tree["params"] = {"w": np.repeat(np.float32([[4], [8]]), 3, axis=1)}
    with Checkpoints(tmp_path / "best", keep=1) as stored:
        stored.save(8, tree)
    best = Best(tmp_path / "best")
    yield best
    best.close()


def test_choices_of_earlier_versions_are_read_and_go_on(alone, tmp_path):
    alone.forget(lambda step: step <= 8)
    assert found(tmp_path) == [4, 8]
    assert sorted(load_weights(tmp_path).arrays) == ["params/w"]
    keep(alone, 12, [0.1, 0.4])
    assert found(tmp_path) == [4, 12]


@pytest.mark.parametrize(
    ("step", "scores", "choice"),
    [
        (8, [0.1, 0.3], [4, 8]),  # resumed from checkpoint 6: step 8 comes again
        (7, [0.1, 0.1], [4, 7]),  # a run of fewer steps, which never gets there
        (7, [0.3, np.nan], [7, 7]),
        (12, [0.1, 0.1], [4, 12]),
    ],
)
def test_of_earlier_versions_each_seed_whose_choice_counts_keeps_it(
    alone, tmp_path, step, scores, choice
):
    alone.forget(lambda step: step <= 6)
    alone.forget(lambda step: True)
    keep(alone, step, scores)
    assert found(tmp_path) == choice
    assert sorted(load_weights(tmp_path).arrays) == ["params/w"]


def test_of_earlier_versions_nothing_stays_where_no_choice_counts(alone, tmp_path):
    alone.forget(lambda step: step <= 3)
    assert entries(tmp_path) == []


def test_the_caller_s_parameters_stay_as_they_are(best):
    now = jax.tree.map(np.copy, params(9))
    best.keep(9, np.array([9.0, 0.0]), now, ())
    np.testing.assert_array_equal(now["w"], params(9)["w"])


@pytest.mark.parametrize(("metric", "step"), [("valLoss", 6), ("cross_entropy", 6), ("auc", 2)])
def test_the_lowest_error_is_the_best_and_the_highest_of_all_else(metric, step, tmp_path):
    with tiny_run.no_page(), tiny_run.open_run("tiny", tiny_run.config(tmp_path)) as run:
        for i, value in ((2, 4.0), (4, 1.0), (6, 0.5)):
            run.validated(i, {metric: np.full(2, value)}, metric, params(i))
        assert run.best(LIKE)[1].tolist() == [step, step]


def test_parameters_without_their_running_statistics_are_not_kept(tmp_path):
    with tiny_run.no_page(), tiny_run.open_run("tiny", tiny_run.config(tmp_path)) as run:
        keys, state = tiny_run.start(tiny_run.Config())
        state = state._replace(stats={"mean": np.zeros((2, 3))})
        with pytest.raises(InputError, match="without the running statistics that this net has"):
            run.train(None, None, keys, state, validate=lambda state: {}, best="accuracy")
