"""Flags of the learners that take gradient steps in a task; see `recipes/learners.py`."""

from functools import partial
from typing import Any, Literal

import optax

from jaxdl.meta import anil as anil_
from jaxdl.meta import boil as boil_
from jaxdl.meta import cavia as cavia_
from jaxdl.meta import es_maml as es_maml_
from jaxdl.meta import imaml as imaml_
from jaxdl.meta import maml as maml_
from jaxdl.meta import maml_pp as maml_pp_
from jaxdl.meta import meta_curvature as meta_curvature_
from jaxdl.meta import meta_sgd as meta_sgd_
from jaxdl.meta import proto_maml as proto_maml_
from jaxdl.meta import reptile as reptile_
from jaxdl.meta.memory import ESTIMATORS, EstimatorName
from jaxdl.meta.per_step import is_norm
from jaxdl.meta.solvers import Solver, conjugate_gradients, neumann
from jaxdl.runs.config import Count, Natural, NotNegative, Positive, Rate
from jaxdl.runs.keywords import with_defaults
from jaxdl.types import (
    Embedding,
    LossFn,
    MetaLearner,
    Model,
)


def maml(
    model: Model,
    loss: LossFn,
    *,
    ways: int,
    inner_steps: Natural = 1,
    inner_lr: Positive = 0.4,
    inner_loss: Literal["mean", "sum-over-classes"] = "mean",
    estimator: EstimatorName = "auto",
) -> MetaLearner:
    """MAML with inner gradient descent, as in the paper (arXiv:1703.03400).

    Args:
        inner_steps: Inner gradient steps in a training task.
        inner_lr: Learning rate of the inner steps.
        inner_loss: Inner loss: the mean, as the paper prints it, or the sum over classes, as its
            code has it.
        estimator: Estimator of the meta-gradient. auto: exact, with as little computed again as
            memory allows.
    """
    scale = ways if inner_loss == "sum-over-classes" else 1
    tx = optax.sgd(scale * inner_lr)
    return maml_.maml(model, loss, tx=tx, steps=inner_steps, estimator=ESTIMATORS[estimator])


def maml_of_curves(
    model: Model,
    loss: LossFn,
    *,
    ways: int,
    inner_steps: Natural = 1,
    inner_lr: Positive = 0.001,
    estimator: EstimatorName = "auto",
) -> MetaLearner:
    """MAML with inner gradient descent, as in the paper (arXiv:1703.03400).

    Args:
        inner_steps: Inner gradient steps in a training task.
        inner_lr: Learning rate of the inner steps. The paper prints 0.01, and its code has 0.001.
        estimator: Estimator of the meta-gradient. auto: exact, with as little computed again as
            memory allows.
    """
    options: dict[str, Any] = {"inner_steps": inner_steps, "estimator": estimator}
    return maml(model, loss, ways=ways, inner_lr=inner_lr, **options)


_FIRST_ORDER = {"estimator": "first-order"}
fomaml = with_defaults(maml, fixed=_FIRST_ORDER)
fomaml_of_curves = with_defaults(maml_of_curves, fixed=_FIRST_ORDER)


def anil(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    inner_steps: Natural = 1,
    inner_lr: Positive = 0.4,
    estimator: EstimatorName = "auto",
) -> MetaLearner:
    """MAML that adapts the head alone, with MAML's inner steps (arXiv:1909.09157).

    Args:
        inner_steps: Inner gradient steps in a training task.
        inner_lr: Learning rate of the inner steps.
        estimator: Estimator of the meta-gradient. auto: exact, with as little computed again as
            memory allows.
    """
    options: dict[str, Any] = {"steps": inner_steps, "estimator": ESTIMATORS[estimator]}
    return anil_.anil(features, loss, ways=ways, tx=optax.sgd(inner_lr), **options)


anil_of_curves = with_defaults(anil, inner_lr=0.01)


def boil(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    inner_steps: Natural = 1,
    inner_lr: Positive = 0.5,
    estimator: EstimatorName = "auto",
) -> MetaLearner:
    """MAML that adapts the features alone, and not the head (arXiv:2008.08882).

    Args:
        inner_steps: Inner gradient steps in a training task.
        inner_lr: Learning rate of the inner steps.
        estimator: Estimator of the meta-gradient. auto: exact, with as little computed again as
            memory allows.
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
    estimator: EstimatorName = "auto",
) -> MetaLearner:
    """MAML that learns a learning rate for each parameter (arXiv:1707.09835).

    Args:
        inner_steps: Inner gradient steps in a training task.
        initial_lr: Range of the initial learning rate. All parameters start with the same one.
        estimator: Estimator of the meta-gradient. auto: exact, with as little computed again as
            memory allows.
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
    estimator: EstimatorName = "auto",
) -> MetaLearner:
    """MAML that learns matrices by which inner gradients are multiplied (arXiv:1902.03356).

    Args:
        inner_steps: Inner gradient steps in a training task.
        inner_lr: Learning rate of the inner steps.
        estimator: Estimator of the meta-gradient. auto: exact, with as little computed again as
            memory allows.
    """
    del ways  # the net has as many outputs
    options: dict[str, Any] = {"steps": inner_steps, "estimator": ESTIMATORS[estimator]}
    return meta_curvature_.meta_curvature(model, loss, inner_lr=inner_lr, **options)


meta_curvature_of_curves = with_defaults(meta_curvature, inner_lr=0.001)


def maml_pp(
    model: Model,
    loss: LossFn,
    *,
    ways: int,
    inner_steps: Natural = 5,
    inner_lr: Positive = 0.1,
    multi_step_until: Natural = 500,
    learn_rates: bool = True,
    norms_per_step: bool = True,
    second_order_from: Natural = 0,
    estimator: EstimatorName = "auto",
) -> MetaLearner:
    """MAML++: losses after every inner step, learned rates, norms per step (arXiv:1810.09502).

    Args:
        inner_steps: Inner gradient steps in a training task.
        inner_lr: First learning rate of the inner steps.
        multi_step_until: Training step until which the query losses after all inner steps count,
            and not the last one alone. The paper has a tenth of its training. 0 never does so.
        learn_rates: Learn a rate for each inner step and array of parameters.
        norms_per_step: Learn scales and offsets of norms for each inner step, and do not adapt
            them.
        second_order_from: Training step before which the meta-gradient is of first order.
        estimator: Estimator of the meta-gradient. auto: exact, with as little computed again as
            memory allows.
    """
    del ways  # the net has as many outputs
    return maml_pp_.maml_pp(
        model,
        loss,
        steps=inner_steps,
        inner_lr=inner_lr,
        multi_step_until=multi_step_until,
        learn_rates=learn_rates,
        per_step=is_norm if norms_per_step else None,
        second_order_from=second_order_from,
        estimator=ESTIMATORS[estimator],
    )


# Learned rates are off, because they grow until the training on sine waves diverges.
maml_pp_of_curves = with_defaults(
    maml_pp, fixed={"norms_per_step": False}, inner_lr=0.01, learn_rates=False
)


def es_maml(
    model: Model,
    loss: LossFn,
    *,
    ways: int,
    inner_steps: Natural = 1,
    inner_lr: Positive = 0.4,
    population: Count = 16,
    sigma: Positive = 0.1,
) -> MetaLearner:
    """MAML by evolution strategies, without a derivative of the adaptation (arXiv:1910.01215).

    Args:
        inner_steps: Inner gradient steps in a training task.
        inner_lr: Learning rate of the inner steps.
        population: Pairs of perturbed initialisations per task. Each pair costs two adaptations.
        sigma: Standard deviation of the perturbations.
    """
    del ways  # the net has as many outputs
    options: dict[str, Any] = {"population": population, "sigma": sigma, "steps": inner_steps}
    return es_maml_.es_maml(model, loss, tx=optax.sgd(inner_lr), **options)


es_maml_of_curves = with_defaults(es_maml, inner_lr=0.01, sigma=0.01)


def cavia_of_curves(
    model: Model,
    loss: LossFn,
    *,
    ways: int,
    contexts: Count = 5,
    inner_steps: Natural = 1,
    inner_lr: Positive = 1.0,
    estimator: EstimatorName = "auto",
) -> MetaLearner:
    """Adapts context parameters, which are further inputs of the net (arXiv:1810.03642).

    Args:
        contexts: Number of context parameters.
        inner_steps: Inner gradient steps in a training task.
        inner_lr: Learning rate of the inner steps.
        estimator: Estimator of the meta-gradient. auto: exact, with as little computed again as
            memory allows.
    """
    del ways  # the net has as many outputs
    options: dict[str, Any] = {"contexts": contexts, "inner_lr": inner_lr, "steps": inner_steps}
    return cavia_.cavia(model, loss, estimator=ESTIMATORS[estimator], **options)


def imaml(
    model: Model,
    loss: LossFn,
    *,
    ways: int,
    inner_steps: Natural = 16,
    inner_lr: Positive = 0.1,
    inner_momentum: Rate = 0.0,
    strength: Positive = 2.0,
    solver: Literal["cg", "neumann"] = "cg",
    solver_steps: Natural = 5,
    damping: NotNegative = 11.0,
) -> MetaLearner:
    """MAML with implicit gradients, with gradient descent in a task (arXiv:1909.04630).

    Args:
        inner_steps: Inner gradient steps.
        inner_lr: Learning rate of the inner steps.
        inner_momentum: Momentum of the inner steps.
        strength: Strength of the pull to the initialisation, lambda of the paper.
        solver: Solver of the implicit meta-gradient: conjugate gradients, or the Neumann series.
        solver_steps: Hessian-vector products per meta-gradient.
        damping: Damping of the conjugate gradients. The authors' code has 11 with a strength of 2.
    """
    del ways  # the net has as many outputs
    if solver == "cg":
        options: dict[str, Any] = {"damping": damping, "least_curvature": (1 + damping) / 2}
        solve: Solver = partial(conjugate_gradients, steps=solver_steps, **options)
    else:  # at the rate of the inner steps, the series is the gradient through the last of them
        solve = partial(neumann, steps=solver_steps, rate=inner_lr * strength)
    tx = optax.sgd(inner_lr, momentum=inner_momentum or None)
    options = {"steps": inner_steps, "strength": strength, "solver": solve}
    return imaml_.imaml(model, loss, tx=tx, **options)


# Chosen on validation tasks, and so that no step diverges: see meta/imaml.py.
imaml_of_curves = with_defaults(
    imaml, inner_steps=32, inner_lr=0.0002, inner_momentum=0.8, strength=10.0, damping=3.0
)


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


reptile_of_curves = with_defaults(reptile, fixed={"inner_optimiser": "sgd"}, inner_lr=0.02)


def proto_maml(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    inner_steps: Natural = 5,
    inner_lr: Positive = 0.1,
    estimator: EstimatorName = "first-order",
) -> MetaLearner:
    """MAML whose head starts from the class means of the support set (arXiv:1903.03096).

    Args:
        inner_steps: Inner gradient steps in a training task.
        inner_lr: Learning rate of the inner steps.
        estimator: Estimator of the meta-gradient. The paper's is of first order.
    """
    options: dict[str, Any] = {"steps": inner_steps, "estimator": ESTIMATORS[estimator]}
    return proto_maml_.proto_maml(features, loss, ways=ways, tx=optax.sgd(inner_lr), **options)
