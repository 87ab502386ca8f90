"""Lookahead: slow weights that follow the fast ones (Zhang et al. 2019, arXiv:1907.08610).

The form is that of the speed records on CIFAR-10 (Jordan 2024, arXiv:2404.00498). Every few steps
the slow net moves to the fast one by a share of the difference. The fast one continues from there.
Near the end of training this share is almost zero, so the last slow net is an average over many
steps. The running statistics of batch norm are averaged together with the weights.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.errors import InputError
from jaxdl.types import Array, Key, Metrics, Params, PyTree, StepFn, TrainState


class Slow(NamedTuple):
    """The `opt_state` of lookahead: the optimiser's own state, and the slow net."""

    inner: PyTree
    params: Params
    stats: PyTree


def with_slow(state: TrainState) -> TrainState:
    """A state for the step of `lookahead`. Its slow net equals the net of `state`.

    >>> import jaxdl, jax.numpy as jnp, optax
    >>> state = jaxdl.with_slow(jaxdl.init_state(jnp.float32(3), optax.sgd(1.0)))
    >>> float(state.params), float(state.opt_state.params)  # fast, slow
    (3.0, 3.0)
    """
    params, stats = jax.tree.map(jnp.copy, (state.params, state.stats))  # to be donated apart
    return state._replace(opt_state=Slow(state.opt_state, params, stats))


def lookahead(
    step: StepFn, *, every: int, keep: Callable[[Array], Array], steps: int | None = None
) -> StepFn:
    """The training step, with an update of the slow net after every `every` steps.

    Args:
        step: a step on a `TrainState`. The new step takes a state of `with_slow`.
        every: number of steps between updates of the slow net, at least 1. An update is
            `keep * slow + (1 - keep) * fast`, and the fast net then equals the slow one.
        keep: the share of the slow net in `[0, 1]`, as a function of the number of steps done.
        steps: after this number of steps, the fast net becomes the slow one. None: it never does.

    Raises:
        InputError: if `every` is below 1.

    >>> import jaxdl, jax, jax.numpy as jnp, optax
    >>> tx = optax.sgd(1.0)
    >>> step = jaxdl.make_step(lambda key, step, params, batch: (jnp.float32(-1), {}), tx)
    >>> step = jax.jit(jaxdl.lookahead(step, every=2, keep=lambda done: 0.75))
    >>> state = jaxdl.with_slow(jaxdl.init_state(jnp.float32(0), tx))
    >>> fast = []
    >>> for _ in range(4):  # each step adds 1
    ...     state, metrics = step(jax.random.key(0), state, None)
    ...     fast.append(float(state.params))
    >>> fast  # 2 becomes 0 + (2 - 0) / 4, and 2.5 becomes 0.5 + (2.5 - 0.5) / 4
    [1.0, 0.5, 1.5, 1.0]
    """

    if every < 1:
        raise InputError(f"`every={every}`: choose at least 1 step between updates")

    def slowed(key: Key, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        slow: Slow = state.opt_state
        state, metrics = step(key, state._replace(opt_state=slow.inner), batch)
        fast = state.params, state.stats
        share = keep(state.step)

        def meet(nets: Any) -> Any:
            # In this form, equal values stay equal, such as constants among the statistics.
            met = jax.tree.map(lambda s, f: s + ((1 - share) * (f - s)).astype(f.dtype), *nets)
            return met, met

        before = (slow.params, slow.stats), fast
        now, fast = lax.cond(state.step % every == 0, meet, lambda nets: nets, before)
        if steps is not None:
            ended = state.step == steps
            fast = jax.tree.map(lambda s, f: jnp.where(ended, s, f), now, fast)
        params, stats = fast
        slow = Slow(state.opt_state, *now)
        return state._replace(params=params, stats=stats, opt_state=slow), metrics

    return slowed
