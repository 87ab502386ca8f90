"""Predictions and metrics over a whole data set: every example once, in batches, in one program.

Nets run in the mode "eval". There a prediction depends on its own input alone, so batch size and
order do not matter. One exception: a `Model` whose batch norm uses the current batch
(`without_stats`). It normalises each batch by itself.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.data.subsets import Subset, Table, in_turn, size
from jaxdl.errors import InputError
from jaxdl.grads import leading_axis
from jaxdl.losses import measured
from jaxdl.parallel import divided
from jaxdl.types import Array, LossFn, Metrics, Params, PyTree, StatefulModel

Predict = Callable[[Params, PyTree, Any], Any]
"""`(params, stats, examples [n, ...]) -> predictions [n, ...]`."""


def predict_all(
    model: StatefulModel, transform: Callable[[Any], Any], *, batch: int = 500
) -> Predict:
    """Predictions for a whole set, about `batch` examples at a time.

    >>> import jaxdl, numpy as np
    >>> model = jaxdl.without_stats(jaxdl.mlp((1,)))
    >>> params = {"Dense_0": {"kernel": np.ones((4, 1)), "bias": np.zeros(1)}}  # adds up pixels
    >>> predict = jaxdl.predict_all(model, lambda image: image / 255, batch=4)
    >>> images = np.full((10, 2, 2, 1), 51, np.uint8)
    >>> y = predict(params, {}, images)
    >>> y.shape, f"{y.tolist()[9][0]:.3f}"  # 4 * 51 / 255
    ((10, 1), '0.800')

    Args:
        model: applied in the mode "eval".
        transform: turns one stored example `[...]` into the net's input. It gets no key, so it
            cannot augment.
        batch: the largest batch, at least 1. The batches have equal sizes, as far as possible.

    Returns:
        `(params, stats, examples [n, ...]) -> [n, ...]`, compiled. If you evaluate the same
        examples again and again, put them on the device first (`jnp.asarray`).
    """

    @jax.jit
    def run(params: Params, stats: PyTree, examples: PyTree) -> PyTree:
        count = leading_axis(examples)
        if count == 0:
            raise InputError("there are no examples to predict. Give at least one")
        batches = -(-count // batch)
        size = -(-count // batches)

        def of_batch(rows: Array) -> PyTree:
            at = jnp.minimum(rows, count - 1)
            x = jax.vmap(transform)(jax.tree.map(lambda leaf: leaf[at], examples))
            weight = None if full else (rows < count).astype(float)
            return model.apply(params, stats, x, weight=weight, mode="eval")[0]

        # Copies of the last example, with weight 0, fill the last batch. They are cut off below.
        full = batches * size == count
        rows = jnp.arange(batches * size).reshape(batches, size)
        found = lax.map(of_batch, rows)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], found)

    return run


def measure(
    model: StatefulModel,
    loss: LossFn,
    transform: Callable[[Any], Any],
    *,
    batch: int = 500,
    devices: int = 1,
) -> Callable[[Params, PyTree, Any, Array], Metrics]:
    """The metrics of `loss` over a whole set, for each seed; other arguments as `predict_all`.

    Args:
        devices: devices of this process that share the seeds. The metrics are the same for each
            number.

    Returns:
        `(params, stats, examples [n, ...], labels [n, ...]) -> metrics`, each `[seeds]`. The leaves
        of `params` and `stats` have a leading axis `[seeds]`. The seeds of a device run one after
        another.
    """
    predict = predict_all(model, transform, batch=batch)

    def run(examples: PyTree, labels: Array, seeds: tuple[Params, PyTree]) -> Metrics:
        def of_seed(seed: tuple[Params, PyTree]) -> Metrics:
            return measured(loss, predict(*seed, examples), labels)[1]

        return lax.map(of_seed, seeds)

    shared = divided(run, devices)
    return lambda params, stats, examples, labels: shared(examples, labels, (params, stats))


def measure_subsets(
    model: StatefulModel,
    loss: LossFn,
    transform: Callable[[Any], Any],
    *,
    most: int = 2000,
    devices: int = 1,
) -> Callable[[Params, PyTree, Table, Subset], Metrics]:
    """The metrics of `loss` over the subset of a table that each run was trained on.

    Other arguments as `predict_all`.

    Args:
        most: from a subset of more examples, so many of them count.
        devices: as `measure`; they share the runs.

    Returns:
        `(params, stats, table, subsets) -> metrics`, each `[runs]`. The leaves of `params`, `stats`
        and `subsets` have a leading axis `[runs]`.
    """
    predict = predict_all(model, transform)

    def run(table: Table, runs: tuple[Params, PyTree, Subset]) -> Metrics:
        def of_run(each: tuple[Params, PyTree, Subset]) -> Metrics:
            params, stats, subset = each
            turns = jnp.arange(most)
            rows, labels = in_turn(table, subset, subset.key, turns)
            # A smaller subset repeats; the repeats have weight 0.
            first = (turns < size(table, subset.shots)).astype(jnp.float32)
            return measured(loss, predict(params, stats, table.x[rows]), labels, first)[1]

        return lax.map(of_run, runs)

    shared = divided(run, devices)
    return lambda params, stats, table, subsets: shared(table, (params, stats, subsets))
