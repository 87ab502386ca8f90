"""MAML, model-agnostic meta-learning (Finn, Abbeel, Levine 2017, arXiv:1703.03400).

The meta-parameters are an initialisation. Inside a task, a few gradient steps on the support set
adapt it. The loss of the *adapted* parameters on the query set is differentiated through these
steps. So a `jax.grad` stands inside another: the inner one is in `inner.descend`, the outer one in
`base.through_adaptation`.
"""

import optax

from jaxdl.grads import objective
from jaxdl.meta.base import predict_of, through_adaptation
from jaxdl.meta.estimators import Estimator, first_order
from jaxdl.meta.inner import descend
from jaxdl.meta.memory import auto
from jaxdl.meta.probe.verdict import check
from jaxdl.types import Key, LossFn, MetaLearner, Model, Params, PyTree


def maml(
    model: Model,
    loss: LossFn,
    *,
    tx: optax.GradientTransformation,
    steps: int,
    estimator: Estimator = auto,
    inner_dropout: bool = False,
) -> MetaLearner:
    """MAML with `steps` inner steps of `tx`: `optax.sgd(0.4)` is the paper's for Omniglot.

    `steps=0` trains on the query sets of all tasks jointly. This is the paper's pretrained
    baseline. `adapt(..., steps=k)` then fine-tunes it.

    `params` and `adapted` are parameters of `model`. `loss` is both the inner and the outer loss,
    the mean over examples.

    Adaptation has no dropout, neither in training nor in evaluation, so `adapted` depends on
    `params` and `support` alone. With `inner_dropout` each inner step draws new masks from the key
    of `adapt`. Queries have dropout in training in both cases.

    A task may have fewer classes than the net has outputs. The support set then teaches the head
    that the last ones do not occur.

    The meta-gradient passes through `tx` itself. Its derivatives are tried on a few numbers first,
    which takes some tenths of a second for a new `tx`: see the page inner-optimisers of the
    documentation.

    Raises:
        InputError: if the meta-gradient through `tx` is NaN at every point, or cannot be taken; if
            `steps` is below 0.

    Warns:
        InnerOptimiserWarning: if the meta-gradient through `tx` is NaN or wrong at some points,
            such as a gradient of exactly zero, or if it has no second-order part.

    >>> import jax, optax, jaxdl
    >>> model = jaxdl.mlp((40, 40, 1))
    >>> learner = jaxdl.maml(model, jaxdl.mean_squared_error, tx=optax.sgd(0.01), steps=1)
    >>> sample = jaxdl.sinusoid(shots=10, queries=10)
    >>> episode = jax.jit(sample)(jax.random.key(0))
    >>> params = jax.jit(learner.init)(jax.random.key(1), episode.support.x)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(2), params, episode.support)
    >>> learner.predict(adapted, episode.query.x).shape
    (10, 1)
    >>> meta_grads, metrics = jax.jit(learner.grad)(jax.random.key(3), 0, params, episode)
    >>> jax.tree.structure(meta_grads) == jax.tree.structure(params)
    True
    """
    inner_loss = objective(model, loss)
    check(tx, steps=steps, first_order=estimator is first_order)
    trained_steps = steps

    def adapt(key: Key, params: Params, support: PyTree, steps: int | None = None) -> Params:
        depth = trained_steps if steps is None else steps
        masks = key if inner_dropout else None
        adapted, _ = descend(
            inner_loss, params, tx, support, steps=depth, key=masks, estimator=estimator
        )
        return adapted

    predict = predict_of(model)

    return MetaLearner(model.init, adapt, predict, through_adaptation(adapt, predict, loss))


def fomaml(
    model: Model,
    loss: LossFn,
    *,
    tx: optax.GradientTransformation,
    steps: int,
    inner_dropout: bool = False,
) -> MetaLearner:
    """First-order MAML: it sets the Hessian of the inner loss to zero (section 5.2).

    On a linear loss, which has no Hessian, it is MAML:

    >>> import jax, jax.numpy as jnp, optax, jaxdl
    >>> def linear(prediction, target, weight=None):
    ...     value = jnp.mean(prediction * target)
    ...     return value, {"loss": value}
    >>> x = jnp.ones((3, 1))
    >>> episode = jaxdl.Episode(jaxdl.Batch(x, x), jaxdl.Batch(x, -x))
    >>> model, options = jaxdl.mlp((1,)), {"tx": optax.sgd(0.1), "steps": 1}
    >>> params = jax.jit(model.init)(jax.random.key(0), x)
    >>> grads = [
    ...     jax.jit(make(model, linear, **options).grad)(jax.random.key(1), 0, params, episode)[0]
    ...     for make in (jaxdl.fomaml, jaxdl.maml)
    ... ]
    >>> all(jax.tree.leaves(jax.tree.map(jnp.allclose, *grads)))
    True
    """
    return maml(model, loss, tx=tx, steps=steps, estimator=first_order, inner_dropout=inner_dropout)
