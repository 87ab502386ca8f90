"""The mean by hand, with weights, and an example of weight 0 that is not finite."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.losses import mean_squared_error
from jaxdl.meta.support_mean import support_mean
from jaxdl.types import Batch, Episode


def test_it_is_the_mean_of_the_targets_that_count(key):
    learner = support_mean(mean_squared_error)
    y = jnp.array([[1.0, 2.0], [3.0, 6.0], [jnp.nan, 5.0]])
    found = learner.adapt(key, (), Batch(jnp.zeros((2, 1)), y[:2]))
    np.testing.assert_allclose(found, [2.0, 4.0])
    support = Batch(jnp.zeros((3, 1)), y, jnp.array([1.0, 3.0, 0.0]))
    found = learner.adapt(key, (), support)
    np.testing.assert_allclose(found, [2.5, 5.0])
    query = Batch(jnp.zeros((4, 1)), jnp.array([[2.5, 6.0]] * 4))
    np.testing.assert_allclose(learner.predict(found, query.x), [[2.5, 5.0]] * 4)
    _, metrics = jax.jit(learner.grad)(key, jnp.int32(0), (), Episode(support, query))
    np.testing.assert_allclose(
        metrics["loss"], mean_squared_error(jnp.array([[2.5, 5.0]] * 4), query.y)[0]
    )
