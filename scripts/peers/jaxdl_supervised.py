"""Supervised learning by jaxdl itself: epochs drawn and normalised inside its compiled loop."""

import jax.numpy as jnp
import numpy as np
import optax
from jaxdl_side import Training, main, training
from works import CELLS, MOMENTUM, TARGETS, WIDE, Supervised

from jaxdl.data.epochs import epochs
from jaxdl.losses import cross_entropy
from jaxdl.models.lenet import lenet
from jaxdl.models.linen import without_stats
from jaxdl.models.mlp import mlp
from jaxdl.models.resnet import resnet18
from jaxdl.train.steps import supervised_step
from jaxdl.types import Array, Key, StatefulModel


def net(work: Supervised) -> StatefulModel:
    """The net of a work."""
    match work.net:
        case "mlp":
            return without_stats(mlp((WIDE, TARGETS)))
        case "lenet":
            return without_stats(lenet(TARGETS))
        case "lstm":
            from jaxdl.models.recurrent import lstm

            return without_stats(lstm(CELLS, TARGETS))
    return resnet18(TARGETS, stem=work.net.removeprefix("resnet18-"))


def train(work: Supervised) -> Training:
    rng = np.random.default_rng(0)
    shape = (work.images.count, *work.images.shape)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    labels = rng.integers(0, TARGETS, work.images.count)

    def normalised(key: Key, image: Array) -> Array:
        del key  # no augmentation
        return (image.astype(jnp.float32) / 255 - work.images.mean) / work.images.deviation

    model, tx = net(work), optax.sgd(work.lr, momentum=MOMENTUM)
    x = jnp.zeros((1, *work.images.shape))
    return training(
        supervised_step(model, cross_entropy, tx),
        epochs(images, labels, batch=work.batch, transform=normalised),
        lambda key: model.init(key, x),
        tx,
        with_stats=True,
    )


if __name__ == "__main__":
    main(train)
