"""Which metrics are losses, and where the first bad one is."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.grads import over_tasks
from jaxdl.losses import mean_squared_error
from jaxdl.meta.maml import maml
from jaxdl.models.mlp import mlp
from jaxdl.train.divergence import can_go_on, first_bad_loss, is_loss, suspect
from jaxdl.train.loop import loop
from jaxdl.train.steps import init_states, make_step
from jaxdl.train.streams import task_stream
from jaxdl.types import Batch, Episode, TrainState


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


CALM = [0.5, 0.4, 0.6]


@pytest.mark.parametrize(
    ("losses", "done", "names_it"),
    [
        ([[*CALM, np.nan]], 0, True),
        ([[np.nan, np.nan]], 1, True),  # the first chunk has one step
        ([[0.5, 40.0, np.nan]], 0, False),
        ([[*CALM, np.inf]], 0, False),
        ([[*CALM, 0.5], [*CALM, np.nan]], 0, True),
        ([CALM], 0, True),  # all losses are finite, and the state is not
    ],
)
def test_the_inner_optimiser_is_named_where_a_calm_loss_becomes_nan(losses, done, names_it):
    said = suspect({"loss": np.array(losses), "accuracy": np.full((1, 2), np.nan)}, done)
    assert ("inner-optimisers of the documentation" in said) == names_it
    assert bool(said) == names_it


def test_the_data_are_named_where_no_gradient_came_before():
    assert "labels outside [0, classes)" in suspect({"loss": np.array([[np.nan, np.nan]])}, 0)


def test_a_nan_meta_gradient_is_seen_in_the_losses_of_a_training():
    """MAML with an unsafe Adam, on support sets that are fitted: the first losses are finite."""
    sample = lambda key: Episode(*[Batch(jnp.zeros((2, 1)), jnp.zeros((2, 1)))] * 2)  # noqa: E731
    with pytest.warns(UserWarning, match="as of a dead unit"):
        learner = maml(mlp((4, 1)), mean_squared_error, tx=optax.adam(0.1), steps=2)
    keys, tx = jax.random.split(jax.random.key(0), 1), optax.sgd(0.1)
    state = init_states(lambda key: learner.init(key, jnp.zeros((2, 1))), keys, tx)
    step, stream = make_step(over_tasks(learner.grad), tx), task_stream(sample, 2)
    said = [
        suspect(metrics, i - metrics["loss"].shape[1])
        for i, state, metrics in loop(step, stream, keys, state, steps=3)
        if first_bad_loss(metrics) or not can_go_on(state)
    ]
    assert "inner-optimisers of the documentation" in said[0]


def test_a_loss_of_several_numbers_is_looked_at_too():
    several = np.ones((1, 3, 4), np.float32)
    several[0, 2, 1] = np.nan
    assert first_bad_loss({"task_loss": several}) == (2, "task_loss")
    assert "its gradient is the suspect" in suspect({"task_loss": several}, done=0)
