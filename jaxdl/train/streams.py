"""Keys and batches of a training, each a pure function of the run's key and the step."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxdl.types import WHOLE, Key, Sampler, Shard, Stream


def task_stream(sample: Sampler, tasks: int) -> Stream:
    """`tasks` draws of `sample` a step, stacked along a leading axis and shared among devices."""

    def draw(sample: Sampler, key: Key, step: Any, shard: Shard = WHOLE) -> Any:
        batch_key, _ = step_keys(key, step)
        return jax.vmap(sample)(shard.of(jax.random.split(batch_key, tasks)))

    # A Partial carries the sampler's data set into the compiled program as an argument.
    return Partial(draw, sample if isinstance(sample, Partial) else Partial(sample))


def step_keys(key: Key, step: Any) -> tuple[Key, Key]:
    """The keys of one step of the run with this key: for its batch, and for what learns from it."""
    batch_key, step_key = jax.random.split(jax.random.fold_in(key, step))
    return batch_key, step_key


def run_keys(seed: int, seeds: int) -> Key:
    """The run keys `[seeds]` of so many seeds, from `seed` upward."""
    return jax.vmap(jax.random.key)(seed + jnp.arange(seeds))
