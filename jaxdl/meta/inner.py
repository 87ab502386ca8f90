"""Learning inside one task, differentiable: `descend`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxdl.errors import InputError
from jaxdl.meta.estimators import Estimator, InnerLoss
from jaxdl.meta.memory import auto, plan
from jaxdl.meta.probe.verdict import InnerOptimiserWarning as InnerOptimiserWarning
from jaxdl.meta.rates import check_rates
from jaxdl.meta.rates import scale_by_rates as scale_by_rates
from jaxdl.meta.safe import adam as adam
from jaxdl.meta.safe import clip_by_global_norm as clip_by_global_norm
from jaxdl.meta.safe import radam as radam
from jaxdl.meta.safe import rmsprop as rmsprop
from jaxdl.meta.segments import Step, in_segments
from jaxdl.types import Key, Params, PyTree


def descend(
    loss: InnerLoss,
    params: Params,
    tx: optax.GradientTransformation,
    *args: PyTree,
    steps: int,
    key: Key | None = None,
    estimator: Estimator = auto,
    rates: PyTree = None,
    each: tuple[PyTree, ...] = (),
    visit: Callable[..., PyTree] | None = None,
) -> tuple[Params, tuple[PyTree, PyTree]]:
    """Takes `steps` steps of `tx` on `loss(params, key, *args)`, with a new gradient at each step.

    `tx` may be any Optax transformation, if nothing differentiates through it. Else see the page
    inner-optimisers of the documentation, because the derivatives of many are NaN where a gradient
    is exactly zero. Those of `adam`, `rmsprop`, `radam` and `clip_by_global_norm` of this module
    are not.

    Args:
        steps: 0 leaves the parameters as they are.
        key: split into one key per step. None calls the loss with None, without dropout.
        estimator: how the meta-gradient passes through the inner gradient.
        rates: meta-learned learning rates, a pytree with a leading axis `[steps]`. `tx` gets the
            slice of each step as the extra argument `rates`; see `scale_by_rates`.
        each: further arguments of the loss, which differ from step to step, such as norms per step
            (MAML++). Their arrays have a leading axis `[steps]`, and the loss gets slices of them.
        visit: called with the parameters after each step, for losses on the whole path (MAML++),
            and with the slices of `each` that belong to the step.

    Returns:
        The adapted parameters, and the path: the metrics of the loss *before* each step and the
        values of `visit` after it, both with leading axis `[steps]`.

    Raises:
        InputError: if `steps` is below 0, or `rates` or `each` do not fit, or `tx` does not read
            `rates`.

    >>> import jax.numpy as jnp, optax, jaxdl
    >>> def loss(w, key, target):
    ...     value = (w - target) ** 2 / 2
    ...     return value, {"loss": value}
    >>> found, (metrics, _) = jaxdl.descend(
    ...     loss, jnp.float32(0), optax.sgd(0.5), jnp.float32(8), steps=3
    ... )
    >>> float(found), metrics["loss"].tolist()  # each step goes half of the way to 8
    (7.0, [32.0, 8.0, 2.0])
    """
    if steps < 0:
        raise InputError(f"steps={steps}: choose 0 or more inner steps")
    tx, params = optax.with_extra_args_support(tx), jax.tree.map(jnp.asarray, params)
    opt_state = tx.init(params)
    check_rates(rates, each, steps, tx, opt_state, params)
    keys = None if key is None else jax.random.split(key, steps)

    def step_of(estimator: Estimator) -> Step:
        grad = estimator(loss)

        def step(carry: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
            params, opt_state = carry
            step_key, step_rates, step_each = inputs
            extra = {} if rates is None else {"rates": step_rates}
            grads, metrics = grad(params, step_key, *args, *step_each)
            updates, opt_state = tx.update(grads, opt_state, params, **extra)
            params = optax.apply_updates(params, updates)
            seen = None if visit is None else visit(params, *step_each)
            return (params, opt_state), (metrics, seen)

        return step

    start, inputs = (params, opt_state), (keys, rates, each)
    if steps == 1:
        # Under vmap over tasks a scan would copy the initialisation, which they share, to each of
        # them: matrix products of many small matrices in place of one large one.
        first = jax.tree.map(lambda leaf: leaf[0], inputs)
        (params, _), path = step_of(estimator)(start, first)
        return params, jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], path)
    step, length = plan(estimator, step_of, start, inputs, steps)
    (params, _), path = in_segments(step, start, inputs, steps=steps, length=length)
    return params, path
