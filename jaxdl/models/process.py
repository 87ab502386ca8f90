"""Nets of neural processes: they encode labelled points, and decode the code at other inputs."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from jaxdl.losses import Normal
from jaxdl.models.layers.attention import attend, log_weight
from jaxdl.models.layers.dense import Dense
from jaxdl.types import Array, Key, Model, Params, PyTree, Weight

Rows = Float[Array, "_ _"]


class Points(NamedTuple):
    """Inputs with their targets, and how much each point counts. All are finite, also where the
    weight is 0."""

    x: Float[Array, "n features"]
    y: Float[Array, "n outputs"]
    weight: Float[Array, " n"]

    @property
    def rows(self) -> Float[Array, "n _"]:
        """Input and target side by side."""
        return jnp.concatenate([self.x, self.y], axis=1)

    @property
    def bias(self) -> Float[Array, " n"]:
        """What attention adds to its scores, so that a point of weight 2 is as the point twice."""
        return log_weight(self.weight)


class ProcessNet(NamedTuple):
    """A net in two steps, as pure functions.

    `init(key, points) -> params`. `encode(params, points) -> code`: what it has learnt of a task.
    `decode(params, code, x [m, features]) -> [m, outputs]`, row by row.
    """

    init: Callable[[Key, Points], Params]
    encode: Callable[[Params, Points], PyTree]
    decode: Callable[[Params, PyTree, Rows], Rows]


def process_net(module: nn.Module) -> ProcessNet:
    """The net of a Flax module with the methods `encode(points)` and `decode(code, x)`."""

    def both(module: Any, points: Points) -> Rows:
        return module.decode(module.encode(points), points.x)

    def init(key: Key, points: Points) -> Params:
        return module.init(key, points, method=both)["params"]

    def encode(params: Params, points: Points) -> PyTree:
        return module.apply({"params": params}, points, method="encode")

    def decode(params: Params, code: PyTree, x: Rows) -> Rows:
        return cast(Array, module.apply({"params": params}, code, x, method="decode"))

    return ProcessNet(init, encode, decode)


def as_normal(outputs: Float[Array, "m twice *samples"], least_scale: float) -> Normal:
    """Distributions of which the first half of the outputs says the mean, and the other the scale.

    The scale is `least_scale + (1 - least_scale) * softplus(output)`, and `exp(output)` for 0.

    >>> import jax.numpy as jnp
    >>> as_normal(jnp.array([[3.0, 0.0]]), 0.0)
    Normal(mean=Array([[3.]], dtype=float32), scale=Array([[1.]], dtype=float32))
    """
    mean, raw = jnp.split(outputs, 2, axis=1)
    if not least_scale:
        return Normal(mean, jnp.exp(raw))
    return Normal(mean, least_scale + (1 - least_scale) * jax.nn.softplus(raw))


def normal(net: Model, *, least_scale: float = 0.1) -> Model:
    """A net of `2 k` outputs as one that predicts a `Normal` of k numbers, by `as_normal`.

    >>> import jax, jaxdl, jax.numpy as jnp
    >>> model, x = jaxdl.normal(jaxdl.mlp((8, 2))), jnp.ones((5, 1))
    >>> model.apply(model.init(jax.random.key(0), x), x).scale.shape
    (5, 1)
    """

    def apply(
        params: Params, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Normal:
        return as_normal(net.apply(params, x, key=key, weight=weight), least_scale)

    return Model(net.init, apply)


# ---- the parts of such nets


class Stack(nn.Module):
    """Dense layers with ReLU between them."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Rows) -> Rows:
        for width in self.widths[:-1]:
            x = nn.relu(Dense(width)(x))
        return Dense(self.widths[-1])(x)


class Attention(nn.Module):
    """Attention of rows to others, each with its input added and a norm after it.

    `keys_values` reads the others, and `__call__` answers rows by what it returned.
    """

    width: int
    heads: int

    def setup(self) -> None:
        """The layers."""
        self.query, self.key, self.value = (Dense(self.width, use_bias=False) for _ in "qkv")
        self.join = Dense(self.width)
        self.norms = [nn.LayerNorm(use_fast_variance=False) for _ in "ab"]

    def keys_values(self, keys: Rows, values: Rows) -> tuple[Array, Array]:
        """What rows can look up, `[n, heads, depth]` each."""
        k, v = self.key(keys), self.value(values)
        return k.reshape(len(k), self.heads, -1), v.reshape(len(v), self.heads, -1)

    def __call__(self, rows: Rows, read: tuple[Array, Array], bias: Float[Array, " n"]) -> Rows:
        q, everywhere = self.query(rows), jnp.broadcast_to(bias[None], (len(rows), len(bias)))
        found = q + attend(q.reshape(len(q), self.heads, -1), *read, everywhere)
        found = self.norms[0](found)
        return self.norms[1](found + nn.relu(self.join(found)))


class Reader(nn.Module):
    """A row per point: dense layers, and with `heads` two of them less and self-attention."""

    width: int
    heads: int
    layers: int = 4

    def setup(self) -> None:
        """The layers."""
        self.stack = Stack((self.width,) * (self.layers - 2 * bool(self.heads)))
        self.attention = Attention(self.width, self.heads) if self.heads else None

    def __call__(self, points: Points) -> Rows:
        rows = self.stack(points.rows)
        if self.attention is None:
            return rows
        return self.attention(rows, self.attention.keys_values(rows, rows), points.bias)


class Pooling(nn.Module):
    """A vector of the whole set: dense layers on the mean of the rows of a `Reader`."""

    width: int
    out: int
    heads: int = 0

    @nn.compact
    def __call__(self, points: Points) -> Float[Array, " out"]:
        rows = Reader(self.width, self.heads)(points)
        total = jnp.sum(points.weight)
        mean = points.weight[None] @ rows / jnp.where(total > 0, total, 1)
        return Stack((self.width, self.out))(mean)[0]


class Everywhere(nn.Module):
    """A vector per input, which is the same for all: that of `Pooling`."""

    width: int

    def setup(self) -> None:
        """The layers."""
        self.pooling = Pooling(self.width, self.width)

    def read(self, points: Points) -> Float[Array, " width"]:
        """The vector of the points."""
        return self.pooling(points)

    def __call__(self, code: Float[Array, " width"], x: Rows) -> Rows:
        return jnp.broadcast_to(code[None], (len(x), self.width))


class Lookup(nn.Module):
    """A vector per input: attention to the points, by inputs alone."""

    width: int
    heads: int

    def setup(self) -> None:
        """The layers."""
        self.reader = Reader(self.width, self.heads)
        self.places = Stack((self.width, self.width))
        self.attention = Attention(self.width, self.heads)

    def read(self, points: Points) -> tuple[tuple[Array, Array], Array]:
        """Keys and values of the points, and their bias."""
        read = self.attention.keys_values(self.places(points.x), self.reader(points))
        return read, points.bias

    def __call__(self, code: tuple[tuple[Array, Array], Array], x: Rows) -> Rows:
        return self.attention(self.places(x), *code)
