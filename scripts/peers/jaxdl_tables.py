"""Tables in context by jaxdl itself: its learner, its prior, and compiled training loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxdl_side import Training, main, training
from works import Tables

from jaxdl import parallel
from jaxdl.data.sets.tables import tables
from jaxdl.grads import over_tasks
from jaxdl.losses import cross_entropy
from jaxdl.meta.tabular import tabular
from jaxdl.train.steps import make_step
from jaxdl.train.streams import task_stream
from jaxdl.types import Array, Batch, Episode, Key, MetaLearner, Sampler


def of_memory(work: Tables) -> Sampler:
    """Random tables of a set in memory."""
    rng = np.random.default_rng(0)
    rows = work.shots + work.queries
    x = jnp.asarray(rng.normal(size=(work.count, rows, work.columns)), jnp.float32)
    y = jnp.asarray(rng.integers(0, work.classes, (work.count, rows)), jnp.int32)

    def draw(x: Array, y: Array, key: Key) -> Episode:
        table = jax.random.randint(key, (), 0, work.count)
        first, last = slice(None, work.shots), slice(work.shots, None)
        return Episode(
            Batch(x[table, first], y[table, first]), Batch(x[table, last], y[table, last])
        )

    return Partial(draw, x, y)


def learner(work: Tables) -> MetaLearner:
    """The net of nanoTabPFN's size, with a token per cell."""
    return tabular(
        cross_entropy,
        ways=work.classes,
        features=work.columns,
        width=work.width,
        heads=work.heads,
        layers=work.layers,
        group=1,
    )


def train(work: Tables) -> Training:
    parallel.split_cores(work.batch)
    cpu = jax.default_backend() == "cpu"
    devices = parallel.count_devices() if cpu else 1
    axis = parallel.axis_name(devices)
    sizes = {"features": work.columns, "classes": work.classes}
    drawn = tables(shots=work.shots, queries=work.queries, **sizes)
    net = learner(work)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(work.lr))
    # As experiments/tabular.py does: one table at a time stays in the cache of a CPU.
    grad = over_tasks(net.grad, chunk=1 if cpu else None, axis_name=axis)
    return training(
        make_step(grad, tx),
        task_stream(drawn if work.drawn else of_memory(work), work.batch),
        lambda key: net.init(key, jnp.zeros((2, work.columns))),
        tx,
        devices=devices,
    )


if __name__ == "__main__":
    main(train)
