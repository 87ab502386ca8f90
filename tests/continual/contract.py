"""What every continual learner promises. A new method adds a row to `ROWS`."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdl.continual.agem import agem
from jaxdl.continual.base import Continual
from jaxdl.continual.er import er
from jaxdl.continual.ewc import ewc
from jaxdl.continual.gem import gem
from jaxdl.continual.independent import independent
from jaxdl.continual.mer import mer, mer_one_batch
from jaxdl.continual.online import online
from jaxdl.losses import cross_entropy
from jaxdl.models.mlp import mlp
from jaxdl.types import Example

TASKS, EXAMPLES, INPUTS, CLASSES = 3, 8, 5, 2
ROOM = 6
NET = mlp((CLASSES,))  # linear, for what methods promise is no matter of the net
TX = optax.sgd(0.1, momentum=0.5)  # with a state, which must be carried along


class Row(NamedTuple):
    """A method. `draws`: whether its key matters; `told`: whether it must be told the task;
    `counts`: whether it is made for so many tasks."""

    name: str
    make: Callable[[], Continual]
    draws: bool = False
    told: bool = False
    counts: bool = False

    def __hash__(self):
        return hash(self.name)


RESERVOIR = {"capacity": ROOM, "replay_batch_size": 4}
RINGS = {"tasks": TASKS, "memory_per_task": ROOM}
ROWS = [
    Row("online", lambda: online(NET, cross_entropy, TX)),
    Row(
        "independent",
        lambda: independent(NET, cross_entropy, TX, tasks=TASKS),
        told=True,
        counts=True,
    ),
    Row("ewc", lambda: ewc(NET, cross_entropy, TX, strength=0.1, samples=4)),
    Row("er", lambda: er(NET, cross_entropy, TX, **RESERVOIR), draws=True),
    Row(
        "agem",
        lambda: agem(NET, cross_entropy, TX, **RINGS, replay_batch_size=3),
        draws=True,
        counts=True,
    ),
    Row("gem", lambda: gem(NET, cross_entropy, TX, **RINGS, margin=0.5), counts=True),
    Row(
        "mer",
        lambda: mer(NET, cross_entropy, lr=0.1, beta=0.5, gamma=0.9, batches=2, **RESERVOIR),
        draws=True,
    ),
    Row(
        "mer-one-batch",
        lambda: mer_one_batch(NET, cross_entropy, lr=0.1, gamma=0.5, **RESERVOIR),
        draws=True,
    ),
]


def drawn(key, step, *, examples=EXAMPLES):
    """Task t asks which of two inputs, the t-th and the next, is larger."""
    task = step // examples % TASKS
    x = jax.random.normal(jax.random.fold_in(key, step), (INPUTS,))
    return Example(x, (x[task] > x[task + 1]).astype(jnp.int32), task)


LIKE = Example(jnp.zeros(INPUTS), jnp.int32(0), jnp.int32(0))

# Compiling takes longer than all that these tests compute.
QUICK = {"xla_backend_optimization_level": "0"}
