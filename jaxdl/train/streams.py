"""Keys and batches of a training: pure functions of the run's key and the step."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxdl.errors import InputError
from jaxdl.types import WHOLE, Array, Key, PyTree, Sampler, Shard, Stream


def task_stream(sample: Sampler, tasks: int) -> Stream:
    """A stream of `tasks` draws of `sample` per step, stacked, and divided among devices.

    On each device, the leaves get a leading axis `[tasks / devices]`.

    >>> import jaxdl, jax
    >>> stream = jaxdl.task_stream(jax.random.uniform, tasks=4)  # or jaxdl.few_shot(...), say
    >>> of_second_device = lambda key: stream(key, 0, jaxdl.Shard(index=1, parts=2))
    >>> key = jax.random.key(0)
    >>> tasks, half = jax.jit(stream)(key, 0), jax.jit(of_second_device)(key)
    >>> tasks.shape, half.tolist() == tasks.tolist()[2:]
    ((4,), True)

    Raises:
        InputError: at the first draw, if `tasks` is not a multiple of the number of devices.
    """

    def draw(sample: Sampler, key: Key, step: Array, shard: Shard = WHOLE) -> PyTree:
        batch_key, _ = step_keys(key, step)
        return jax.vmap(sample)(shard.of(jax.random.split(batch_key, tasks)))

    # A Partial carries the sampler's data set into the compiled program as an argument.
    return Partial(draw, sample if isinstance(sample, Partial) else Partial(sample))


def step_keys(key: Key, step: Array) -> tuple[Key, Key]:
    """The two keys of a step of the run with key `key`: for drawing the batch, and for learning."""
    batch_key, step_key = jax.random.split(jax.random.fold_in(key, step))
    return batch_key, step_key


def run_keys(seed: int, seeds: int) -> Key:
    """The run keys `[seeds]` of the seeds `seed` to `seed + seeds - 1`.

    >>> import jaxdl, jax
    >>> keys = jaxdl.run_keys(seed=7, seeds=3)
    >>> keys.shape, bool(keys[2] == jax.random.key(9))
    ((3,), True)

    Raises:
        InputError: if `seeds` is below 1, or `seed` does not fit into int32.
    """
    if seeds < 1:
        raise InputError(f"`seeds={seeds}`: choose a whole number of at least 1")
    known: Any = seed  # but where it is traced
    if not isinstance(known, jax.core.Tracer) and not -(2**31) <= known < 2**31:
        raise InputError(f"`seed={seed}`: choose a seed below 2**31, and not below -2**31")
    return jax.vmap(jax.random.key)(seed + jnp.arange(seeds))
