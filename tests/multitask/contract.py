"""What every combination of task gradients promises. A new method adds a row to `ROWS`."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdl.multitask.aligned import aligned
from jaxdl.multitask.cagrad import cagrad
from jaxdl.multitask.combine import TaskMethod
from jaxdl.multitask.dwa import dwa
from jaxdl.multitask.equal import equal
from jaxdl.multitask.famo import famo
from jaxdl.multitask.gradnorm import gradnorm
from jaxdl.multitask.gradvac import gradvac
from jaxdl.multitask.imtl import imtl, imtl_g, imtl_l
from jaxdl.multitask.mgda import mgda
from jaxdl.multitask.nash import nash
from jaxdl.multitask.pcgrad import pcgrad
from jaxdl.multitask.rlw import rlw
from jaxdl.multitask.uncertainty import uncertainty
from jaxdl.multitask.upgrad import upgrad

KEY = jax.random.key(7)


class Row(NamedTuple):
    """A method and how to build it for so many tasks.

    `scale(tasks, norm)`: what it makes of identical tasks at the start, as a multiple of their
    gradient, which has that norm. `symmetric`: whether the order of tasks does not matter, as it
    does to what visits them in a random order or draws their weights.
    """

    name: str
    make: Callable[[int], TaskMethod]
    scale: Callable[[int, float], float] = lambda tasks, norm: 1.0
    symmetric: bool = True

    def __hash__(self):
        return hash(self.name)


SOON = ("famo", "gradvac", "mgda")
"""What learns its weights, what is random and remembers, what solves: these are tested in full each
time. Programs of the others take minutes to compile, and are tested in full by `scripts/test slow`.
"""


def as_many(tasks, norm):
    """The scale of what adds up where others average."""
    return tasks


def half_more(tasks, norm):
    return 1.5


def root(tasks, norm):
    return np.sqrt(tasks) / norm


LEARN = optax.sgd(0.1)
ROWS = [
    Row("equal", lambda tasks: equal()),
    Row("uncertainty", lambda tasks: uncertainty(tasks=tasks, tx=LEARN), as_many),
    Row("dwa", lambda tasks: dwa(tasks=tasks, every=1), as_many),
    Row("rlw", lambda tasks: rlw(), symmetric=False),
    Row("famo", lambda tasks: famo(tasks=tasks, tx=optax.adam(0.1))),
    Row("gradnorm", lambda tasks: gradnorm(tasks=tasks, tx=LEARN, alpha=1.5), as_many),
    Row("imtl-l", lambda tasks: imtl_l(tasks=tasks, tx=LEARN), as_many),
    Row("imtl-g", lambda tasks: imtl_g()),
    Row("imtl", lambda tasks: imtl(tasks=tasks, tx=LEARN)),
    Row("mgda", lambda tasks: mgda()),
    Row("pcgrad", lambda tasks: pcgrad(), as_many, symmetric=False),
    Row("gradvac", lambda tasks: gradvac(tasks=tasks, beta=0.5), as_many, symmetric=False),
    Row("cagrad", lambda tasks: cagrad(c=0.5), half_more),
    Row("nash", lambda tasks: nash(), root),
    Row("aligned", lambda tasks: aligned()),
    Row("upgrad", lambda tasks: upgrad()),
]


TASKS = 4

# In the slow group too: compiling takes longer than all that these tests compute.
QUICK = {"xla_backend_optimization_level": "0"}


def gradients(tasks=TASKS, seed=0, dtype=jnp.float32):
    """Gradients of so many tasks, of lengths that differ and with conflicts among them."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(tasks, 11)) * np.exp(rng.normal(size=(tasks, 1)))
    return tree(rows, dtype)


def tree(rows, dtype=jnp.float32):
    """Rows of 11 numbers as gradients of parameters of two shapes."""
    a, b = rows[..., :6], rows[..., 6:]
    return {"a": jnp.asarray(a.reshape(*a.shape[:-1], 3, 2), dtype), "b": jnp.asarray(b, dtype)}


def flat(gradients):
    """The rows of 11 numbers of which `tree` made gradients."""
    a, b = np.asarray(gradients["a"]), np.asarray(gradients["b"])
    return np.concatenate([a.reshape(*b.shape[:-1], 6), b], axis=-1)


def losses(tasks=TASKS, seed=0):
    return jnp.asarray(np.random.default_rng(seed + 100).uniform(0.5, 2.0, tasks), jnp.float32)


ORDER = np.array([2, 0, 3, 1])
_ROWS, _LOSSES = flat(gradients()), np.asarray(losses())
CASES = {
    "usual": (_ROWS, _LOSSES),
    "other": (flat(gradients(seed=1)), np.asarray(losses(seed=1))),
    "permuted": (_ROWS[ORDER], _LOSSES[ORDER]),
    "identical": (np.repeat(_ROWS[:1], TASKS, axis=0), np.full(TASKS, 0.8)),
    "none": (0 * _ROWS, _LOSSES),
}
HARD = {"one vanishes": (1, 0, 1, 1), "opposite": (1, -1, 0, 0), "pairs": (1, -1, 1, -1)}
HARD["uneven"] = (1e-6, 1, 1e6, 1)
for _name, _factors in HARD.items():
    _by = np.array(_factors)[:, None]
    CASES[f"{_name}, else identical"] = (_by * _ROWS[:1], _LOSSES)
    CASES[_name] = (_by * _ROWS, _LOSSES)


class Made(NamedTuple):
    """Updates and states of a method after a step, `[cases, ...]` in the order of `CASES`."""

    updates: dict
    states: Any

    def of(self, case):
        index = list(CASES).index(case)
        return jax.tree.map(lambda leaf: leaf[index], (self.updates, self.states))


@cache
def made(row):
    """Three steps of a method on all cases side by side, by one compiled program."""
    method = row.make(TASKS)
    stacked = tree(np.stack([rows for rows, _ in CASES.values()]))
    values = jnp.asarray(np.stack([values for _, values in CASES.values()]), jnp.float32)
    step = jax.jit(
        jax.vmap(lambda g, state, v: method.update(g, state, losses=v, key=KEY)),
        compiler_options=QUICK,
    )
    repeat = lambda leaf: jnp.repeat(jnp.asarray(leaf)[None], len(CASES), axis=0)  # noqa: E731
    states, found = jax.tree.map(repeat, method.init(None)), []
    for _ in range(3):
        found.append(Made(*step(stacked, states, values)))
        states, values = found[-1].states, values[:, ::-1]
    return found


def problems(tasks, count=20, parameters=6, seed=0):
    """`[count, tasks, parameters]`: gradients of lengths that differ, most sets with conflicts."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.normal(size=(count, tasks, 1)))
    shared = rng.normal(size=(count, 1, parameters))
    return lengths * (rng.normal(size=(count, tasks, parameters)) + 0.5 * shared)


def solve(method, stacked, losses=None, state=None):
    """The combination of each of many sets of gradients, in float64, by one compiled call."""
    stacked = np.asarray(stacked, np.float64)

    def one(gradients, key):
        start = method.init(None) if state is None else state
        return method.update(gradients, start, losses=losses, key=key)[0]

    with jax.enable_x64(True):
        keys = jax.random.split(KEY, len(stacked))
        return np.asarray(
            jax.jit(jax.vmap(one), compiler_options=QUICK)(jnp.asarray(stacked), keys)
        )
