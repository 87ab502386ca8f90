"""SNAIL's net: causal convolutions and causal attention over examples, then over a query."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float

from jaxdl.errors import InputError
from jaxdl.models.context import Context
from jaxdl.models.layers.attention import attend, attend_apart
from jaxdl.models.layers.dense import Dense
from jaxdl.models.linen import pure
from jaxdl.types import Array, Model

Rows = Float[Array, "_ _"]
ATTENTION = ((0.5, 0.25), (2, 1), (4, 2))
"""Widths of keys and values of the three attention blocks, by that of the convolutions. For 128
filters they are the paper's for images: 64 and 32, 256 and 128, 512 and 256."""


class DenseBlock(nn.Module):
    """A gated causal convolution of kernel 2; its output stands beside its input."""

    rate: int
    filters: int

    @nn.compact
    def __call__(self, examples: Rows, queries: Rows) -> tuple[Rows, Rows]:
        n, width = examples.shape
        earlier = jnp.concatenate([jnp.zeros((self.rate, width), examples.dtype), examples])
        convolve = Dense(2 * self.filters)

        def block(before: Rows, now: Rows) -> Rows:
            value, gate = jnp.split(convolve(jnp.concatenate([before, now], axis=1)), 2, axis=1)
            return jnp.concatenate([now, jnp.tanh(value) * jax.nn.sigmoid(gate)], axis=1)

        # A query stands at place n, after the last example.
        before = jnp.broadcast_to(earlier[n], queries.shape)
        return block(earlier[:n], examples), block(before, queries)


class AttentionBlock(nn.Module):
    """Causal attention with one head; what it reads stands beside its input."""

    keys: int
    values: int

    @nn.compact
    def __call__(
        self, examples: Rows, queries: Rows, counts: Bool[Array, " n"]
    ) -> tuple[Rows, Rows]:
        asks, keys, values = Dense(self.keys), Dense(self.keys), Dense(self.values)
        q, k, v = (layer(examples)[:, None] for layer in (asks, keys, values))
        hidden = jnp.where(counts, 0, -jnp.inf)
        past = jnp.tril(jnp.ones((len(examples), len(examples)), bool))
        read = attend(q, k, v, jnp.where(past, hidden[None], -jnp.inf))
        own = [layer(queries)[:, None] for layer in (asks, keys, values)]
        answers = attend_apart(own[0], k, v, hidden, own[1], own[2])
        return (
            jnp.concatenate([examples, read], axis=1),
            jnp.concatenate([queries, answers], axis=1),
        )


class Snail(nn.Module):
    """Attention, convolutions, attention, convolutions, attention, then a linear layer."""

    length: int
    filters: int
    out: int

    @nn.compact
    def __call__(self, x: Context) -> Rows:
        # What does not count goes to the front, where it is zero, as before the first example.
        order = jnp.argsort(x.counts, stable=True)
        counts = x.counts[order]

        def masked(both: tuple[Rows, Rows]) -> tuple[Rows, Rows]:
            return jnp.where(counts[:, None], both[0], 0), both[1]

        rows = masked((x.examples[order], x.queries))
        for place, widths in enumerate(ATTENTION):
            keys, values = (max(1, int(width * self.filters)) for width in widths)
            rows = masked(AttentionBlock(keys, values)(*rows, counts))
            for level in range(math.ceil(math.log2(self.length)) if place < 2 else 0):
                rows = masked(DenseBlock(2**level, self.filters)(*rows))
        return Dense(self.out)(rows[1])


def context_snail(length: int, out: int, *, filters: int = 128) -> Model:
    """SNAIL's net from a `Context` to answers `[m, out]` (Mishra et al. 2018, arXiv:1707.03141).

    Each query is the last step of a sequence of its own, after all examples. The examples do not
    see it, so they are computed once for all queries.

    Args:
        length: steps that the convolutions see, of which there are `2 * ceil(log2(length))`.
        filters: of each convolution.

    Raises:
        InputError: for a length below 2, or fewer than one filter.

    >>> import jax, jax.numpy as jnp
    >>> context = Context(jnp.ones((5, 3)), jnp.ones(5), jnp.zeros((2, 3)))
    >>> net = context_snail(length=6, out=7, filters=4)
    >>> params = jax.eval_shape(net.init, jax.random.key(0), context)
    >>> jax.eval_shape(net.apply, params, context).shape
    (2, 7)
    """
    if length < 2 or filters < 1 or out < 1:
        raise InputError(
            f"SNAIL cannot have {length=}, {filters=} and {out=}. Give a length of at least 2, and"
            " at least 1 of the others"
        )
    return pure(Snail(length, filters, out))
