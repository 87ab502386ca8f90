"""The tabular learner of a run, and the synthetic tables that it trains on."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl.data.sets.tables import tables
from jaxdl.grads import of_loss
from jaxdl.losses import cross_entropy
from jaxdl.meta.base import QueryGrad, after_adaptation
from jaxdl.meta.tabular import tabular
from jaxdl.types import Count, Episode, Key, MetaLearner, Metrics, Params, Sampler, Scalar

OWN = ("width", "heads", "layers", "group", "features")
"""The fields of a configuration that are arguments of the learner."""


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
    the one before, and half of its rows. Small tables cost little, because none of their cells is padding.
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
