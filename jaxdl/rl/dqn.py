"""Deep Q-networks (Mnih et al. 2015, doi:10.1038/nature14236), acting and learning in one program.

    agent = dqn(env, net, optax.adam(1e-3), ring(capacity=50_000), epsilon=..., ...)
    state = agent.init(key)
    state, metrics = agent.step(key, state, ())

`train.loop` repeats the step. With `double`, the net chooses the action whose value the target net
gives (van Hasselt et al. 2016, arXiv:1509.06461). A prioritised memory (arXiv:1511.05952) corrects
by its weights and learns the errors; `jaxdl.models.dueling` makes a dueling net of the same kind.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxdl.errors import InputError
from jaxdl.grads import check_model
from jaxdl.replay.nstep import Step, Transition, Window, n_step
from jaxdl.rl.environment import Environment, auto_reset
from jaxdl.types import Array, Key, Metrics, Model, Params, PyTree, Replay, Sample, StepFn

LEAST_PRIORITY = 1e-6
"""Added to an error, so that what was learned well may be drawn again (epsilon of the paper)."""

UNBIASED = optax.constant_schedule(1.0)
"""The importance-sampling exponent whose weights undo all of the preference of a memory."""


class Play(NamedTuple):
    """Where `envs` episodes stand: states, observations, last steps, and sums of rewards `[envs]`,
    `running` of the episodes that go on and `finished` of those before them, 0 at first."""

    states: PyTree
    obs: Array
    windows: Window
    running: Array
    finished: Array


class DqnState(NamedTuple):
    """All that the next step needs: the nets, the memory and the environments."""

    step: Array
    params: Params
    target: Params
    opt_state: PyTree
    memory: Any
    play: Play


class Dqn(NamedTuple):
    """`init(key) -> DqnState`, a `StepFn` that looks at no batch, and two ways to look at a net.

    `greedy(params, obs [n, ...]) -> actions [n]`.
    `errors(params, target, transitions) -> [n]`: the temporal-difference errors of transitions
    `[n]`, target minus estimate, as the step computes them.
    """

    init: Callable[[Key], DqnState]
    step: StepFn
    greedy: Callable[[Params, Array], Array]
    errors: Callable[[Params, Params, Transition], Array]


def td_targets(transitions: Transition, after: Array, chooser: Array | None = None) -> Array:
    """What the values of transitions `[n]` are trained towards: `reward + discount * value`.

    Args:
        transitions: their `discount` is 0 where the episode terminated, and only there.
        after: the target net's values `[n, actions]` of `next_obs`.
        chooser: values `[n, actions]` of which the largest chooses the action: those of the net
            itself for double Q-learning; by default `after`.

    Raises:
        InputError: if the shapes are others: what would broadcast is refused.
    """
    rewards = transitions.reward.shape
    if transitions.discount.shape != rewards or after.shape[:1] != rewards:
        raise InputError(
            f"rewards {list(rewards)}, discounts {list(transitions.discount.shape)} and values"
            f" {list(after.shape)} are not [n], [n] and [n, actions]: reshape them"
        )
    best = jnp.argmax(after if chooser is None else chooser, axis=1)
    return transitions.reward + transitions.discount * of_actions(after, best)


def of_actions(values: Array, actions: Array) -> Array:
    """The values `[n]` of actions `[n]` among values `[n, actions]`."""
    return jnp.take_along_axis(values, actions[:, None], axis=1)[:, 0]


def epsilon_greedy(key: Key, values: Array, epsilon: Any) -> Array:
    """Actions `[n]`: any with probability `epsilon`, else the best of values `[n, actions]`."""
    count, actions = values.shape
    chance, choice = jax.random.uniform(key, (2, count))
    anything, best = jnp.floor(choice * actions), jnp.argmax(values, axis=1)
    return jnp.where(chance < epsilon, anything.astype(jnp.int32), best.astype(jnp.int32))


def dqn(
    env: Environment,
    net: Model,
    tx: optax.GradientTransformation,
    replay: Replay,
    *,
    epsilon: optax.Schedule,
    envs: int = 1,
    plays: int = 4,
    batch: int = 32,
    prefill: int = 1000,
    gamma: float = 0.99,
    returns: int = 1,
    target_every: int = 1,
    target_rate: float = 1.0,
    double: bool = False,
    delta: float = 1.0,
    is_exponent: optax.Schedule = UNBIASED,
) -> Dqn:
    """The agent. A step plays, remembers what it played, and learns once.

    Args:
        net: values `[n, actions]` of observations `[n, ...]`.
        epsilon: the share of random actions, by the step: `optax.linear_schedule(1, 0.05, 5000)`.
        envs: environments side by side, which begin anew where an episode ends.
        plays: actions in each of them before the net learns.
        batch: transitions that it learns from in a step.
        prefill: transitions of random play that the memory starts with, rounded up to `envs`.
        gamma: discount of a step.
        returns: steps whose rewards a transition adds up before it bootstraps.
        target_every, target_rate: after every so many steps the target net moves by this share of
            the way to the net. Copies every 100 steps: 100 and 1. Slowly always: 1 and 0.01.
        delta: the error beyond which Huber's loss is linear. The paper has 1, and rewards that are
            clipped to 1; where values are near 100, a loss with 1 hardly sees a rare failure.
        is_exponent: by the step, how far the weights of a prioritised memory correct, in [0, 1].
            The paper begins at 0.4 and ends at 1. It changes nothing for a uniform memory.

    Raises:
        InputError: if a number is out of range, or at `init` if the net does not fit the
            environment.
    """
    counts = {"envs": envs, "plays": plays, "batch": batch, "prefill": prefill}
    for name, count in {**counts, "target_every": target_every}.items():
        if count < 1:
            raise InputError(f"{name}={count}: choose at least 1")
    if not 0 < target_rate <= 1:
        raise InputError(f"target_rate={target_rate}: choose a share above 0, at most 1")
    if not 0 < delta < math.inf:
        raise InputError(f"delta={delta}: choose a number above 0")
    check_model(net)
    size = batch
    going_on, many = jax.vmap(auto_reset(env.reset, env.step)), n_step(steps=returns, gamma=gamma)

    def init(key: Key) -> DqnState:
        net_key, start_key, play_key, add_key = jax.random.split(key, 4)
        states, obs = jax.vmap(env.reset)(jax.random.split(start_key, envs))
        params = net.init(net_key, obs)
        values = jax.eval_shape(net.apply, params, obs)
        if values.shape != (envs, env.actions):
            raise InputError(
                f"the net gives {list(values.shape)} for {envs} observations; the environment has"
                f" {env.actions} actions, so give a net of [n, {env.actions}]"
            )
        no, zeros = jnp.zeros(envs, bool), jnp.zeros(envs)
        step = Step(obs, jnp.zeros(envs, jnp.int32), zeros, obs, no, no)
        start = Play(states, obs, jax.vmap(many.init)(step), zeros, zeros)
        # The first windows are not full: they are played on, and what they gave is dropped.
        rounds = -(-prefill // envs)
        played, made = play(play_key, params, start, 1.0, returns - 1 + rounds)
        made = jax.tree.map(lambda leaf: leaf[(returns - 1) * envs :], made)
        empty = replay.init(jax.tree.map(lambda leaf: leaf[0], made))
        memory = replay.add(add_key, empty, made)
        return DqnState(jnp.int32(0), params, params, tx.init(params), memory, played)

    def play(
        key: Key, params: Params, start: Play, epsilon: Any, steps: int
    ) -> tuple[Play, Transition]:
        """Actions in all environments, and transitions `[steps * envs]` in the order of time."""

        def once(now: Play, keys: Key) -> tuple[Play, Transition]:
            actions = epsilon_greedy(keys[0], net.apply(params, now.obs), epsilon)
            outcome, next_obs = going_on(keys[1:], now.states, actions)
            ends = outcome.terminated, outcome.truncated
            made = Step(now.obs, actions, outcome.reward, next_obs, *ends)
            windows, transitions, _ = jax.vmap(many.push)(now.windows, made)
            ended, total = ends[0] | ends[1], now.running + outcome.reward
            return Play(
                outcome.state,
                outcome.obs,
                windows,
                jnp.where(ended, 0, total),
                jnp.where(ended, total, now.finished),
            ), transitions

        played, made = lax.scan(once, start, jax.random.split(key, (steps, 1 + envs)))
        return played, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), made)

    def errors(params: Params, target: Params, made: Transition) -> Array:
        # No gradient goes through the targets: the largest of the chooser's values has none.
        chooser = net.apply(params, made.next_obs) if double else None
        wanted = td_targets(made, net.apply(target, made.next_obs), chooser)
        return wanted - of_actions(net.apply(params, made.obs), made.action)

    def learnt(state: DqnState, sample: Sample) -> tuple[DqnState, Array, Array]:
        """The state after an update, the errors `[batch]` before it, and their loss."""

        def loss(params: Params) -> tuple[Array, Array]:
            found = errors(params, state.target, sample.items)
            return jnp.mean(sample.weights * optax.huber_loss(found, delta=delta)), found

        (value, found), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        target = lax.cond(
            (state.step + 1) % target_every == 0,
            lambda: optax.incremental_update(params, state.target, target_rate),
            lambda: state.target,
        )
        after = state._replace(
            step=state.step + 1, params=params, target=target, opt_state=opt_state
        )
        return after, found, value

    def step(key: Key, state: DqnState, batch: Any) -> tuple[DqnState, Metrics]:
        del batch  # it makes its own
        play_key, add_key, sample_key = jax.random.split(key, 3)
        played, made = play(play_key, state.params, state.play, epsilon(state.step), plays)
        memory = replay.add(add_key, state.memory, made)
        sample = replay.sample(sample_key, memory, size, is_exponent=is_exponent(state.step))
        after, found, loss = learnt(state, sample)
        memory = replay.update(memory, sample.indices, jnp.abs(found) + LEAST_PRIORITY)
        metrics = {
            "loss": loss,
            "td_mean": found.mean(),
            "td_variance": found.var(),
            "return": played.finished.mean(),
        }
        return after._replace(memory=memory, play=played), metrics

    def greedy(params: Params, obs: Array) -> Array:
        return jnp.argmax(net.apply(params, obs), axis=1).astype(jnp.int32)

    return Dqn(init, step, greedy, errors)
