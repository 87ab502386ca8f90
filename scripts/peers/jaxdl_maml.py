"""MAML by jaxdl itself: its own learner, samplers, and compiled training loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxdl_side import Training, main, training
from works import EXAMPLES, HIDDEN, LR, Maml

from jaxdl import parallel
from jaxdl.data.episodes import few_shot
from jaxdl.data.sets.sinusoid import sinusoid
from jaxdl.grads import over_tasks
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.meta.estimators import Estimator
from jaxdl.meta.maml import maml
from jaxdl.meta.memory import auto
from jaxdl.models.conv4 import conv4_omniglot, conv4_pooled
from jaxdl.models.mlp import mlp
from jaxdl.models.resnet12 import resnet12_batch
from jaxdl.train.steps import make_step
from jaxdl.train.streams import task_stream
from jaxdl.types import GradFn, Model, Sampler


def episodes(work: Maml) -> Sampler:
    """Episodes as the peers draw them: random images in memory, a random turn for each class."""
    if not work.images:
        return sinusoid(shots=work.shots, queries=work.queries)
    rng = np.random.default_rng(0)
    count, shape = work.images.count, (work.images.count * EXAMPLES, *work.shape)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    return few_shot(
        images,
        np.arange(count).repeat(EXAMPLES),
        ways=work.ways,
        shots=work.shots,
        queries=work.queries,
        rotations="augment" if work.images.rotated else "none",
    )


def net(work: Maml) -> Model:
    """The net of a work."""
    match work.net:
        case "conv4":
            return conv4_omniglot(work.ways, work.filters[0])
        case "conv4-pooled":
            return conv4_pooled(work.ways, work.filters[0])
        case "resnet12":
            return resnet12_batch(work.ways, widths=work.filters)
    return mlp((*HIDDEN, 1))


def train(work: Maml) -> Training:
    share_cores(work)
    return training_of(work, optax.sgd(work.inner_lr), work.inner_steps)


def share_cores(work: Maml) -> None:
    """Before JAX starts: a device per core for images, one thread for sine waves."""
    if work.images:
        parallel.split_cores(work.tasks)
    else:
        parallel.one_thread()


def training_of(
    work: Maml,
    inner: optax.GradientTransformation,
    steps: int,
    *,
    estimator: Estimator = auto,
    grad: GradFn | None = None,
) -> Training:
    """The training of a work; `grad` in place of MAML's gradient of a task."""
    cpu = jax.default_backend() == "cpu"
    devices = parallel.count_devices() if work.images and cpu else 1
    axis = parallel.axis_name(devices)
    loss = cross_entropy if work.images else mean_squared_error
    learner = maml(net(work), loss, tx=inner, steps=steps, estimator=estimator)
    # One conv task at a time stays in the cache of a CPU.
    chunk = 1 if work.images and cpu else None
    tx = optax.adam(LR)
    x = jnp.zeros((work.ways * work.shots, *work.shape))
    return training(
        make_step(over_tasks(grad or learner.grad, chunk=chunk, axis_name=axis), tx),
        task_stream(episodes(work), work.tasks),
        lambda key: learner.init(key, x),
        tx,
        devices=devices,
    )


if __name__ == "__main__":
    main(train)
