"""Lookahead: slow weights that follow the fast ones (Zhang et al. 2019, arXiv:1907.08610).

In the form of the speed records on CIFAR-10 (Jordan 2024, arXiv:2404.00498): every few steps the
slow net moves a part of the way to the fast one, which goes on from there; the part shrinks to
almost nothing at the end of training, so that the last slow net is an average over many steps. The
running statistics of batch norm are averaged with the weights that they belong to.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.types import Array, Key, Metrics, Params, PyTree, StepFn, TrainState


class Slow(NamedTuple):
    """What lookahead keeps in `opt_state`: the optimiser's own state, and the slow net."""

    inner: PyTree
    params: Params
    stats: PyTree


def with_slow(state: TrainState) -> TrainState:
    """A state for the step of `lookahead`: the slow net is the one at hand.

    >>> import jaxdl, jax.numpy as jnp, optax
    >>> state = jaxdl.with_slow(jaxdl.init_state(jnp.float32(3), optax.sgd(1.0)))
    >>> float(state.params), float(state.opt_state.params)  # fast, slow
    (3.0, 3.0)
    """
    return state._replace(opt_state=Slow(state.opt_state, state.params, state.stats))


def lookahead(
    step: StepFn, *, every: int, keep: Callable[[Array], Array], steps: int | None = None
) -> StepFn:
    """The training step, with the slow net joined in after every `every` of them.

    Args:
        step: of a `TrainState`; the new step wants a state of `with_slow`.
        every: at least 1: after so many steps the slow net becomes
            `keep * slow + (1 - keep) * fast`, and the fast one equals it.
        keep: the share in `[0, 1]` that stays, by the number of steps done.
        steps: after so many the fast net ends as the slow one; None: it stays the fast one.

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

    def slowed(key: Key, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        slow: Slow = state.opt_state
        state, metrics = step(key, state._replace(opt_state=slow.inner), batch)
        fast = state.params, state.stats
        share = keep(state.step)

        def meet(nets: Any) -> Any:
            # In this form what is equal, such as constants among the statistics, stays so.
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
