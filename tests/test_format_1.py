"""What a revision stored before the leaves of checkpoints had numbers is still read.

tests/fixtures/format_1.py says what it is and how it was made.
"""

import json
import shutil
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxdl.errors import RunError
from jaxdl.files import leaves
from jaxdl.runs.checkpoint import Checkpoints
from jaxdl.runs.run import open_run
from jaxdl.runs.stored import load_best, load_last
from jaxdl.runs.weights import export_weights, load_weights, started, weights_digest
from tests import tiny_run
from tests.fixtures import format_1
from tests.runs.test_checkpoint import same_bits

ARCHIVE = Path(__file__).parent / "fixtures" / "format_1.tar.xz"
# The parameters of tiny/finished, as result.json says; another CPU may round otherwise.
LAST = [[1.1361487, 1.5094918, -0.28565636], [-0.0503294, -0.33477765, -0.00158413]]


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(folder, filter="data")
    return folder


@pytest.fixture
def folder(before, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(before, tmp_path / "before")


def config(folder, name):
    return tiny_run.config(folder, name=name, **format_1.RUN)


def test_a_checkpoint_gives_the_bits_and_notes_that_it_was_given(before):
    zeros = jax.tree.map(np.zeros_like, format_1.tree(1))
    with Checkpoints(before / "odd") as checkpoints:
        found, notes = checkpoints.restore_with_notes(zeros)
        assert same_bits(found, format_1.tree(1))
        assert notes == format_1.NOTES
        assert same_bits(checkpoints.restore(zeros, 3), format_1.tree(0))
        wanted = leaves.described(format_1.tree(1))
        arrays = checkpoints.arrays()
    assert [leaves.name(leaf.path) for leaf, _ in arrays] == [leaves.name(x.path) for x in wanted]
    assert same_bits([array for _, array in arrays], jax.tree.leaves(format_1.tree(1)))


def test_a_checkpoint_of_another_tree_or_a_damaged_one_is_refused(folder):
    tree = format_1.tree(1)
    half = tree["half"].astype(np.float32)
    with Checkpoints(folder / "odd") as checkpoints:
        for changed in ({**tree, "half": half}, {**tree, "more": half}, {"half": tree["half"]}):
            with pytest.raises(RunError, match="is of another net or optimiser"):
                checkpoints.restore(changed)
    record = folder / "odd" / "4" / "record" / "metadata"
    record.write_text(record.read_text().replace("float32[2, 3]", "float32[3, 2]"))
    says = r"cannot be read .*is float32\[2, 3\] in it"
    with Checkpoints(folder / "odd") as checkpoints, pytest.raises(RunError, match=says):
        checkpoints.arrays()


def test_a_checkpoint_is_followed_by_one_of_today(folder):
    with Checkpoints(folder / "odd") as checkpoints:
        checkpoints.save(5, format_1.tree(2))
        checkpoints.wait()
        assert checkpoints.steps() == [4, 5]
        zeros = jax.tree.map(np.zeros_like, format_1.tree(1))
        assert same_bits(checkpoints.restore(zeros, 4), format_1.tree(1))
        assert same_bits(checkpoints.restore(zeros, 5), format_1.tree(2))


def test_a_finished_run_reprints_its_result(folder):
    recorded = json.loads((folder / "tiny" / "finished" / "result.json").read_text())
    with open_run("tiny", config(folder, "finished")) as run:
        assert run.result() == recorded
        _, state = tiny_run.start(config(folder, "finished"))
        last = run.restore(state)
    assert np.asarray(last.params["w"]).tolist() == recorded["last"]["w"]
    np.testing.assert_allclose(recorded["last"]["w"], LAST, rtol=1e-6)


def test_a_stopped_run_goes_on_to_the_result_of_one_that_never_stopped(folder):
    last = tiny_run.train(config(folder, "stopped"), at_log_point=format_1.keep_best)
    np.testing.assert_allclose(last.params["w"], LAST, rtol=1e-6)
    assert int(last.step) == 6
    files = [(folder / "tiny" / name / "metrics.jsonl") for name in ("stopped", "finished")]
    stopped, finished = (list(map(json.loads, file.read_text().splitlines())) for file in files)
    assert [line["step"] for line in stopped] == [2, 4, 6]
    np.testing.assert_allclose(stopped[-1]["loss"], finished[-1]["loss"], rtol=1e-6)
    kept = [
        load_best(folder / "tiny" / x, state_of(folder).params) for x in ("stopped", "finished")
    ]
    assert kept[0][1].tolist() == kept[1][1].tolist() == [2, 4]
    assert same_bits(kept[0][0], kept[1][0])


def state_of(folder):
    return tiny_run.start(config(folder, "finished"))[1]


def test_what_a_run_stored_is_loaded(before):
    run = before / "tiny" / "finished"
    last = load_last(run, state_of(before))
    np.testing.assert_allclose(last.params["w"], LAST, rtol=1e-6)
    best, steps = load_best(run, state_of(before).params)
    assert steps.tolist() == [2, 4]
    np.testing.assert_array_equal(load_weights(run).arrays["params/w"], best["w"])


def test_weights_start_a_training_and_have_their_digest(before, tmp_path):
    digests = json.loads((before / "digests.json").read_text())
    assert digests == {"net.npz": "581b1f63", "tiny/finished": "60085de6"}
    for name, digest in digests.items():
        assert weights_digest(before / name) == digest
    export_weights(before / "tiny" / "finished", tmp_path / "net.npz", seed=1)
    assert weights_digest(tmp_path / "net.npz") == digests["net.npz"]
    best = load_best(before / "tiny" / "finished", state_of(before).params)[0]["w"]
    found = started(state_of(before), before / "tiny" / "finished").params["w"]
    np.testing.assert_array_equal(found, best)
    found = started(state_of(before), before / "net.npz").params["w"]
    np.testing.assert_array_equal(found, [best[1], best[1]])
