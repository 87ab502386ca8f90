"""Q-values: the choice of actions, and the targets and errors of training.

A net maps observations `[n, ...]` to values `[n, actions]`: the expected return of each action.

    actions = epsilon_greedy(key, net.apply(params, obs), 0.1)
    targets = td_targets(transitions, net.apply(target_params, transitions.next_obs))
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from jaxdl.errors import InputError
from jaxdl.replay.nstep import Transition
from jaxdl.types import Array, Key, Model, Params

ErrorsFn = Callable[[Params, Params, Transition], Float[Array, " n"]]
"""`(params, target, transitions [n]) -> [n]`: temporal-difference errors, target minus estimate.

The argument `target` holds the parameters of the target net."""


def td_targets(
    transitions: Transition, after: Array, chooser: Array | None = None
) -> Float[Array, " n"]:
    """The targets for the values of transitions `[n]`: `reward + discount * value`.

    Args:
        transitions: their `discount` is 0 where the episode terminated, and only there.
        after: the target net's values `[n, actions]` of `next_obs`.
        chooser: values `[n, actions]` whose largest chooses the action. Double Q-learning gives
            those of the net itself. None takes `after`.

    Raises:
        InputError: if shapes are not as above, even if they would broadcast.
    """
    rewards = transitions.reward.shape
    if transitions.discount.shape != rewards or after.shape[:1] != rewards:
        raise InputError(
            f"rewards {list(rewards)}, discounts {list(transitions.discount.shape)} and values"
            f" {list(after.shape)} are not [n], [n] and [n, actions]: reshape them"
        )
    best = jnp.argmax(after if chooser is None else chooser, axis=1)
    return transitions.reward + transitions.discount * of_actions(after, best)


def of_actions(values: Float[Array, "n actions"], actions: Int[Array, " n"]) -> Float[Array, " n"]:
    """The values `[n]` of the actions `[n]`, one per row."""
    return jnp.take_along_axis(values, actions[:, None], axis=1)[:, 0]


def epsilon_greedy(
    key: Key, values: Float[Array, "n actions"], epsilon: ArrayLike
) -> Int[Array, " n"]:
    """Actions `[n]`: random with probability `epsilon`, else the best of values `[n, actions]`."""
    count, actions = values.shape
    chance, choice = jax.random.uniform(key, (2, count))
    anything, best = jnp.floor(choice * actions), jnp.argmax(values, axis=1)
    return jnp.where(chance < epsilon, anything.astype(jnp.int32), best.astype(jnp.int32))


def td_errors(net: Model, *, double: bool) -> ErrorsFn:
    """The temporal-difference errors of a net with a target net."""

    def errors(params: Params, target: Params, made: Transition) -> Float[Array, " n"]:
        # No gradient goes through the targets: they depend on `params` by an argmax alone.
        chooser = net.apply(params, made.next_obs) if double else None
        wanted = td_targets(made, net.apply(target, made.next_obs), chooser)
        return wanted - of_actions(net.apply(params, made.obs), made.action)

    return errors
