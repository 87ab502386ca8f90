"""The learners of the command line: `--learner NAME`, or `--learner path/to/mine.py:my_learner`.

A learner is a function `(model: Model, loss: LossFn, *, ways: int, **own) -> MetaLearner`. Each of
its `own` keyword arguments has an annotation and a default, and is a flag. Annotate the first
argument as `Embedding` to get a net whose outputs are features; `Model` has `ways` outputs.

A function that returns a `TransferLearner` trains on labelled examples of all training classes. It
may take `classes: int`, their number.
"""

from collections.abc import Callable
from typing import Any, Literal

import optax

from jaxdl.meta import anil as anil_
from jaxdl.meta import baseline_pp as baseline_pp_
from jaxdl.meta import boil as boil_
from jaxdl.meta import cavia as cavia_
from jaxdl.meta import finetune as finetune_
from jaxdl.meta import linear_probe as linear_probe_
from jaxdl.meta import maml as maml_
from jaxdl.meta import meta_curvature as meta_curvature_
from jaxdl.meta import meta_sgd as meta_sgd_
from jaxdl.meta import relationnet as relationnet_
from jaxdl.meta import reptile as reptile_
from jaxdl.meta import rfs as rfs_
from jaxdl.meta.inner import ESTIMATORS
from jaxdl.meta.matchingnet import matchingnet
from jaxdl.meta.metaoptnet import metaoptnet
from jaxdl.meta.protonet import protonet
from jaxdl.meta.r2d2 import r2d2
from jaxdl.optim.damped import damped_sgd
from jaxdl.runs.config import Count, Natural, Positive
from jaxdl.types import (
    Embedding,
    LossFn,
    MetaLearner,
    Model,
    TransferLearner,
)

AnyLearner = MetaLearner | TransferLearner
Make = Callable[..., AnyLearner]
KNOWN = ("ways", "classes")
"""Keyword arguments that the experiment gives, and no flag."""


def maml(
    model: Model,
    loss: LossFn,
    *,
    ways: int,
    inner_steps: Natural = 1,
    inner_lr: Positive = 0.4,
    inner_loss: Literal["mean", "sum-over-classes"] = "mean",
    estimator: Literal["exact", "first-order", "rematerialised", "mixed-mode"] = "exact",
) -> MetaLearner:
    """MAML with inner gradient descent, as in the paper (arXiv:1703.03400).

    Args:
        inner_steps: Inner gradient steps in a training task.
        inner_lr: Learning rate of the inner steps.
        inner_loss: Inner loss: the mean, as the paper prints it, or the sum over classes, as its
            code has it.
        estimator: Estimator of the meta-gradient.
    """
    scale = ways if inner_loss == "sum-over-classes" else 1
    tx = optax.sgd(scale * inner_lr)
    return maml_.maml(model, loss, tx=tx, steps=inner_steps, estimator=ESTIMATORS[estimator])


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


def maml_of_curves(
    model: Model,
    loss: LossFn,
    *,
    ways: int,
    inner_steps: Natural = 1,
    inner_lr: Positive = 0.001,
    estimator: Literal["exact", "first-order", "rematerialised", "mixed-mode"] = "exact",
) -> MetaLearner:
    """MAML with inner gradient descent, as in the paper (arXiv:1703.03400).

    Args:
        inner_steps: Inner gradient steps in a training task.
        inner_lr: Learning rate of the inner steps. The paper prints 0.01, and its code has 0.001.
        estimator: Estimator of the meta-gradient.
    """
    options: dict[str, Any] = {"inner_steps": inner_steps, "estimator": estimator}
    return maml(model, loss, ways=ways, inner_lr=inner_lr, **options)


def anil(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    inner_steps: Natural = 1,
    inner_lr: Positive = 0.4,
    estimator: Literal["exact", "first-order", "rematerialised", "mixed-mode"] = "exact",
) -> MetaLearner:
    """MAML that adapts the head alone, with MAML's inner steps (arXiv:1909.09157).

    Args:
        inner_steps: Inner gradient steps in a training task.
        inner_lr: Learning rate of the inner steps.
        estimator: Estimator of the meta-gradient.
    """
    options: dict[str, Any] = {"steps": inner_steps, "estimator": ESTIMATORS[estimator]}
    return anil_.anil(features, loss, ways=ways, tx=optax.sgd(inner_lr), **options)


def anil_of_curves(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    inner_steps: Natural = 1,
    inner_lr: Positive = 0.01,
    estimator: Literal["exact", "first-order", "rematerialised", "mixed-mode"] = "exact",
) -> MetaLearner:
    """MAML that adapts the head alone, with inner gradient descent (arXiv:1909.09157).

    Args:
        inner_steps: Inner gradient steps in a training task.
        inner_lr: Learning rate of the inner steps.
        estimator: Estimator of the meta-gradient.
    """
    options: dict[str, Any] = {"inner_steps": inner_steps, "estimator": estimator}
    return anil(features, loss, ways=ways, inner_lr=inner_lr, **options)


def boil(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    inner_steps: Natural = 1,
    inner_lr: Positive = 0.5,
    estimator: Literal["exact", "first-order", "rematerialised", "mixed-mode"] = "exact",
) -> MetaLearner:
    """MAML that adapts the features alone, and not the head (arXiv:2008.08882).

    Args:
        inner_steps: Inner gradient steps in a training task.
        inner_lr: Learning rate of the inner steps.
        estimator: Estimator of the meta-gradient.
    """
    options: dict[str, Any] = {"steps": inner_steps, "estimator": ESTIMATORS[estimator]}
    return boil_.boil(features, loss, ways=ways, tx=optax.sgd(inner_lr), **options)


def meta_sgd(
    model: Model,
    loss: LossFn,
    *,
    ways: int,
    inner_steps: Natural = 1,
    initial_lr: tuple[Positive, Positive] = (0.005, 0.1),
    estimator: Literal["exact", "first-order", "rematerialised", "mixed-mode"] = "exact",
) -> MetaLearner:
    """MAML that learns a learning rate for each parameter (arXiv:1707.09835).

    Args:
        inner_steps: Inner gradient steps in a training task.
        initial_lr: Range of the initial learning rate. All parameters start with the same one.
        estimator: Estimator of the meta-gradient.
    """
    del ways  # the net has as many outputs
    options: dict[str, Any] = {"steps": inner_steps, "estimator": ESTIMATORS[estimator]}
    return meta_sgd_.meta_sgd(model, loss, initial_lr=initial_lr, **options)


def meta_curvature(
    model: Model,
    loss: LossFn,
    *,
    ways: int,
    inner_steps: Natural = 1,
    inner_lr: Positive = 0.4,
    estimator: Literal["exact", "first-order", "rematerialised", "mixed-mode"] = "exact",
) -> MetaLearner:
    """MAML that learns matrices by which inner gradients are multiplied (arXiv:1902.03356).

    Args:
        inner_steps: Inner gradient steps in a training task.
        inner_lr: Learning rate of the inner steps.
        estimator: Estimator of the meta-gradient.
    """
    del ways  # the net has as many outputs
    options: dict[str, Any] = {"steps": inner_steps, "estimator": ESTIMATORS[estimator]}
    return meta_curvature_.meta_curvature(model, loss, inner_lr=inner_lr, **options)


def meta_curvature_of_curves(
    model: Model,
    loss: LossFn,
    *,
    ways: int,
    inner_steps: Natural = 1,
    inner_lr: Positive = 0.001,
    estimator: Literal["exact", "first-order", "rematerialised", "mixed-mode"] = "exact",
) -> MetaLearner:
    """MAML that learns matrices by which inner gradients are multiplied (arXiv:1902.03356).

    Args:
        inner_steps: Inner gradient steps in a training task.
        inner_lr: Learning rate of the inner steps.
        estimator: Estimator of the meta-gradient.
    """
    options: dict[str, Any] = {"inner_steps": inner_steps, "estimator": estimator}
    return meta_curvature(model, loss, ways=ways, inner_lr=inner_lr, **options)


def cavia_of_curves(
    model: Model,
    loss: LossFn,
    *,
    ways: int,
    contexts: Count = 5,
    inner_steps: Natural = 1,
    inner_lr: Positive = 1.0,
    estimator: Literal["exact", "first-order", "rematerialised", "mixed-mode"] = "exact",
) -> MetaLearner:
    """Adapts context parameters, which are further inputs of the net (arXiv:1810.03642).

    Args:
        contexts: Number of context parameters.
        inner_steps: Inner gradient steps in a training task.
        inner_lr: Learning rate of the inner steps.
        estimator: Estimator of the meta-gradient.
    """
    del ways  # the net has as many outputs
    options: dict[str, Any] = {"contexts": contexts, "inner_lr": inner_lr, "steps": inner_steps}
    return cavia_.cavia(model, loss, estimator=ESTIMATORS[estimator], **options)


def reptile(
    model: Model,
    loss: LossFn,
    *,
    ways: int,
    inner_steps: Count = 5,
    inner_lr: Positive = 0.1,
    inner_batch: Count = 10,
    inner_optimiser: Literal["sgd", "adam"] = "sgd",
) -> MetaLearner:
    """Reptile (arXiv:1803.02999), by default with gradient descent in a task.

    Args:
        inner_steps: Steps in a training task. The paper's test on Omniglot takes 50 of them.
        inner_lr: Learning rate of these steps. With Adam, the paper's code has 0.001.
        inner_batch: Examples per inner step.
        inner_optimiser: Optimiser in a task. `adam` has beta1 = 0, as in the paper's code. Here it
            starts anew in each task and learns more slowly.
    """
    del ways  # the net has as many outputs
    tx = optax.sgd(inner_lr) if inner_optimiser == "sgd" else optax.adam(inner_lr, b1=0.0)
    return reptile_.reptile(model, loss, tx=tx, steps=inner_steps, batch_size=inner_batch)


def reptile_of_curves(
    model: Model,
    loss: LossFn,
    *,
    ways: int,
    inner_steps: Count = 5,
    inner_lr: Positive = 0.02,
    inner_batch: Count = 10,
) -> MetaLearner:
    """Reptile with gradient descent in a task, as in the paper's sine waves (arXiv:1803.02999).

    Args:
        inner_steps: Steps in a training task.
        inner_lr: Learning rate of these steps.
        inner_batch: Points per inner step.
    """
    del ways  # the net has as many outputs
    tx = optax.sgd(inner_lr)
    return reptile_.reptile(model, loss, tx=tx, steps=inner_steps, batch_size=inner_batch)


def r2d2_of_curves(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    strength: Positive = 1.0,
) -> MetaLearner:
    """R2-D2, ridge regression on learned features (arXiv:1805.08136).

    Args:
        strength: Strength of the ridge penalty at the start of training.
    """
    return r2d2(features, loss, ways=ways, strength=strength, scale=1.0)


def relationnet(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    score_loss: Literal["squared", "cross-entropy"] = "squared",
) -> MetaLearner:
    """Relation network: a learned module scores pairs of class and query (arXiv:1711.06025).

    Args:
        score_loss: Training loss: the squared error of sigmoid scores, as in the paper, or the loss
            of the experiment, which takes scores as logits.
    """
    trained = relationnet_.relation_error if score_loss == "squared" else loss
    return relationnet_.relationnet(features, trained, ways=ways)


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
        inner_lr: Learning rate of these steps.
        scale: Factor of the cosines. None: 2 for up to 200 classes and 10 for more, as in the
            paper's code.
    """
    options: dict[str, Any] = {"ways": ways, "classes": classes, "steps": inner_steps}
    return baseline_pp_.baseline_pp(
        features, loss, tx=_sgd_of_chen(inner_lr), scale=scale, **options
    )


def _sgd_of_chen(lr: float) -> optax.GradientTransformation:
    return damped_sgd(lr, momentum=0.9, dampening=0.9, weight_decay=0.001)


LEARNERS: dict[str, Make] = {
    "maml": maml,
    "protonet": protonet,
    "finetune": finetune,
    "reptile": reptile,
    "anil": anil,
    "boil": boil,
    "meta_sgd": meta_sgd,
    "r2d2": r2d2,
    "metaoptnet": metaoptnet,
    "meta_curvature": meta_curvature,
    "matchingnet": matchingnet,
    "relationnet": relationnet,
    "rfs": rfs,
    "linear_probe": linear_probe,
    "baseline_pp": baseline_pp,
}
"""The learners of classification by their names on the command line. Add yours here."""
REGRESSORS: dict[str, Make] = {
    "maml": maml_of_curves,
    "reptile": reptile_of_curves,
    "anil": anil_of_curves,
    "meta_sgd": meta_sgd,
    "r2d2": r2d2_of_curves,
    "meta_curvature": meta_curvature_of_curves,
    "cavia": cavia_of_curves,
}
"""The learners of regression. `ways` is the number of the net's outputs."""
TAKEN = (*LEARNERS, "pretrained", "nearest_centroid", "support_mean", "config", "run")
"""Names in a result that are no own learner."""
