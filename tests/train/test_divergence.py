"""Which metrics are losses, and where the first bad one is."""

import jax
import numpy as np
import pytest

from jaxdl.train.divergence import can_go_on, first_bad_loss, is_loss
from jaxdl.types import TrainState


@pytest.mark.parametrize("name", ["loss", "loss/0", "value_loss", "loss2", "Loss", "inner loss"])
def test_these_are_losses(name):
    assert is_loss(name)


@pytest.mark.parametrize("name", ["accuracy", "accuracy/0", "lossless", "return", "td_mean", "kl"])
def test_these_are_none(name):
    assert not is_loss(name)


def test_the_first_bad_loss_is_found_in_whichever_seed_and_name():
    good = np.ones((3, 5), np.float32)
    late, early, nothing = good.copy(), good.copy(), np.full((3, 5), np.nan)
    late[0, 4], early[1, 2] = np.nan, -np.inf
    assert first_bad_loss({"accuracy": nothing, "loss": good}) is None
    assert first_bad_loss({"accuracy": nothing, "loss": late}) == (4, "loss of seed 1 of 3")
    both = {"accuracy": nothing, "loss": late, "loss/1": early}
    assert first_bad_loss(both) == (2, "loss/1 of seed 2 of 3")
    assert first_bad_loss({"loss": late[:1]}) == (4, "loss")
    assert first_bad_loss({}) is None


def test_a_state_with_infinity_goes_on_but_not_in_its_parameters():
    ones, infinite, nothing = (np.full(2, value) for value in (1.0, np.inf, np.nan))
    assert can_go_on(TrainState(0, {"w": ones}, {"best": infinite}))
    assert not can_go_on(TrainState(0, {"w": infinite}, {"best": ones}))
    assert not can_go_on(TrainState(0, {"w": ones}, {"best": nothing}))
    assert can_go_on({"memory": np.zeros(2, np.int32)})
    assert can_go_on({"key": jax.random.key(0), "w": ones})
    assert not can_go_on({"key": jax.random.key(0), "w": nothing})
