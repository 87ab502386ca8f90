"""Flags of the learners that train on labelled examples; see `recipes/learners.py`."""

from typing import Any

import optax

from jaxdl.meta import baseline_pp as baseline_pp_
from jaxdl.meta import finetune as finetune_
from jaxdl.meta import linear_probe as linear_probe_
from jaxdl.meta import rfs as rfs_
from jaxdl.optim.damped import damped_sgd
from jaxdl.runs.config import Natural, Positive
from jaxdl.types import (
    Embedding,
    LossFn,
    TransferLearner,
)


def finetune(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    classes: int,
    inner_steps: Natural = 10,
    inner_lr: Positive = 0.1,
) -> TransferLearner:
    """Trains on all training classes, then fine-tunes with a new head (arXiv:1904.04232).

    Args:
        inner_steps: Gradient steps in a task.
        inner_lr: Learning rate of these steps.
    """
    options: dict[str, Any] = {"ways": ways, "classes": classes, "steps": inner_steps}
    return finetune_.finetune(features, loss, tx=optax.sgd(inner_lr), **options)


def rfs(
    features: Embedding, loss: LossFn, *, ways: int, classes: int, l2: Positive = 1.0
) -> TransferLearner:
    """Trains on all training classes, then logistic regression in a task (arXiv:2003.11539).

    Args:
        l2: Strength of the penalty on the weights of the logistic regression: 1 / C of
            scikit-learn.
    """
    return rfs_.rfs(features, loss, ways=ways, classes=classes, l2=l2)


def linear_probe(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    classes: int,
    inner_steps: Natural = 100,
    inner_lr: Positive = 0.01,
) -> TransferLearner:
    """Trains on all training classes, then a linear head on frozen features (arXiv:1904.04232).

    The head is trained by PyTorch's SGD with momentum 0.9, dampening 0.9 and weight decay 0.001, as
    in the paper's code.

    Args:
        inner_steps: Gradient steps in a task, each on the whole support set.
        inner_lr: Learning rate of these steps.
    """
    options: dict[str, Any] = {"ways": ways, "classes": classes, "steps": inner_steps}
    return linear_probe_.linear_probe(features, loss, tx=_sgd_of_chen(inner_lr), **options)


def baseline_pp(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    classes: int,
    inner_steps: Natural = 100,
    inner_lr: Positive = 0.01,
    scale: Positive | None = None,
) -> TransferLearner:
    """Trains on all training classes, then a cosine head on frozen features (arXiv:1904.04232).

    The head is trained as that of `linear_probe`.

    Args:
        inner_steps: Gradient steps in a task, each on the whole support set.
        inner_lr: Learning rate of these steps. With 0.01 the new head hardly leaves its random
            start in 100 steps; the paper's code takes 100 steps per 4 support examples.
        scale: Factor of the cosines. None: 2 for up to 200 classes and 10 for more, as in the
            paper's code.
    """
    options: dict[str, Any] = {"ways": ways, "classes": classes, "steps": inner_steps}
    return baseline_pp_.baseline_pp(
        features, loss, tx=_sgd_of_chen(inner_lr), scale=scale, **options
    )


def _sgd_of_chen(lr: float) -> optax.GradientTransformation:
    return damped_sgd(lr, momentum=0.9, dampening=0.9, weight_decay=0.001)
