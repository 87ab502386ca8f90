"""The parts of an experiment around Q-learning agents: held-out play, evaluation and start."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from jaxdl.models.mlp import mlp
from jaxdl.replay.nstep import Transition
from jaxdl.replay.uniform import Memory, ring
from jaxdl.rl.dqn import Dqn, DqnState, dqn
from jaxdl.rl.environment import Environment
from jaxdl.rl.rollout import episode_returns
from jaxdl.runs.config import Start
from jaxdl.runs.weights import from_weights
from jaxdl.types import Key, Metrics, Sample

Evaluation = Callable[[Key, DqnState], Metrics]
"""`(key, state of all seeds) -> metrics [seeds]`."""


def everything(key: Key, state: Memory, count: int, *, is_exponent: ArrayLike = 1.0) -> Sample:
    """A `sample` of a memory that returns all of its items once, without a draw."""
    del key, is_exponent  # nothing is drawn
    return Sample(state.items, jnp.ones(count), jnp.arange(count, dtype=jnp.int32))


def random_play(env: Environment, *, key: Key, count: int, gamma: float) -> Transition:
    """Single-step transitions `[count]` of random actions, in 20 environments."""
    agent = dqn(
        env,
        mlp((env.actions,)),
        optax.identity(),
        ring(capacity=count),
        epsilon=optax.constant_schedule(1.0),
        envs=20,
        learning_starts=count,
        gamma=gamma,
    )
    made: Transition = jax.jit(agent.init)(key).memory.items
    return made


def evaluation_of(
    env: Environment, agent: Dqn, held_out: Transition, *, episodes: int
) -> Evaluation:
    """The mean return of greedy episodes, and mean and variance of the temporal-difference errors.

    With one key, the episodes have the same starts for all seeds. The errors are on `held_out`.
    """

    @jax.jit
    def of_seeds(key: Key, held_out: Transition, nets: Any) -> Metrics:
        def of_seed(nets: Any) -> Metrics:
            params, target = nets
            errors = agent.errors(params, target, held_out)
            act = partial(agent.greedy, params)
            returns = episode_returns(key, env, act, episodes=episodes)
            return {
                "return": returns.mean(),
                "td_mean": errors.mean(),
                "td_variance": errors.var(),
            }

        return lax.map(of_seed, nets)

    return lambda key, state: of_seeds(key, held_out, (state.params, state.target))


def start(agent: Dqn, keys: Key, weights: Start) -> DqnState:
    """The state of all seeds before the first step. Target nets start equal to the nets."""
    state: DqnState = jax.jit(lambda keys: lax.map(agent.init, keys))(keys)
    params, _ = from_weights(weights.init_from, weights.init_except, state.params)
    return state._replace(step=jnp.int32(0), params=params, target=params)
