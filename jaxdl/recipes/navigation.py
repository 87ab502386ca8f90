"""The returns of a policy on new tasks, before and after gradient steps."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxdl.rl.maml_trpo import Draw, Recorded, halved, play, returns
from jaxdl.train.loop import per_seed
from jaxdl.types import Array, Key, Model, Params

Evaluation = Callable[[Key, Params, float], np.ndarray]
"""`(key, params [seeds, ...], rate) -> mean returns [seeds, tasks, steps + 1]`."""


def evaluate_goals(
    policy: Model, draw: Draw, draw_task: Callable[[Key], Array], *, steps: int, tasks: int
) -> Evaluation:
    """Evaluates a policy on `tasks` tasks, after 0 to `steps` gradient steps in each.

    The inner learning rate is `rate` in the first step and half of it later. The tasks are a
    function of the key alone, so all policies have the same tasks.
    """

    @jax.jit
    def run(key: Key, params: Params, rate: Any) -> Array:
        def one(key: Key) -> Array:
            task_key, play_key = jax.random.split(key)
            task = draw_task(task_key)
            return returns(play(policy, draw, halved(rate)(steps), play_key, params, task)[1])

        return jax.lax.map(one, jax.random.split(key, tasks), batch_size=min(20, tasks))

    def of_seeds(key: Key, params: Params, rate: float) -> np.ndarray:
        return np.stack([np.asarray(run(key, each, rate)) for each in per_seed(params)])

    return of_seeds


def play_goals(
    policy: Model, draw: Draw, rates: Array, keys: Key, params: Params, tasks: Array
) -> Recorded:
    """The trajectories of one seed's policy in tasks `[tasks, ...]`, with keys `[tasks]`."""

    @jax.jit
    @jax.vmap
    def run(key: Key, task: Array) -> Recorded:
        return play(policy, draw, rates, key, params, task)[1]

    return run(keys, tasks)
