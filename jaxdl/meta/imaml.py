"""iMAML, MAML with implicit gradients (Rajeswaran, Finn, Kakade, Levine 2019, arXiv:1909.04630).

The meta-parameters are an initialisation, as in MAML. In a task, gradient steps learn the support
set, and a quadratic term pulls the parameters to the initialisation. So the minimum depends on the
initialisation, and the steps to it need not be remembered. The meta-gradient is that of the
minimum, `(I + H / strength)^-1 g`, where H is the Hessian of the support loss at the end of the
steps, and g the gradient of the query loss there. Its memory does not grow with the steps.
"""

from functools import partial

import optax

from jaxdl.errors import InputError
from jaxdl.grads import objective
from jaxdl.meta.base import predict_of, through_adaptation
from jaxdl.meta.hypergradient import minimise
from jaxdl.meta.solvers import Product, Solver, conjugate_gradients
from jaxdl.optim.check import check_steps, check_tx
from jaxdl.types import (
    Batch,
    Key,
    LossFn,
    MetaLearner,
    Metrics,
    Model,
    Params,
    PyTree,
    Scalar,
)

SOLVER = partial(conjugate_gradients, steps=5, damping=11.0, least_curvature=6.0)
"""It stops at a direction along which H has a curvature below `-6 * strength`."""


def imaml(
    model: Model,
    loss: LossFn,
    *,
    tx: optax.GradientTransformation,
    steps: int,
    strength: float = 2.0,
    solver: Solver = SOLVER,
    inner_dropout: bool = False,
) -> MetaLearner:
    """iMAML with `steps` inner steps of `tx`: 16 of `optax.sgd(0.1)` are the paper's for Omniglot.

    `params` and `adapted` are parameters of `model`. `loss` is both the inner and the outer loss.
    `tx` may be any Optax transformation, because nothing differentiates through it.

    The steps should come near the minimum, and be too small to jump over it. Training makes a net
    sharper, until larger steps diverge. The implicit meta-gradient does not see that, and no longer
    points downhill. On sine waves, steps of 0.001 so end in NaN within 8,000 meta-steps, and those
    of 0.0005 within 15,000. Steps of 0.0002 with a momentum of 0.8 reach as far, and learn.

    The support loss of a net has negative curvature, too. Plain conjugate gradients then give a
    meta-gradient of any length and direction, and sine waves are not learnt. The default solver has
    a least curvature, and a damping, that of the authors' code up to a factor. For the exact
    implicit gradient, of a convex loss, give `partial(jaxdl.conjugate_gradients, steps=...)`.

    The authors' code takes one step along the quadratic term, after all steps on the support loss,
    and it tests with a strength of 0.

    Args:
        strength: lambda of the paper, above 0: the inner loss is the support loss plus
            `strength / 2` times the squared distance to `params`.
        solver: gets products with `I + H / strength`. Choose `conjugate_gradients` or `neumann`
            with their options.

    Dropout is that of `maml`: without `inner_dropout` adaptation has none.

    Raises:
        InputError: if `steps` is below 0, `strength` is not above 0, or `tx` is no optimiser.

    >>> import jax, optax, jaxdl
    >>> model = jaxdl.mlp((40, 40, 1))
    >>> tx = optax.sgd(0.0002, momentum=0.8)
    >>> learner = jaxdl.imaml(model, jaxdl.mean_squared_error, tx=tx, steps=32, strength=10.0)
    >>> episode = jax.jit(jaxdl.sinusoid(shots=10, queries=10))(jax.random.key(0))
    >>> params = jax.jit(learner.init)(jax.random.key(1), episode.support.x)
    >>> meta_grads, metrics = jax.jit(learner.grad)(jax.random.key(2), 0, params, episode)
    >>> jax.tree.structure(meta_grads) == jax.tree.structure(params)
    True
    """
    inner_loss, default_steps = objective(model, loss), steps
    check_tx(tx)
    check_steps(steps)
    if strength <= 0:
        raise InputError(
            f"`strength={strength}` does not tie a task to the initialisation. Choose one above 0"
        )

    def proximal(
        params: Params, key: Key | None, centre: Params, support: Batch
    ) -> tuple[Scalar, Metrics]:
        value, metrics = inner_loss(params, key, support)
        distance = optax.tree.norm(optax.tree.sub(params, centre), squared=True)
        return value + strength / 2 * distance, metrics

    def in_units(product: Product, b: PyTree) -> PyTree:
        """`minimise` asks for `(H + strength I)^-1 b`. `solver` is for `I + H / strength`."""
        solved = solver(lambda v: optax.tree.scale(1 / strength, product(v)), b)
        return optax.tree.scale(1 / strength, solved)

    def adapt(key: Key, params: Params, support: Batch, steps: int | None = None) -> Params:
        depth = default_steps if steps is None else steps
        masks = key if inner_dropout else None
        return minimise(
            proximal, params, tx, params, support, steps=depth, solver=in_units, key=masks
        )

    predict = predict_of(model)

    return MetaLearner(model.init, adapt, predict, through_adaptation(adapt, predict, loss))
