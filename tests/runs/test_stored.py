"""What is read from a run's directory without opening the run, and what is refused."""

import numpy as np
import pytest

from jaxdl.errors import InputError, RunError
from jaxdl.runs.checkpoint import Checkpoints
from jaxdl.runs.stored import load_best, load_last

LIKE = {"w": np.zeros((1, 2))}


def test_the_newest_state_is_loaded(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        for step in (2, 10, 9):
            checkpoints.save(step, {"w": np.full((1, 2), step, np.float64)})
            checkpoints.wait()
            if step == 10:
                break
    np.testing.assert_array_equal(load_last(str(tmp_path), LIKE)["w"], [[10, 10]])


def test_a_run_without_a_checkpoint_has_nothing_to_load(tmp_path):
    with pytest.raises(InputError, match=r"has no checkpoint yet\. Train first"):
        load_last(tmp_path, LIKE)


@pytest.mark.parametrize("like", [{}, {"w": np.float32(1)}])
def test_best_parameters_need_an_axis_of_seeds(like, tmp_path):
    with pytest.raises(InputError, match=r"`like=` has no axis of seeds\. Give parameters such as"):
        load_best(str(tmp_path), like)


def test_no_best_parameters(tmp_path):
    with pytest.raises(RunError, match=r"there is no checkpoint in .*best"):
        load_best(tmp_path, LIKE)
