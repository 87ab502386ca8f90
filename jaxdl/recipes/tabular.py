"""The tabular learner of a run: what it trains on, how it classifies, and how it is judged."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata

from jaxdl.data.sets.tables import tables
from jaxdl.errors import InputError
from jaxdl.grads import of_loss
from jaxdl.losses import cross_entropy
from jaxdl.meta.base import QueryGrad, after_adaptation
from jaxdl.meta.tabular import tabular
from jaxdl.optim.schedules import warmup_cosine
from jaxdl.types import (
    Array,
    Batch,
    Cells,
    Count,
    Episode,
    Key,
    MetaLearner,
    Metrics,
    Params,
    Sampler,
    Scalar,
)

OWN = ("width", "heads", "layers", "group", "features")
"""The fields of a configuration that are arguments of the learner."""
STEP = 64
"""Rows are padded to a multiple of so many, because each number of rows is a program of its own."""


# ---- training


def learner_of_tables(config: Mapping[str, Any]) -> MetaLearner:
    """The learner of a run of tabular, by the fields of its configuration.

    Its `grad` takes several episodes at once, of different shapes; see `prior`.
    """
    own = {name: config[name] for name in OWN}
    learner = tabular(cross_entropy, ways=config["classes"], **own)
    value = after_adaptation(learner.adapt, learner.predict, cross_entropy)

    def of_all(
        params: Params, key: Key, episodes: Sequence[Episode], step: Count | None = None
    ) -> tuple[Scalar, Metrics]:
        found = [value(params, key, episode, step) for episode in episodes]
        losses, metrics = zip(*found, strict=True)
        mean = jax.tree.map(lambda *each: jnp.mean(jnp.stack(each)), *metrics)
        return jnp.mean(jnp.stack(losses)), mean

    return learner._replace(grad=QueryGrad(of_loss(of_all)))


def whole(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `tables` for tables of all sizes."""
    return {
        "shots": (config["least_shots"], config["shots"]),
        "queries": config["queries"],
        "features": (min(2, config["features"]), config["features"]),
        "classes": (2, config["classes"]),
    }


def prior(config: Mapping[str, Any]) -> Sampler:
    """A sampler of one table of each size, as a tuple.

    The first is of all sizes. Each other one has at most a quarter of the columns and classes of
    the one before, and half of its rows. Small tables cost little, because few of their cells are
    padding.
    """
    first = whole(config)

    def of_size(i: int) -> Sampler:
        most = {name: first[name][1] for name in ("features", "classes")}
        shots = max(config["shots"] // 2**i, config["least_shots"])
        sizes = {name: (2, max(2, -(-count // 4**i))) for name, count in most.items()}
        return tables(**(first | {"shots": (config["least_shots"], shots)} | sizes))

    samplers = [tables(**first), *(of_size(i) for i in range(1, config["sizes"]))]

    def draw(key: Key) -> tuple[Episode, ...]:
        keys = jax.random.split(key, len(samplers))
        return tuple(sample(each) for sample, each in zip(samplers, keys, strict=True))

    return draw


def optimiser(config: Mapping[str, Any]) -> optax.GradientTransformation:
    """Adam on gradients of a norm of at most 1, with a warm-up and a cosine."""
    rate = warmup_cosine(config["lr"], config["warmup"], config["decay_steps"] or config["steps"])
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


# ---- prediction


class Orders(NamedTuple):
    """For each member of an ensemble an order of the columns and one of the classes."""

    columns: Int[np.ndarray, "members features"]
    classes: Int[np.ndarray, "members ways"]


def random_orders(
    seed: int, members: int, *, columns: int, classes: int, features: int, ways: int
) -> Orders:
    """Random orders of the first `columns` of `features` and of the first `classes` of `ways`.

    The order of the classes goes on by one place from member to member. So each class stands in
    each place equally often, if the members are a multiple of the classes.

    >>> random_orders(0, 3, columns=1, classes=2, features=2, ways=3).columns.tolist()
    [[0, 1], [0, 1], [0, 1]]
    """
    generator = np.random.default_rng(seed)
    first = generator.permutation(classes)
    found = [
        (
            np.concatenate([generator.permutation(columns), np.arange(columns, features)]),
            np.concatenate([np.roll(first, member), np.arange(classes, ways)]),
        )
        for member in range(members)
    ]
    of_columns, of_classes = (np.stack(each).astype(np.int32) for each in zip(*found, strict=True))
    return Orders(of_columns, of_classes)


def probabilities(learner: MetaLearner) -> Callable[..., Array]:
    """A compiled `(params, support, cells, orders) -> [m, ways]`: the mean over the members."""

    def of_member(
        params: Params, support: Batch, cells: Cells, columns: Array, classes: Array
    ) -> Array:
        place = jnp.zeros(len(classes), "int32").at[classes].set(jnp.arange(len(classes)))
        x, asked = (jax.tree.map(lambda leaf: leaf[:, columns], of) for of in (support.x, cells))
        given = Batch(x, place[support.y], support.weight)
        adapted = learner.adapt(jax.random.key(0), params, given)
        return jax.nn.softmax(learner.predict(adapted, asked), axis=1)[:, place]

    def mean(params: Params, support: Batch, cells: Cells, orders: Orders) -> Array:
        found = jax.lax.map(lambda order: of_member(params, support, cells, *order), orders)
        return jnp.mean(found, axis=0)

    return jax.jit(mean)


def padded(
    x: Float[np.ndarray, "n columns"], features: int
) -> tuple[Cells, Bool[np.ndarray, " rows"]]:
    """Rows as cells, with empty rows up to a multiple of `STEP` and empty columns up to `features`;
    and which of the rows there are.

    >>> cells, here = padded(np.array([[1.0, np.nan]]), 3)
    >>> cells.known.shape, cells.known[0].tolist(), int(here.sum())
    ((64, 3), [True, False, False], 1)

    Raises:
        InputError: if there are more columns.
    """
    rows, columns = x.shape
    if columns > features:
        raise InputError(
            f"the table has {columns} columns, and the net was trained for at most {features}."
            f" Choose {features} of them"
        )
    margin = ((0, -rows % STEP), (0, features - columns))
    small = np.abs(x) < np.finfo(np.float32).max / 1e3  # NaN is not
    values = np.where(small, x, 0).astype(np.float32)
    known = jnp.asarray(np.pad(np.isfinite(x) & small, margin))
    cells = Cells(jnp.asarray(np.pad(values, margin)), known)
    return cells, np.arange(rows + margin[0][1]) < rows


def classify(
    predict: Callable[..., Array],
    params: Params,
    config: Mapping[str, Any],
    x: Float[np.ndarray, "n columns"],
    y: Int[np.ndarray, " n"],
    test_x: Float[np.ndarray, "m columns"],
    *,
    seed: int,
    members: int,
) -> Float[np.ndarray, "m classes"]:
    """Probabilities of the classes 0 to `y.max()`, of which each is in y.

    Args:
        predict: of `probabilities`.
        x: numbers, of which those that are not finite are missing.

    Raises:
        InputError: for more columns or classes than the net was trained for.
    """
    classes, ways = int(y.max()) + 1, config["classes"]
    if classes > ways:
        raise InputError(
            f"there are {classes} classes, and the net was trained for at most {ways}. Train one"
            f" with --classes {classes}"
        )
    sizes = {"features": config["features"], "ways": ways}
    orders = random_orders(seed, members, columns=x.shape[1], classes=classes, **sizes)
    (given, here), (asked, _) = (padded(each, config["features"]) for each in (x, test_x))
    labels = np.pad(np.asarray(y, np.int32), (0, len(here) - len(y)))
    support = Batch(given, labels, jnp.asarray(here, jnp.float32))
    return np.asarray(predict(params, support, asked, orders), np.float64)[: len(test_x), :classes]


# ---- scores


def roc_auc(y: Int[np.ndarray, " n"], scores: Float[np.ndarray, "n classes"]) -> float:
    """The area under the ROC curve of each class against the others, and the mean over classes.

    It is the chance that a row of the class has a higher score than another row; ties count half.

    >>> roc_auc(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6]]))
    0.75

    Raises:
        InputError: if a class has all rows or none.
    """
    found = []
    for c in range(scores.shape[1]):
        own = int(np.sum(y == c))
        others = len(y) - own
        if not own or not others:
            raise InputError(
                f"class {c} has {own} of {len(y)} rows, so it has no ROC curve. Give rows of each"
                " class"
            )
        above = rankdata(scores[:, c])[y == c].sum() - own * (own + 1) / 2
        found.append(above / (own * others))
    return float(np.mean(found))
