"""What every combination of task gradients promises. A new method adds a row to `ROWS`."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdl.multitask.equal import equal
from jaxdl.multitask.mgda import mgda
from jaxdl.multitask.pcgrad import pcgrad

KEY = jax.random.key(7)


class Row(NamedTuple):
    """A method and how to build it for so many tasks.

    `scale(tasks, norm)`: what it makes of identical tasks at the start, as a multiple of their
    gradient, which has that norm. `symmetric`: whether the order of tasks does not matter, as it
    does to what visits them in a random order or draws their weights.
    """

    name: str
    make: Callable[[int], optax.GradientTransformationExtraArgs]
    scale: Callable[[int, float], float] = lambda tasks, norm: 1.0
    symmetric: bool = True

    def __hash__(self):
        return hash(self.name)


ROWS = [
    Row("equal", lambda tasks: equal()),
    Row("mgda", lambda tasks: mgda()),
    Row("pcgrad", lambda tasks: pcgrad(), lambda tasks, norm: tasks, symmetric=False),
]


def gradients(tasks, seed=0, dtype=jnp.float32):
    """Gradients of so many tasks, of lengths that differ and with conflicts among them."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.normal(size=(tasks, 1)))
    rows = {"a": rng.normal(size=(tasks, 6)) * lengths, "b": rng.normal(size=(tasks, 5)) * lengths}
    return {
        "a": jnp.asarray(rows["a"].reshape(tasks, 3, 2), dtype),
        "b": jnp.asarray(rows["b"], dtype),
    }


def losses(tasks, seed=0):
    return jnp.asarray(np.random.default_rng(seed + 100).uniform(0.5, 2.0, tasks), jnp.float32)


def flat(tree):
    """`[11]` of a tree like one task's gradient, `[tasks, 11]` of one like all of them."""
    lead = tree["b"].shape[:-1]
    return np.concatenate([np.reshape(tree["a"], (*lead, 6)), tree["b"]], axis=-1)


@cache
def compiled(row, tasks):
    """`(gradients, state, losses, key) -> (update, state)`, compiled once for all tests."""
    method = row.make(tasks)
    return jax.jit(lambda g, state, v, key: method.update(g, state, losses=v, key=key))


def once(row, stacked, values, key=KEY):
    """The first combination of a row's method."""
    tasks = stacked["b"].shape[0]
    state = row.make(tasks).init(None)
    return compiled(row, tasks)(stacked, state, values, key)[0]
