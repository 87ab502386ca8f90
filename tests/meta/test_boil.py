"""BOIL is MAML whose inner optimiser leaves the head as it is."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.meta import estimators
from jaxdl.meta.boil import boil
from jaxdl.meta.head import Headed, with_head
from jaxdl.meta.maml import maml
from jaxdl.types import Batch, Model
from tests.meta.test_anil import CURVED, SGD, WAYS, assert_same, masked


@pytest.mark.parametrize(
    "estimator", [estimators.exact, estimators.first_order], ids=lambda e: e.__name__
)
def test_it_is_maml_with_a_frozen_head(estimator, key):
    options = {"steps": 3, "estimator": estimator}
    ours = boil(CURVED, cross_entropy, ways=WAYS, tx=SGD, **options)
    peer = maml(with_head(CURVED, WAYS), cross_entropy, tx=masked("learns", "rests"), **options)
    _, grads = assert_same(ours, peer, key)
    assert np.abs(grads.kernel).max() > 1e-3  # it is trained by the outer loss


def test_the_depth_of_adaptation_is_the_one_asked_for(key):
    ours = boil(CURVED, cross_entropy, ways=WAYS, tx=SGD, steps=1)
    peer = maml(with_head(CURVED, WAYS), cross_entropy, tx=masked("learns", "rests"), steps=1)
    assert_same(ours, peer, key, steps=4)


def test_a_step_by_hand(key):
    """Features w x with head v: a step moves w by -rate times the mean of 2 (v w x - y) v x."""
    scale = Model(lambda key, x: jnp.ones(()), lambda w, x, *, key=None, weight=None: w * x)
    learner = boil(scale, mean_squared_error, ways=1, tx=optax.sgd(0.1), steps=1)
    params = Headed(jnp.float32(1.0), jnp.asarray([[3.0]]), jnp.zeros(1))
    support = Batch(jnp.asarray([[1.0], [2.0]]), jnp.asarray([[2.0], [2.0]]))
    adapted = learner.adapt(key, params, support)
    # 2 (3 - 2) 3 = 6 and 2 (6 - 2) 6 = 48, of which the mean is 27.
    np.testing.assert_allclose(adapted.features, 1 - 0.1 * 27, rtol=1e-6)
    np.testing.assert_array_equal(adapted.kernel, [[3.0]])
