"""MAML, model-agnostic meta-learning (Finn, Abbeel, Levine 2017, arXiv:1703.03400).

The meta-parameters are an initialisation. Inside a task a few gradient steps on the support set
adapt it; the loss of the *adapted* parameters on the query set, differentiated through those
steps, says how the initialisation should have been. That is a `jax.grad` inside a `jax.grad`: the
inner one is in `inner.descend`, the outer one in `base.through_adaptation`.
"""

from functools import partial
from typing import Any

import optax

from jaxdl.grads import objective
from jaxdl.meta.base import through_adaptation
from jaxdl.meta.inner import Estimator, descend, exact, first_order
from jaxdl.types import Array, Key, LossFn, MetaLearner, Model, Params


def maml(
    model: Model,
    loss: LossFn,
    *,
    tx: optax.GradientTransformation,
    steps: int,
    estimator: Estimator = exact,
    inner_dropout: bool = False,
) -> MetaLearner:
    """MAML with `steps` inner steps of `tx`: `optax.sgd(0.4)` is the paper's for Omniglot.

    `steps=0` trains on the query sets of all tasks jointly, which is the paper's pretrained
    baseline; it can then be fine-tuned by `adapt(..., steps=k)`.

    `params` are those of `model`, `adapted` are too. `loss` is both the inner and the outer loss,
    the mean over examples; a multiple of the inner loss is a multiple of the inner rate.

    A net with dropout is adapted without it, in training and in evaluation alike, so that `adapted`
    depends on `params` and `support` alone. With `inner_dropout` each inner step draws new masks
    from the key of `adapt`. Queries have dropout in training either way.
    """
    inner_loss = objective(model, loss)
    trained_steps = steps

    def adapt(key: Key, params: Params, support: Any, steps: int | None = None) -> Params:
        depth = trained_steps if steps is None else steps
        masks = key if inner_dropout else None
        adapted, _ = descend(
            inner_loss, params, tx, support, steps=depth, key=masks, estimator=estimator
        )
        return adapted

    def predict(
        adapted: Params, x: Any, *, key: Key | None = None, weight: Array | None = None
    ) -> Any:
        return model.apply(adapted, x, key=key, weight=weight)

    return MetaLearner(model.init, adapt, predict, through_adaptation(adapt, predict, loss))


fomaml = partial(maml, estimator=first_order)
"""First-order MAML: the Hessian of the inner loss is taken to be zero (section 5.2)."""
