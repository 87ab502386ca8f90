"""The net of TNP-D: a transformer in which all attend to the points alone."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from jaxdl.errors import InputError
from jaxdl.models.layers.attention import attend
from jaxdl.models.layers.dense import Dense
from jaxdl.models.process import Points, ProcessNet, Rows, Stack, process_net
from jaxdl.types import Array


class Code(NamedTuple):
    """Keys and values `[n, heads, depth]` of each layer, the bias of the points, and the zeros that
    stand for the target in the token of an input."""

    read: list[tuple[Array, Array]]
    bias: Float[Array, " n"]
    label: Float[Array, "one outputs"]


class Layer(nn.Module):
    """Attention and a dense net, each with its input added and a norm after it."""

    width: int
    heads: int

    def setup(self) -> None:
        """The layers."""
        self.query, self.key, self.value, self.join = (Dense(self.width) for _ in range(4))
        self.rest = Stack((2 * self.width, self.width))
        self.norms = [nn.LayerNorm(use_fast_variance=False) for _ in "ab"]

    def read(self, rows: Rows) -> tuple[Array, Array]:
        """Keys and values of points."""
        k, v = self.key(rows), self.value(rows)
        return k.reshape(len(k), self.heads, -1), v.reshape(len(v), self.heads, -1)

    def __call__(self, rows: Rows, read: tuple[Array, Array], bias: Float[Array, " n"]) -> Rows:
        q = self.query(rows).reshape(len(rows), self.heads, -1)
        everywhere = jnp.broadcast_to(bias[None], (len(rows), len(bias)))
        rows = self.norms[0](rows + self.join(attend(q, *read, everywhere)))
        return self.norms[1](rows + self.rest(rows))


class Transformer(nn.Module):
    """Dense layers on each token, layers of attention, and two dense layers."""

    out: int
    width: int
    heads: int
    layers: int

    def setup(self) -> None:
        """The layers."""
        self.embed = Stack((self.width,) * 4)
        self.blocks = [Layer(self.width, self.heads) for _ in range(self.layers)]
        self.answer = Stack((2 * self.width, self.out))

    def encode(self, points: Points) -> Code:
        """What inputs can look up, of each layer."""
        rows, read = self.embed(points.rows), []
        for block in self.blocks:
            read.append(block.read(rows))
            rows = block(rows, read[-1], points.bias)
        return Code(read, points.bias, jnp.zeros_like(points.y[:1]))

    def decode(self, code: Code, x: Rows) -> Rows:
        """An answer per input."""
        label = jnp.broadcast_to(code.label, (len(x), code.label.shape[1]))
        rows = self.embed(jnp.concatenate([x, label], axis=1))
        for block, of_points in zip(self.blocks, code.read, strict=True):
            rows = block(rows, of_points, code.bias)
        return self.answer(rows)


def process_transformer(
    out: int, *, width: int = 64, heads: int = 4, layers: int = 6
) -> ProcessNet:
    """The transformer of TNP-D, to answers `[m, out]` (Nguyen, Grover 2022, arXiv:2207.04179).

    Points and inputs attend to the points, and an input neither to itself nor to another. There are
    no positions, so points have no order. A point of weight 2 is as the point twice.

    Args:
        width: of tokens, a multiple of `heads`. The dense nets are twice as wide.

    Raises:
        InputError: for a number below 1, or a width that does not divide among the heads.

    >>> import jax, jax.numpy as jnp
    >>> from jaxdl.models.process import Points
    >>> net = process_transformer(2, width=4, layers=1)
    >>> points = Points(*jnp.ones((2, 5, 1)), jnp.ones(5))
    >>> params = jax.jit(net.init)(jax.random.key(0), points)
    >>> net.decode(params, net.encode(params, points), jnp.zeros((3, 1))).shape
    (3, 2)
    """
    if min(width, heads, layers, out) < 1 or width % heads:
        raise InputError(
            f"a transformer cannot have {width=}, {heads=}, {layers=} and {out=}. Give at least 1"
            " of each, and a width that is a multiple of the heads"
        )
    return process_net(Transformer(out, width, heads, layers))
