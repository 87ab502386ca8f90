"""Returns over several steps (Sutton 1988; Watkins 1989), which stop where the episode does.

    many = n_step(steps=3, gamma=0.99)
    window = many.init(step)
    window, transition, ready = many.push(window, step)
    memory = lax.cond(ready, lambda m: replay.add(key, m, transition), lambda m: m, memory)

What a critic is trained towards is `reward + discount * value(next_obs)`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxdl.errors import InputError
from jaxdl.types import Array, Count, PyTree, Scalar


class Step(NamedTuple):
    """One step in an environment.

    `next_obs` is what the action led to, also where the episode ended and a new one begins.
    `terminated`: nothing comes after it. `truncated`: the episode ended for another reason, the
    clock for example, and would have gone on.
    """

    obs: PyTree
    action: PyTree
    reward: Float[Array, "*n"]
    next_obs: PyTree
    terminated: Bool[Array, "*n"]
    truncated: Bool[Array, "*n"]


class Transition(NamedTuple):
    """What is learned from: the `reward` of some steps, and the `discount` of what comes after."""

    obs: PyTree
    action: PyTree
    reward: Float[Array, "..."]
    discount: Float[Array, "..."]
    next_obs: PyTree


class Window(NamedTuple):
    """The last steps `[steps, ...]`, and how many were pushed, int32, at most `steps`."""

    steps: Step
    filled: Count


class NStep(NamedTuple):
    """`init(step) -> window`, and `push(window, step) -> (window, transition, ready)`.

    The transition begins `steps - 1` steps before the one that was pushed, and counts only where
    `ready`, which it is from the `steps`-th push on. One environment at a time: vmap for more.
    """

    init: Callable[[Step], Window]
    push: Callable[[Window, Step], tuple[Window, Transition, Bool[Array, ""]]]


def n_step(*, steps: int, gamma: float) -> NStep:
    """Transitions over `steps` steps from a stream of single ones.

    Every step begins one transition, with as many rewards as its episode still has, at most
    `steps`; windows go on across the ends of episodes, so nothing has to be flushed there.

    Raises:
        InputError: if there is no step, or `gamma` is not in [0, 1].

    >>> import jax.numpy as jnp, jaxdl
    >>> from jaxdl.replay.nstep import Step
    >>> made = jaxdl.n_step(steps=2, gamma=0.5)
    >>> def step(obs, reward):
    ...     no, next_obs = jnp.bool_(False), jnp.float32(obs + 1)
    ...     return Step(jnp.float32(obs), jnp.int32(0), jnp.float32(reward), next_obs, no, no)
    >>> window = made.init(step(0, 0))
    >>> window, _, full = made.push(window, step(0, 8))
    >>> window, transition, full = made.push(window, step(1, 4))
    >>> float(transition.obs), float(transition.reward), float(transition.discount)
    (0.0, 10.0, 0.25)
    """
    if steps < 1:
        raise InputError(f"steps={steps}: a return is of at least 1 step")
    if not 0 <= gamma <= 1:
        raise InputError(f"gamma={gamma}: choose a discount from 0 to 1")

    def init(step: Step) -> Window:
        def zeros(leaf: Array) -> Array:
            like = jax.eval_shape(jnp.asarray, leaf)
            return jnp.zeros((steps, *like.shape), like.dtype)

        return Window(jax.tree.map(zeros, step), jnp.int32(0))

    def push(window: Window, step: Step) -> tuple[Window, Transition, Bool[Array, ""]]:
        recent = jax.tree.map(
            lambda row, new: jnp.concatenate([row[1:], jnp.asarray(new, row.dtype)[None]]),
            window.steps,
            step,
        )
        filled = jnp.minimum(window.filled + 1, steps)
        reward, discount, last = n_step_return(
            recent.reward, recent.terminated, recent.truncated, gamma=gamma
        )
        obs, action = jax.tree.map(lambda leaf: leaf[0], (recent.obs, recent.action))
        next_obs = jax.tree.map(lambda leaf: leaf[last], recent.next_obs)
        transition = Transition(obs, action, reward, discount, next_obs)
        return Window(recent, filled), transition, filled == steps

    return NStep(init, push)


def n_step_return(
    rewards: Float[Array, " n"],
    terminated: Bool[Array, " n"],
    truncated: Bool[Array, " n"],
    *,
    gamma: float,
) -> tuple[Scalar, Scalar, Int[Array, ""]]:
    """The discounted return of consecutive steps `[n]` up to the first at which the episode ended.

    Returns:
        `(reward, discount, last)`: the sum of `gamma**k * rewards[k]` for k up to `last`, the
        int32 index of the last step that counts; and the factor of the value of what comes after
        it, `gamma ** (last + 1)`, or 0 where the episode terminated.
    """
    powers = jnp.asarray(gamma, rewards.dtype) ** jnp.arange(rewards.shape[0] + 1)
    ended = (terminated | truncated).astype(jnp.int32)
    counts = jnp.cumsum(ended) - ended == 0  # no end before this step
    last = counts.sum(dtype=jnp.int32) - 1
    reward = jnp.where(counts, powers[:-1] * rewards, 0).sum()
    return reward, jnp.where(terminated[last], 0, powers[last + 1]), last
