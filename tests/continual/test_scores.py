"""The scores of a matrix that was worked out by hand."""

import numpy as np
import pytest

from jaxdl.continual import scores
from jaxdl.continual.scores import learning, retained, transfer
from jaxdl.errors import InputError

MATRIX = np.array([[0.8, 0.1, 0.2], [0.7, 0.9, 0.3], [0.4, 0.6, 0.7]])


def test_scores_are_those_of_their_definitions():
    np.testing.assert_allclose(retained(MATRIX), (0.4 + 0.6 + 0.7) / 3)
    np.testing.assert_allclose(learning(MATRIX), (0.8 + 0.9 + 0.7) / 3)
    np.testing.assert_allclose(transfer(MATRIX), (-0.4 - 0.3) / 3)


ADDED = np.array([0, 0.1])


def test_seeds_come_first():
    both = np.stack([MATRIX, MATRIX + 0.1])
    np.testing.assert_allclose(retained(both), retained(MATRIX) + ADDED)
    np.testing.assert_allclose(learning(both), learning(MATRIX) + ADDED)
    np.testing.assert_allclose(transfer(both), np.full(2, transfer(MATRIX)), atol=1e-12)


@pytest.mark.parametrize("score", [scores.learning, scores.retained, scores.transfer])
@pytest.mark.parametrize("wrong", [MATRIX[:2], MATRIX[:, :2], MATRIX[0], np.zeros((0, 0))])
def test_a_matrix_that_is_not_square_is_refused(score, wrong):
    """Of a stream that was stopped early the diagonal is shorter, and the last row has the rest."""
    with pytest.raises(InputError, match=r"accuracy \[.*\] .*\. Give \[..., tasks, tasks\]"):
        score(wrong)
