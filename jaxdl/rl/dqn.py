"""Deep Q-networks (Mnih et al. 2015, doi:10.1038/nature14236), acting and learning in one program.

    agent = dqn(env, net, optax.adam(1e-3), ring(capacity=50_000), epsilon=..., ...)
    state = agent.init(key)
    state, metrics = agent.step(key, state, ())

`train.loop` repeats the step. With `double`, the net chooses the action whose value the target net
gives (van Hasselt et al. 2016, arXiv:1509.06461). With a prioritised memory (arXiv:1511.05952), its
weights correct the loss, and the errors become its priorities. `jaxdl.models.dueling` makes a
dueling net.

`dqn` joins four parts, each a function that makes a function: `playing`, `learning`, `repeating`
and `jaxdl.rl.q_values.td_errors`. A variant replaces one part and keeps the others.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Shaped

from jaxdl.errors import InputError
from jaxdl.grads import check_model
from jaxdl.replay import nstep
from jaxdl.replay.nstep import NStep, Step, Transition, Window
from jaxdl.rl.environment import Environment, auto_reset
from jaxdl.rl.q_values import ErrorsFn, epsilon_greedy, td_errors
from jaxdl.types import (
    Array,
    Count,
    Key,
    Metrics,
    Model,
    Params,
    PyTree,
    Replay,
    Sample,
    Scalar,
    StepFn,
)

LEAST_PRIORITY = 1e-6
"""Added to an error, so that a transition with error 0 may be drawn again (the paper's epsilon)."""

UNBIASED = optax.constant_schedule(1.0)
"""The importance-sampling exponent 1, whose weights correct the memory's probabilities in full."""


class Play(NamedTuple):
    """The current states, observations and last steps of `envs` episodes.

    `running` and `finished` are sums of rewards `[envs]`: of the current episodes, and of the last
    finished ones (0 at first).
    """

    states: PyTree
    obs: Shaped[Array, "envs ..."]
    windows: Window
    running: Float[Array, " envs"]
    finished: Float[Array, " envs"]


class DqnState(NamedTuple):
    """All that the next step needs: the nets, the memory and the environments."""

    step: Count
    params: Params
    target: Params
    opt_state: PyTree
    memory: PyTree
    play: Play


class PlayFn(Protocol):
    """Plays `steps` actions in all environments: `(key, params, start, epsilon, steps)`.

    It returns the new `Play`, and transitions `[steps * envs]` in the order of time.
    """

    def __call__(
        self, key: Key, params: Params, start: Play, epsilon: ArrayLike, steps: int, /
    ) -> tuple[Play, Transition]: ...


LearnFn = Callable[[DqnState, Sample], tuple[DqnState, Float[Array, " n"], Scalar]]
"""`(state, sample) -> (state, errors, loss)`: one update. Errors and loss are from before it."""


class Dqn(NamedTuple):
    """The agent: `init(key) -> DqnState`, a `StepFn` that ignores its batch, and two functions.

    `greedy(params, obs [n, ...]) -> actions [n]`.
    `errors(params, target, transitions) -> [n]`: the temporal-difference errors of transitions
    `[n]`, target minus estimate, as the step computes them.
    """

    init: Callable[[Key], DqnState]
    step: StepFn
    greedy: Callable[[Params, Shaped[Array, "n ..."]], Int[Array, " n"]]
    errors: ErrorsFn


def dqn(
    env: Environment,
    net: Model,
    tx: optax.GradientTransformation,
    replay: Replay,
    *,
    epsilon: optax.Schedule,
    envs: int = 1,
    steps_per_update: int = 4,
    replay_batch_size: int = 32,
    learning_starts: int = 1000,
    gamma: float = 0.99,
    n_step: int = 1,
    target_every: int = 1,
    target_rate: float = 1.0,
    double: bool = False,
    huber_delta: float = 1.0,
    is_exponent: optax.Schedule = UNBIASED,
) -> Dqn:
    """The agent. A step plays, stores the transitions in the memory, and updates the net once.

    Args:
        net: values `[n, actions]` of observations `[n, ...]`.
        epsilon: share of random actions by step, such as `optax.linear_schedule(1, 0.05, 5000)`.
        envs: number of environments. Each is reset when its episode ends.
        steps_per_update: actions per environment between updates of the net.
        replay_batch_size: transitions per update.
        learning_starts: transitions of random play in the memory before the first update, rounded
            up to a multiple of `envs`.
        gamma: discount per step.
        n_step: number of rewards that a transition sums before it bootstraps.
        target_every, target_rate: every `target_every` steps the target net moves to the net by
            the share `target_rate`. 100 and 1 copy the net every 100 steps. 1 and 0.01 average it.
        huber_delta: Huber's loss is linear for errors above it. The paper has 1, with rewards
            clipped to 1. If values are near 100, a rare failure has little effect on a loss with 1.
        is_exponent: importance-sampling exponent by step, in [0, 1], for a prioritised memory. The
            paper begins at 0.4 and ends at 1. A uniform memory ignores it.

    Raises:
        InputError: if a number is out of range, or at `init` if the net does not fit the
            environment.

    >>> import jax, optax, jaxdl
    >>> from jaxdl.rl.cartpole import cart_pole
    >>> agent = jaxdl.dqn(
    ...     cart_pole(), jaxdl.mlp((8, 2)), optax.adam(1e-3), jaxdl.ring(capacity=50),
    ...     epsilon=optax.constant_schedule(0.1), learning_starts=10, replay_batch_size=4,
    ... )
    >>> state = jax.eval_shape(agent.init, jax.random.key(0))  # or agent.init, which plays
    >>> state, metrics = jax.eval_shape(agent.step, jax.random.key(1), state, ())
    >>> sorted(metrics), state.memory.items.obs.shape
    (['loss', 'return', 'td_mean', 'td_variance'], (50, 4))
    """
    counts = {"envs": envs, "steps_per_update": steps_per_update, "n_step": n_step}
    counts |= {"replay_batch_size": replay_batch_size, "learning_starts": learning_starts}
    _check(counts | {"target_every": target_every}, target_rate, huber_delta)
    check_model(net)
    window = nstep.n_step(steps=n_step, gamma=gamma)
    play, errors = playing(env, net, window), td_errors(net, double=double)
    learn = learning(
        errors, tx, huber_delta=huber_delta, target_every=target_every, target_rate=target_rate
    )
    step = repeating(
        play,
        replay,
        learn,
        epsilon=epsilon,
        is_exponent=is_exponent,
        steps_per_update=steps_per_update,
        replay_batch_size=replay_batch_size,
    )

    def init(key: Key) -> DqnState:
        net_key, start_key, play_key, add_key = jax.random.split(key, 4)
        start = first_play(start_key, env, window, envs)
        params = net.init(net_key, start.obs)
        _check_net(net, params, start.obs, env.actions)
        # The first windows are not full, so the transitions of these `early` steps are dropped.
        early, rounds = n_step - 1, -(-learning_starts // envs)
        played, made = play(play_key, params, start, 1.0, early + rounds)
        made = jax.tree.map(lambda leaf: leaf[early * envs :], made)
        empty = replay.init(jax.tree.map(lambda leaf: leaf[0], made))
        memory = replay.add(add_key, empty, made)
        target = jax.tree.map(jnp.copy, params)  # to be donated apart
        return DqnState(jnp.int32(0), params, target, tx.init(params), memory, played)

    def greedy(params: Params, obs: Shaped[Array, "n ..."]) -> Int[Array, " n"]:
        return jnp.argmax(net.apply(params, obs), axis=1).astype(jnp.int32)

    return Dqn(init, step, greedy, errors)


def first_play(key: Key, env: Environment, window: NStep, envs: int) -> Play:
    """The starts of `envs` episodes, with empty windows."""
    states, obs = jax.vmap(env.reset)(jax.random.split(key, envs))
    no, zeros = jnp.zeros(envs, bool), jnp.zeros(envs)
    step = Step(obs, jnp.zeros(envs, jnp.int32), zeros, obs, no, no)
    return Play(states, obs, jax.vmap(window.init)(step), zeros, zeros)


def playing(env: Environment, net: Model, window: NStep) -> PlayFn:
    """Epsilon-greedy play by the values of `net`, as transitions of `window`."""
    going_on = jax.vmap(auto_reset(env.reset, env.step))

    def play(
        key: Key, params: Params, start: Play, epsilon: ArrayLike, steps: int
    ) -> tuple[Play, Transition]:
        # One action per environment. The leaves of `now` and of the transitions are [envs, ...].
        def once(now: Play, keys: Key) -> tuple[Play, Transition]:
            actions = epsilon_greedy(keys[0], net.apply(params, now.obs), epsilon)
            outcome, next_obs = going_on(keys[1:], now.states, actions)
            ends = outcome.terminated, outcome.truncated
            made = Step(now.obs, actions, outcome.reward, next_obs, *ends)
            windows, transitions, _ = jax.vmap(window.push)(now.windows, made)
            ended, total = ends[0] | ends[1], now.running + outcome.reward
            return Play(
                outcome.state,
                outcome.obs,
                windows,
                jnp.where(ended, 0, total),
                jnp.where(ended, total, now.finished),
            ), transitions

        envs = start.running.shape[0]
        played, made = lax.scan(once, start, jax.random.split(key, (steps, 1 + envs)))
        # From [steps, envs, ...] to [steps * envs, ...], in the order of time.
        return played, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), made)

    return play


def learning(
    errors: ErrorsFn,
    tx: optax.GradientTransformation,
    *,
    huber_delta: float,
    target_every: int,
    target_rate: float,
) -> LearnFn:
    """The update: `tx` lowers the weighted Huber loss of the net, and the target net moves."""

    def learn(state: DqnState, sample: Sample) -> tuple[DqnState, Float[Array, " n"], Scalar]:
        def loss(params: Params) -> tuple[Scalar, Float[Array, " n"]]:
            each = errors(params, state.target, sample.items)
            return jnp.mean(sample.weights * optax.huber_loss(each, delta=huber_delta)), each

        (value, each), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
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
        return after, each, value

    return learn


def repeating(
    play: PlayFn,
    replay: Replay,
    learn: LearnFn,
    *,
    epsilon: optax.Schedule,
    is_exponent: optax.Schedule,
    steps_per_update: int,
    replay_batch_size: int,
) -> StepFn:
    """The training step: play, store, learn from a sample, and update the priorities."""

    def step(key: Key, state: DqnState, batch: PyTree) -> tuple[DqnState, Metrics]:
        del batch  # the memory provides the batch
        play_key, add_key, sample_key = jax.random.split(key, 3)
        explore = epsilon(state.step)
        played, made = play(play_key, state.params, state.play, explore, steps_per_update)
        # `add` comes before `sample`, because only then does XLA write the memory in place.
        memory = replay.add(add_key, state.memory, made)
        correct = is_exponent(state.step)
        sample = replay.sample(sample_key, memory, replay_batch_size, is_exponent=correct)
        after, errors, loss = learn(state, sample)
        memory = replay.update(memory, sample.indices, jnp.abs(errors) + LEAST_PRIORITY)
        metrics = {
            "loss": loss,
            "td_mean": errors.mean(),
            "td_variance": errors.var(),
            "return": played.finished.mean(),
        }
        return after._replace(memory=memory, play=played), metrics

    return step


def _check(counts: dict[str, int], target_rate: float, huber_delta: float) -> None:
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name}={count}: choose at least 1")
    if not 0 < target_rate <= 1:
        raise InputError(f"target_rate={target_rate}: choose a share above 0, at most 1")
    if not 0 < huber_delta < math.inf:
        raise InputError(f"huber_delta={huber_delta}: choose a number above 0")


def _check_net(net: Model, params: Params, obs: Shaped[Array, "n ..."], actions: int) -> None:
    values, envs = jax.eval_shape(net.apply, params, obs), obs.shape[0]
    if values.shape != (envs, actions):
        raise InputError(
            f"the net gives {list(values.shape)} for {envs} observations; the environment has"
            f" {actions} actions, so give a net of [n, {actions}]"
        )
