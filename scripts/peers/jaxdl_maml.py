"""MAML by jaxdl itself: its own learner, samplers, and compiled training loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxdl_side import Training, main, training
from works import CLASSES, EXAMPLES, HIDDEN, LR, SIDE, Maml

from jaxdl import parallel
from jaxdl.data.episodes import few_shot
from jaxdl.data.sets.sinusoid import sinusoid
from jaxdl.grads import over_tasks
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.meta.maml import maml
from jaxdl.models.conv4 import conv4_omniglot
from jaxdl.models.mlp import mlp
from jaxdl.train.steps import make_step
from jaxdl.train.streams import task_stream
from jaxdl.types import Sampler


def episodes(work: Maml) -> Sampler:
    """Episodes as the peers draw them: random images in memory, a random turn for each class."""
    if not work.conv:
        return sinusoid(shots=work.shots, queries=work.queries)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (CLASSES * EXAMPLES, SIDE, SIDE, 1), dtype=np.uint8)
    return few_shot(
        images,
        np.arange(CLASSES).repeat(EXAMPLES),
        ways=work.ways,
        shots=work.shots,
        queries=work.queries,
        rotations="augment",
    )


def train(work: Maml) -> Training:
    if work.conv:
        parallel.split_cores(work.tasks)
    else:
        parallel.one_thread()
    cpu = jax.default_backend() == "cpu"
    devices = parallel.count_devices() if work.conv and cpu else 1
    axis = parallel.axis_name(devices)
    model = conv4_omniglot(work.ways) if work.conv else mlp((*HIDDEN, 1))
    loss = cross_entropy if work.conv else mean_squared_error
    learner = maml(model, loss, tx=optax.sgd(work.inner_lr), steps=work.inner_steps)
    # One conv task at a time stays in the cache of a CPU.
    chunk = 1 if work.conv and cpu else None
    tx = optax.adam(LR)
    x = jnp.zeros((work.ways * work.shots, *((SIDE, SIDE, 1) if work.conv else (1,))))
    return training(
        make_step(over_tasks(learner.grad, chunk=chunk, axis_name=axis), tx),
        task_stream(episodes(work), work.tasks),
        lambda key: learner.init(key, x),
        tx,
        devices=devices,
    )


if __name__ == "__main__":
    main(train)
