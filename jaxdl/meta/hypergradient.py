"""Hypergradients, unrolled or implicit (Lorraine, Vicol, Duvenaud 2019, arXiv:1911.02590).

They are the gradient of a loss after an inner problem is solved, by what that problem depends on.
An inner problem is `min over w of inner_loss(w, hyper)`. Its hyperparameters may be any pytree: an
initialisation, the strength of a regulariser, a weight per example, a net that is a loss. There are
two ways to differentiate the solution by them:

- unrolled: through each step of `inner.descend`. It is exact for the steps that were taken, and its
  memory grows with their number.
- implicit: at the solution the gradient vanishes, for all hyperparameters. So the derivative of the
  solution is `-H^-1 M`, where H is the Hessian and M the mixed derivative by w and `hyper`. Its
  memory does not grow with the steps. It is right only as far as they have converged. `solvers` has
  what stands for `H^-1`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdl.grads import of_loss
from jaxdl.meta.estimators import Estimator, InnerLoss
from jaxdl.meta.inner import descend
from jaxdl.meta.memory import auto
from jaxdl.meta.solvers import Solver
from jaxdl.types import Count, Episode, GradFn, Grads, Key, Metrics, Params, PyTree, Scalar

Keys = tuple[Key | None, Key | None]
"""Of the steps, and of the Hessian at their end."""

Residuals = tuple[Params, Key | None, tuple[PyTree, ...]]
"""What an implicit derivative needs: the solution, and the other arguments of the loss."""


def minimise(
    loss: InnerLoss,
    params: Params,
    tx: optax.GradientTransformation,
    *args: PyTree,
    steps: int,
    solver: Solver,
    key: Key | None = None,
) -> Params:
    """The parameters after `steps` steps of `tx` on `loss`, differentiated as if they minimised it.

    The value is that of `inner.descend`. The derivative by `args` is the implicit one. That by
    `params`, the starting point, is zero, because a minimum does not know where the descent to it
    started. `tx` may be any Optax transformation, because nothing differentiates through it.

    What carries a gradient must be among `args`. If `loss` encloses it, JAX raises an error.

    Args:
        loss: `(params, key, *args) -> (scalar, metrics)`.
        solver: gets products with the Hessian, and the gradient by the solution.
        key: split into one key per step, and one for the Hessian. None calls `loss` with None.

    Raises:
        InputError: if `steps` is below 0.

    The minimum of `(w - a)^2 / 2 + w^2 / 2` is `a / 2`:

    >>> import functools, jax, optax, jaxdl
    >>> def loss(w, key, a):
    ...     return (w - a) ** 2 / 2 + w**2 / 2, {}
    >>> solver = functools.partial(jaxdl.conjugate_gradients, steps=1)
    >>> def solution(a):
    ...     return jaxdl.minimise(loss, 1.0, optax.sgd(0.5), a, steps=3, solver=solver)
    >>> value, slope = jax.jit(jax.value_and_grad(solution))(6.0)
    >>> float(value), float(slope)
    (3.0, 0.5)
    """
    in_steps, at_end = (None, None) if key is None else jax.random.split(key)

    def grad(at: Params, key: Key | None, args: tuple[PyTree, ...]) -> Grads:
        return jax.grad(loss, has_aux=True)(at, key, *args)[0]

    def found_by(params: Params, key: Key | None, args: tuple[PyTree, ...]) -> Params:
        return descend(loss, params, tx, *args, steps=steps, key=key)[0]

    @jax.custom_vjp
    def solve(params: Params, keys: Keys, args: tuple[PyTree, ...]) -> Params:
        # Nothing differentiates it, so the checkpoint costs nothing. Without it the second
        # derivative is wrong inside a scan, in silence (findings/jax-custom-vjp-in-scan.sh).
        found: Params = jax.checkpoint(found_by)(params, keys[0], args)
        return found

    def forward(params: Params, keys: Keys, args: tuple[PyTree, ...]) -> tuple[Params, Residuals]:
        found = solve(params, keys, args)
        return found, (found, keys[1], args)

    def backward(residuals: Residuals, cotangent: Params) -> tuple[None, None, tuple[PyTree, ...]]:
        found, key, args = residuals
        _, product = jax.linearize(lambda at: grad(at, key, args), found)
        solved = solver(product, cotangent)
        _, mixed = jax.vjp(lambda args: grad(found, key, args), args)
        return None, None, *mixed(optax.tree.scale(-1, solved))

    solve.defvjp(forward, backward)
    params, args = jax.tree.map(jnp.asarray, (params, args))
    return solve(params, (in_steps, at_end), args)


def hypergradient(
    inner_loss: InnerLoss,
    outer_loss: InnerLoss,
    *,
    start: Callable[[Key, PyTree, PyTree], Params],
    tx: optax.GradientTransformation,
    steps: int,
    solver: Solver | None = None,
    estimator: Estimator = auto,
    inner_dropout: bool = False,
) -> GradFn:
    """The gradient of `outer_loss` by `hyper`, after `steps` steps of `tx` on `inner_loss`.

    It is a `GradFn` whose parameters are `hyper`, so `make_step` and `over_tasks` take it. Its
    batch is an `Episode`: the inner loss sees `support`, such as training data, and the outer loss
    sees `query`, such as validation data.

    The inner optimiser must converge for an implicit hypergradient. It must be differentiable for
    an unrolled one: see the page inner-optimisers of the
    documentation.

    Args:
        inner_loss: `(params, key, hyper, support) -> (scalar, metrics)`.
        outer_loss: `(params, key, hyper, query) -> (scalar, metrics)`. Its direct dependence on
            `hyper` counts, too.
        start: `(key, hyper, support) -> params` at step 0. Only an unrolled hypergradient passes
            through it.
        solver: None unrolls the steps. A solver, such as
            `partial(jaxdl.conjugate_gradients, steps=10)` or
            `partial(jaxdl.neumann, steps=20, rate=0.1)`, makes the hypergradient implicit.
        estimator: how an unrolled hypergradient passes through the inner gradient.
        inner_dropout: gives `inner_loss` a new key at each step. Else its key is None.

    Raises:
        InputError: when tracing, if `steps` is below 0.

    How strong should a pull to zero be? The inner minimum is `2 / (1 + strength)`, and 1 is asked:

    >>> import functools, jax, jax.numpy as jnp, optax, jaxdl
    >>> def inner(w, key, strength, y):
    ...     return (w - y) ** 2 / 2 + strength * w**2 / 2, {}
    >>> def outer(w, key, strength, y):
    ...     return (w - y) ** 2, {"loss": (w - y) ** 2}
    >>> grad = jaxdl.hypergradient(
    ...     inner, outer, start=lambda key, strength, y: jnp.zeros(()), tx=optax.sgd(0.4), steps=50,
    ...     solver=functools.partial(jaxdl.conjugate_gradients, steps=1),
    ... )
    >>> task = jaxdl.Episode(support=2.0, query=1.0)
    >>> grads, _ = jax.jit(grad)(jax.random.key(0), 0, jnp.float32(0.25), task)
    >>> round(float(grads), 4)  # 2 * (1.6 - 1) * -2 / 1.25**2
    -1.536
    """

    def value(
        hyper: PyTree, key: Key, episode: Episode, step: Count | None = None
    ) -> tuple[Scalar, Metrics]:
        del step  # the losses do not change with training time
        start_key, inner_key, outer_key = jax.random.split(key, 3)
        problem = inner_loss, start(start_key, hyper, episode.support), tx, hyper, episode.support
        options: Any = {"steps": steps, "key": inner_key if inner_dropout else None}
        if solver is None:
            found, _ = descend(*problem, **options, estimator=estimator)
        else:
            found = minimise(*problem, **options, solver=solver)
        return outer_loss(found, outer_key, hyper, episode.query)

    return of_loss(value)
