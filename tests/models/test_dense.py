import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxdl.models.dense import NARROW, product


@pytest.mark.parametrize("out", [1, 10, NARROW, NARROW + 1])
def test_a_dense_layer_computes_what_flax_computes(out, key):
    x = jax.random.normal(key, (3, 7, 20))
    ours, theirs = nn.Dense(out, dot_general=product), nn.Dense(out)
    params = theirs.init(key, x)

    def loss(layer):
        return lambda params, x: jnp.sum(jnp.sin(layer.apply(params, x)))

    for f in (loss, lambda layer: jax.grad(loss(layer), (0, 1))):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
            f(ours)(params, x),
            f(theirs)(params, x),
        )


def test_tasks_may_have_weights_of_their_own(key):
    x = jax.random.normal(key, (4, 5, 20))
    w = jax.random.normal(key, (4, 20, 10))
    numbers = (((1,), (0,)), ((), ()))
    y = jax.vmap(lambda x, w: product(x, w, numbers))(x, w)
    np.testing.assert_allclose(y, jnp.einsum("tni,tio->tno", x, w), rtol=1e-5, atol=1e-5)
