"""A transformer that reads labelled examples as a set, and queries apart from each other."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from jaxdl.errors import InputError
from jaxdl.models.context import Context
from jaxdl.models.layers.attention import attend, attend_apart, log_weight
from jaxdl.models.layers.dense import Dense
from jaxdl.models.linen import pure
from jaxdl.types import Array, Model

Rows = Float[Array, "_ _"]


class Layer(nn.Module):
    """Attention and a dense net, both with a norm before and the input added after."""

    heads: int

    @nn.compact
    def __call__(self, examples: Rows, queries: Rows, bias: Array) -> tuple[Rows, Rows]:
        width = examples.shape[1]
        norm = nn.LayerNorm(use_fast_variance=False)
        project = [Dense(width) for _ in "qkv"]

        def heads(rows: Rows) -> list[Array]:
            rows = norm(rows)
            return [layer(rows).reshape(len(rows), self.heads, -1) for layer in project]

        q, k, v = heads(examples)
        everywhere = jnp.broadcast_to(bias[None], (len(examples), len(examples)))
        asks, own_k, own_v = heads(queries)
        join, norm_2 = Dense(width), nn.LayerNorm(use_fast_variance=False)
        widen, narrow = Dense(2 * width), Dense(width)

        def rest(rows: Rows, read: Rows) -> Rows:
            rows = rows + join(read)
            return rows + narrow(nn.gelu(widen(norm_2(rows))))

        return (
            rest(examples, attend(q, k, v, everywhere)),
            rest(queries, attend_apart(asks, k, v, bias, own_k, own_v)),
        )


class Transformer(nn.Module):
    """Layers on linearly embedded tokens, then a linear layer."""

    width: int
    heads: int
    layers: int
    out: int

    @nn.compact
    def __call__(self, x: Context) -> Rows:
        # The logarithm of its weight lets an example count as so many equal ones.
        bias = log_weight(x.weight)
        embed = Dense(self.width)
        rows = embed(x.examples), embed(x.queries)
        for _ in range(self.layers):
            rows = Layer(self.heads)(*rows, bias)
        return Dense(self.out)(nn.LayerNorm(use_fast_variance=False)(rows[1]))


def context_transformer(out: int, *, width: int = 96, heads: int = 4, layers: int = 3) -> Model:
    """A transformer from a `Context` to answers `[m, out]` (Müller et al. 2022, arXiv:2112.10510).

    Examples see all examples, and a query sees all examples and itself. There are no positions, so
    the order of examples has no meaning. An example of weight 2 is as the example twice.

    Args:
        width: of tokens, a multiple of `heads`. The dense nets are twice as wide.

    Raises:
        InputError: for a number below 1, or a width that does not divide among the heads.

    >>> import jax, jax.numpy as jnp
    >>> context = Context(jnp.ones((5, 3)), jnp.ones(5), jnp.zeros((2, 3)))
    >>> net = context_transformer(out=7, width=8, heads=2, layers=1)
    >>> params = jax.eval_shape(net.init, jax.random.key(0), context)
    >>> jax.eval_shape(net.apply, params, context).shape
    (2, 7)
    """
    if min(width, heads, layers, out) < 1 or width % heads:
        raise InputError(
            f"a transformer cannot have {width=}, {heads=}, {layers=} and {out=}. Give at least 1"
            " of each, and a width that is a multiple of the heads"
        )
    return pure(Transformer(width, heads, layers, out))
