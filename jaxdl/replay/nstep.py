"""Returns over several steps (Sutton 1988; Watkins 1989). A return ends where its episode ends.

    many = n_step(steps=3, gamma=0.99)
    window = many.init(step)
    window, transition, ready = many.push(window, step)
    memory = lax.cond(ready, lambda m: replay.add(key, m, transition), lambda m: m, memory)

The target of a critic is `reward + discount * value(next_obs)`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Shaped

from jaxdl.errors import InputError
from jaxdl.types import Array, Count, PyTree, Scalar


class Step(NamedTuple):
    """One step in an environment.

    `next_obs` is the observation after the action, even if the episode ended and a new one begins.
    `terminated`: the task is over, so later rewards are 0. `truncated`: the episode was cut, by a
    time limit for example, and later rewards exist.
    """

    obs: PyTree
    action: PyTree
    reward: Float[Array, "*n"]
    next_obs: PyTree
    terminated: Bool[Array, "*n"]
    truncated: Bool[Array, "*n"]


class Transition(NamedTuple):
    """One example for a critic: the `reward` of some steps, and the `discount` of later rewards."""

    obs: PyTree
    action: PyTree
    reward: Float[Array, "..."]
    discount: Float[Array, "..."]
    next_obs: PyTree


class Window(NamedTuple):
    """The last steps `[steps, ...]`, and how many of these rows are filled (int32)."""

    steps: Step
    filled: Count


class NStep(NamedTuple):
    """`init(step) -> window`, and `push(window, step) -> (window, transition, ready)`.

    The transition begins `steps - 1` steps before the pushed one. Use it only if `ready` is true.
    `ready` is true from push number `steps` on. These functions serve one environment: vmap them
    for more.
    """

    init: Callable[[Step], Window]
    push: Callable[[Window, Step], tuple[Window, Transition, Bool[Array, ""]]]


def n_step(*, steps: int, gamma: float) -> NStep:
    """Transitions over `steps` steps from a stream of single steps.

    Every step begins one transition. Its rewards are those of the next `steps` steps, or fewer if
    the episode ends earlier. A window continues across the end of an episode, so do not reset it.

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
        raise InputError(f"steps={steps}: a return has at least 1 step. Choose 1 or more")
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
    rewards: Shaped[Array, " n"],
    terminated: Shaped[Array, " n"],
    truncated: Shaped[Array, " n"],
    *,
    gamma: float,
) -> tuple[Scalar, Scalar, Int[Array, ""]]:
    """The discounted return of consecutive steps `[n]`, up to the first end of the episode.

    Returns:
        `(reward, discount, last)`. `last` is the int32 index of the last step that counts. `reward`
        is the sum of `gamma**k * rewards[k]` for k up to `last`. `discount` is the factor of the
        value of the next state: `gamma ** (last + 1)`, or 0 if the episode terminated. Both are
        float32 at least, whatever the rewards are.
    """
    rewards = rewards.astype(jnp.promote_types(rewards.dtype, jnp.float32))
    terminated, truncated = terminated.astype(bool), truncated.astype(bool)
    powers = jnp.asarray(gamma, rewards.dtype) ** jnp.arange(rewards.shape[0] + 1)
    ended = (terminated | truncated).astype(jnp.int32)
    counts = jnp.cumsum(ended) - ended == 0  # no end before this step
    last = counts.sum(dtype=jnp.int32) - 1
    reward = jnp.where(counts, powers[:-1] * rewards, 0).sum()
    return reward, jnp.where(terminated[last], 0, powers[last + 1]), last
