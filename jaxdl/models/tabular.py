"""The net of the tabular learner: a token per cell, attention over columns and over rows."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float

from jaxdl.errors import InputError
from jaxdl.models.layers.attention import attend_in_groups, log_weight
from jaxdl.models.layers.dense import Dense
from jaxdl.types import Array, Cells, Key, Params

CLIP = 5.0
"""Standardised numbers pass through `CLIP * tanh(x / CLIP)`, because of outliers."""
LEAST_VOTE = 1e-3
"""Added to the votes of each class, because a logarithm follows."""
Tokens = Float[Array, "n columns width"]


class Labelled(NamedTuple):
    """Rows with their classes, one-hot, and how often each row counts."""

    cells: Cells
    labels: Float[Array, "n classes"]
    weight: Float[Array, " n"]


class Read(NamedTuple):
    """What the net has read of a table."""

    mean: Float[Array, " features"]
    deviation: Float[Array, " features"]
    present: Bool[Array, " features"]
    """Columns with a known cell."""
    seen: Bool[Array, " classes"]
    layers: list[tuple[Array, Array]]
    """Of each layer keys and values `[columns, n, heads, depth]`."""
    keys: Float[Array, "n width"]
    """Of the vote of each row."""
    labels: Float[Array, "n classes"]
    rows: Float[Array, " n"]
    """What attention adds to the scores of each row."""


class TabularNet(NamedTuple):
    """A net in two steps, as pure functions.

    `init(key, table) -> params`. `encode(params, table) -> read`, of labelled rows.
    `decode(params, read, cells) -> logits [m, classes]`, each row apart from the others.
    """

    init: Callable[[Key, Labelled], Params]
    encode: Callable[[Params, Labelled], Read]
    decode: Callable[[Params, Read, Cells], Array]


def moments(
    cells: Cells, weight: Float[Array, " n"]
) -> tuple[Float[Array, " features"], Float[Array, " features"], Float[Array, " features"]]:
    """Mean and standard deviation of the known cells of each column, and how many there are.

    A constant column has the deviation 1, and one without known cells the mean 0.

    >>> cells = Cells(jnp.array([[1.0], [5.0], [7.0]]), jnp.array([[True], [True], [False]]))
    >>> [float(of[0]) for of in moments(cells, jnp.ones(3))]
    [3.0, 2.0, 2.0]
    """
    counts = weight[:, None] * cells.known
    total = jnp.sum(counts, axis=0)
    each = counts / jnp.maximum(total, 1e-9)[None]
    values = jnp.where(counts > 0, cells.values, 0)
    mean = jnp.sum(each * values, axis=0)
    variance = jnp.sum(each * jnp.square(values - mean[None]), axis=0)
    # Rounding leaves a constant column a variance that is not quite 0.
    varies = variance > 1e-12 * jnp.square(mean)
    return mean, jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1)), 1), total


class Layer(nn.Module):
    """Attention over the columns of each row, over the rows of each column, and a dense net.

    Each has a norm before, and its input is added after. In the last layer, the column of labels
    alone goes on, because nothing reads the others.
    """

    width: int
    heads: int
    last: bool

    def setup(self) -> None:
        """The layers."""
        self.norms = [nn.LayerNorm(use_fast_variance=False) for _ in range(3)]
        self.across = [Dense(self.width) for _ in "qkvo"]
        self.along = [Dense(self.width) for _ in "qkvo"]
        self.widen, self.narrow = Dense(2 * self.width), Dense(self.width)

    def split(self, layer: Any, tokens: Tokens) -> Float[Array, "n columns heads depth"]:
        """A projection of the tokens, by heads."""
        return layer(tokens).reshape(*tokens.shape[:2], self.heads, -1)

    def columns(
        self, tokens: Tokens, bias: Float[Array, " columns"]
    ) -> Float[Array, "n asking width"]:
        """Each cell reads the cells of its row."""
        query, key, value, join = self.across
        normed = self.norms[0](tokens)
        asking = slice(-1, None) if self.last else slice(None)
        q, k, v = (
            self.split(query, normed[:, asking]),
            self.split(key, normed),
            self.split(value, normed),
        )
        return tokens[:, asking] + join(attend_in_groups(q, k, v, bias))

    def read(self, tokens: Tokens) -> tuple[Array, Array]:
        """Keys and values of rows, after `columns`."""
        _, key, value, _ = self.along
        normed = self.norms[1](tokens)
        k, v = self.split(key, normed), self.split(value, normed)
        return jnp.swapaxes(k, 0, 1), jnp.swapaxes(v, 0, 1)

    def __call__(self, tokens: Tokens, read: tuple[Array, Array], bias: Array) -> Tokens:
        """Each cell reads the labelled rows of its column."""
        query, _, _, join = self.along
        q = jnp.swapaxes(self.split(query, self.norms[1](tokens)), 0, 1)
        tokens = tokens + join(jnp.swapaxes(attend_in_groups(q, *read, bias), 0, 1))
        return tokens + self.narrow(nn.gelu(self.widen(self.norms[2](tokens))))


class Transformer(nn.Module):
    """A token per group of columns and one for the label of each row, layers, a linear layer."""

    features: int
    classes: int
    width: int
    heads: int
    layers: int
    group: int

    def setup(self) -> None:
        """The layers."""
        # Directions of their own keep the columns apart where a net sums over them.
        count = -(-self.features // self.group) * self.group
        start, shape = nn.initializers.normal(1.0), (count, self.width)
        self.direction, self.place, self.unknown = (
            self.param(name, start, shape) for name in ("direction", "place", "unknown")
        )
        self.asked = self.param("asked", start, (self.width,))
        self.label = Dense(self.width)
        self.blocks = [
            Layer(self.width, self.heads, last=i == self.layers - 1) for i in range(self.layers)
        ]
        self.norm = nn.LayerNorm(use_fast_variance=False)
        self.ask, self.key = Dense(self.width), Dense(self.width)
        self.answer = Dense(self.classes, kernel_init=nn.initializers.zeros)

    def tokens(self, read: Read, cells: Cells, label: Float[Array, "n width"]) -> Tokens:
        """The groups of cells as tokens, and after them the labels."""
        known = cells.known & read.present[None]
        z = (jnp.where(known, cells.values, 0) - read.mean[None]) / read.deviation[None]
        z = jnp.where(known, CLIP * jnp.tanh(z / CLIP), 0)[:, :, None]
        direction, place, unknown = (
            each[None, : z.shape[1]] for each in (self.direction, self.place, self.unknown)
        )
        found = z * direction + place + jnp.where(known[:, :, None], 0, unknown)
        found = found * read.present[None, :, None]
        found = jnp.pad(found, ((0, 0), (0, -z.shape[1] % self.group), (0, 0)))
        found = jnp.sum(found.reshape(len(z), -1, self.group, self.width), axis=2)
        return jnp.concatenate([found, label[:, None]], axis=1)

    def bias(self, read: Read) -> Float[Array, " tokens"]:
        """What attention adds to the scores of groups of columns and of the label."""
        present = jnp.pad(read.present, (0, -len(read.present) % self.group))
        present = jnp.any(present.reshape(-1, self.group), axis=1)
        return jnp.where(jnp.concatenate([present, jnp.ones(1, bool)]), 0, -jnp.inf)

    def encode(self, table: Labelled) -> Read:
        """What other rows can look up."""
        weight = table.weight
        mean, deviation, known = moments(table.cells, weight)
        seen = jnp.any(table.labels * weight[:, None] > 0, axis=0)
        label, keys = self.label(table.labels), jnp.zeros((len(weight), self.width))
        bias = log_weight(weight)
        code = Read(mean, deviation, known > 0, seen, [], keys, table.labels, bias)
        tokens, bias = self.tokens(code, table.cells, label), self.bias(code)
        for block in self.blocks:
            tokens = block.columns(tokens, bias)
            code.layers.append(block.read(tokens))
            tokens = block(tokens, code.layers[-1], code.rows)
        return code._replace(keys=self.key(self.norm(tokens[:, -1])))

    def decode(self, read: Read, cells: Cells) -> Float[Array, "m classes"]:
        """Logits of each row. Those of classes that were not seen are very low."""
        label = jnp.broadcast_to(self.asked[None], (len(cells.values), self.width))
        tokens, bias = self.tokens(read, cells, label), self.bias(read)
        for block, of_layer in zip(self.blocks, read.layers, strict=True):
            tokens = block(block.columns(tokens, bias), of_layer, read.rows)
        normed = self.norm(tokens[:, -1])
        votes = attend_in_groups(
            self.ask(normed)[None, :, None],
            read.keys[None, :, None],
            read.labels[None, :, None],
            read.rows,
        )[0]
        # The votes of labelled rows start as the classes' shares, and do not depend on the order
        # of the classes. A net that had the linear layer alone would learn both first.
        logits = jnp.log(votes + LEAST_VOTE) + self.answer(normed)
        return jnp.where(read.seen[None], logits, -1e9)


def tabular_transformer(
    classes: int = 10,
    *,
    features: int = 20,
    width: int = 64,
    heads: int = 2,
    layers: int = 3,
    group: int = 4,
) -> TabularNet:
    """A transformer with attention over columns and over rows (TabPFN v2, Hollmann et al. 2025).

    A token is a group of cells of a row, or the label of a row. In each layer, a token reads those
    of its row, and then those of the labelled rows in its column. So a row that is asked sees no
    other such row. There are no positions of rows: their order has no meaning, and a row of weight
    2 is as the row twice. Numbers are standardised by the labelled rows.

    Two things differ from the paper: the columns have directions of their own, which are learnt and
    not drawn anew for each table, and the logits begin with the votes of the labelled rows.

    Args:
        classes: the most classes.
        features: the most columns. A table may have fewer.
        width: of tokens, a multiple of `heads`. The dense nets are twice as wide.
        group: columns per token.

    Raises:
        InputError: for a number below 1, or a width that does not divide among the heads.

    >>> import jax
    >>> net = tabular_transformer(3, features=4, width=8, layers=1, group=2)
    >>> cells = Cells(jnp.ones((5, 4)), jnp.ones((5, 4), bool))
    >>> table = Labelled(cells, jnp.eye(3)[jnp.arange(5) % 3], jnp.ones(5))
    >>> params = jax.eval_shape(net.init, jax.random.key(0), table)
    >>> read = jax.eval_shape(net.encode, params, table)
    >>> jax.eval_shape(net.decode, params, read, cells).shape
    (5, 3)
    """
    if min(width, heads, layers, features, group) < 1 or classes < 2 or width % heads:
        raise InputError(
            f"a tabular transformer cannot have {width=}, {heads=}, {layers=}, {group=},"
            f" {features=} and {classes=}. Give at least 1 of each, 2 classes, and a width that is"
            " a multiple of the heads"
        )
    module = Transformer(features, classes, width, heads, layers, group)

    def both(module: Transformer, table: Labelled) -> Array:
        return module.decode(module.encode(table), table.cells)

    def init(key: Key, table: Labelled) -> Params:
        return module.init(key, table, method=both)["params"]

    def encode(params: Params, table: Labelled) -> Read:
        return cast(Read, module.apply({"params": params}, table, method="encode"))

    def decode(params: Params, read: Read, cells: Cells) -> Array:
        return cast(Array, module.apply({"params": params}, read, cells, method="decode"))

    return TabularNet(init, encode, decode)
