"""MAML on 2-D point navigation: the first reinforcement learning of the paper (section 5.3.1).

A task is a goal in a square that the point does not see; it earns minus its distance at each of 100
steps. A policy plays 20 trajectories, takes a policy-gradient step on them and plays anew, up to
three times; what is learnt is the policy to start from, by TRPO over 20 tasks a meta-iteration
(arXiv:1703.03400, arXiv:1502.05477). Beside it stand the paper's baselines: one policy trained on
all tasks, and an untrained one, both with an inner rate chosen on validation tasks, and an oracle
that sees the goal. MAML's parameters are the best of training by the return after three steps on
validation tasks, the others' are the last; nothing was chosen on the test tasks.

Command: scripts/run navigation
Runtime: 428 s on 2 CPU cores
Result: mean return on 200 new goals after 0 / 1 / 2 / 3 steps, 3 seeds -41.4 / -12.9 / -3.9 / -4.0;
    the paper -40.4 / -11.7 / -3.3 / -3.2
"""

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.reports.navigation import DEPTHS, draw_curve, draw_paths, draw_returns, report
from jaxdl import parallel
from jaxdl.errors import InputError
from jaxdl.models.mlp import INITIALISERS, mlp
from jaxdl.report.intervals import mean_ci95, seeds_summary
from jaxdl.rl import point
from jaxdl.rl.gaussian import gaussian_policy
from jaxdl.rl.maml_trpo import Draw, Recorded, halved, play, returns, samples_of, trpo_step
from jaxdl.runs import cli
from jaxdl.runs.checks import above_zero, at_least, evaluated_at_log_points
from jaxdl.runs.run import Run, RunFlags, open_run
from jaxdl.runs.weights import started
from jaxdl.train.loop import per_seed
from jaxdl.train.steps import init_states
from jaxdl.train.streams import run_keys, task_stream
from jaxdl.types import Array, Key, Model, Params, TrainState

FINE_TUNING_RATES = (0.03, 0.1, 0.3, 1.0)
VALIDATION_TASKS = 40
TEST_KEY, VALIDATION_KEY, FIGURE_KEY = 1_000_001, 1_000_002, 1_000_003
"""Keys apart from all training seeds, the same for every method and seed."""


@dataclasses.dataclass(frozen=True)
class Config:
    method: tuple[Literal["maml", "pretrained", "random", "oracle"], ...] = (
        "maml",
        "pretrained",
        "random",
        "oracle",
    )
    """What stands side by side: MAML, one policy for all tasks, none, and one that sees goals."""
    steps: int = 100
    """Meta-iterations; the paper's text has up to 500, its code 100."""
    tasks: int = 20
    """Goals a meta-iteration."""
    trajectories: int = 20
    """Played of each goal before an inner step, and after the last."""
    inner_steps: int = 1
    """Gradient steps inside a training task."""
    inner_lr: float = 0.1
    """Size of the first inner step; later ones have half of it."""
    max_kl: float = 0.01
    """How far a meta-iteration may move the adapted policies, mean KL divergence."""
    thin: int = 5
    """TRPO's Hessian is taken over every so many steps of the trajectories."""
    discount: float = 0.99
    """Of rewards, for the learner; reported returns are not discounted."""
    hidden: int = 100
    """Units of each of the two hidden layers."""
    eval_every: int = 10
    """Meta-iterations between validations of MAML, a multiple of `log_every`."""
    test_tasks: int = 200
    """Goals of the final evaluation."""
    test_trajectories: int = 40
    """Played of each test goal before every inner step, and after the last."""
    init_from: Path | None = None
    """Start all policies but the oracle's, whose view is another, from these weights: a .npz of
    weights, or a part of a run, say DIRECTORY/maml, of whose seeds each starts one here."""
    init_except: tuple[str, ...] = ()
    """Layers that start anew all the same."""
    seed: int = 0
    """First seed."""
    seeds: int = 3
    """How many seeds, from `seed` upward, train in one program."""
    run: RunFlags = dataclasses.field(default_factory=partial(RunFlags, log_every=5))


def main(config: Config) -> dict[str, Any]:
    """Trains, or resumes, or reprints; returns what result.json holds."""
    check(config)
    parallel.start(config.run.coordinator, config.run.processes, config.run.process)
    with open_run("navigation", config) as run:
        result = run.result() or experiment(config, run)
    print(report(result))
    return result


def check(config: Config) -> None:
    """Refuses what cannot be meant, before anything is compiled."""
    at_least(config, 1, "steps", "tasks", "inner_steps", "hidden", "thin", "seeds", "eval_every")
    at_least(config, 2, "trajectories", "test_tasks", "test_trajectories")
    at_least(config, 0, "seed", most=TEST_KEY - 1 - config.seeds)
    above_zero(config, "inner_lr", "max_kl", "discount")
    at_least(config, 0, "discount", most=1)
    if not config.method or len(set(config.method)) < len(config.method):
        raise InputError("--method: name each method at most once, and one at least")
    at_least(config.run, 1, "log_every")
    evaluated_at_log_points(config)


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """The trainings, their evaluation and the pictures."""
    params, rates, measured, chosen = {}, {}, {}, {}
    for name in config.method:
        environment = environment_of(name)
        params[name] = (
            start(config, environment).params
            if name == "random"
            else train(config, run.part(name), environment, config.inner_steps * (name == "maml"))
        )
    if "maml" in params:
        # The third step may spoil what a later, more certain policy has learnt in the second.
        params["maml"], chosen["maml"] = run.part("maml").best(params["maml"])
    for name, learnt in params.items():
        environment = environment_of(name)
        steps = 0 if name == "oracle" else max(DEPTHS)
        if steps:
            rates[name] = config.inner_lr if name == "maml" else best_rate(config, learnt)
        measured[name] = test(config, environment, learnt, rates.get(name, 0.0), steps)
    result = {
        "methods": {name: summary(found) for name, found in measured.items()},
        "inner_rates": rates,
        "chosen_steps": chosen,
        "split": "test and validation goals drawn anew, by keys that no training has",
        "batch_norm": "none",
        "config": dataclasses.asdict(config),
    }
    draw_pictures(config, run, params, result)
    return run.finish(result)


def environment_of(method: str) -> Any:
    """The environments that a method plays in."""
    return point.informed if method == "oracle" else point.environment


def policy_of(config: Config) -> Model:
    """The paper's: two layers of ReLUs, and one deviation for all places."""
    net = mlp((config.hidden, config.hidden, 2), kernel_init=INITIALISERS["glorot"])
    return gaussian_policy(net, actions=2)


def draw_of(config: Config, environment: Any, trajectories: int) -> Draw:
    """Trajectories of the policy, with the learner's advantages."""
    return samples_of(
        policy_of(config),
        environment,
        trajectories=trajectories,
        horizon=point.LIMIT,
        discount=config.discount,
    )


def start(config: Config, environment: Any) -> Any:
    """The state of all seeds before the first step; its optimiser has none."""
    _, seen = environment(jnp.zeros(2))[0](jax.random.key(0))
    state = init_states(
        lambda key: policy_of(config).init(key, seen[None]),
        run_keys(config.seed, config.seeds),
        optax.identity(),
    )
    given = None if environment is point.informed else config.init_from
    return started(state, given, config.init_except)


def train(config: Config, run: Run, environment: Any, inner_steps: int) -> Params:
    """Meta-trains all seeds in one program; the parameters have a leading axis `[seeds]`."""
    devices = parallel.count_devices(config.run.devices)
    step = trpo_step(
        policy_of(config),
        draw_of(config, environment, config.trajectories),
        rates=halved(config.inner_lr),
        steps=inner_steps,
        thin=config.thin,
        max_kl=config.max_kl,
        axis_name=parallel.axis_name(devices),
    )
    stream = task_stream(point.draw_goal, config.tasks)
    keys = run_keys(config.seed, config.seeds)
    state = run.restore(start(config, environment))
    last = run.train(
        step,
        stream,
        keys,
        state,
        validate=partial(validation, config) if inner_steps else None,
        eval_every=config.eval_every,
        best="return",
        tasks=config.tasks,
        devices=devices,
    )
    return last.params


def validation(config: Config, state: TrainState) -> dict[str, np.ndarray]:
    """The mean return of MAML after three steps on validation goals, by seed."""
    run = evaluation(config, point.environment, max(DEPTHS), VALIDATION_TASKS)
    key = jax.random.key(VALIDATION_KEY)
    found = [run(key, each, config.inner_lr)[:, -1] for each in per_seed(state.params)]
    return {"return": np.mean(found, axis=1)}


@cache
def evaluation(
    config: Config, environment: Any, steps: int, tasks: int
) -> Callable[[Key, Params, Any], Array]:
    """A compiled `(key, params of a seed, rate) -> mean returns [tasks, steps + 1]`."""
    policy, draw = policy_of(config), draw_of(config, environment, config.test_trajectories)

    @jax.jit
    def run(key: Key, params: Params, rate: Any) -> Array:
        def one(key: Key) -> Array:
            goal_key, play_key = jax.random.split(key)
            goal = point.draw_goal(goal_key)
            return returns(play(policy, draw, halved(rate)(steps), play_key, params, goal)[1])

        return jax.lax.map(one, jax.random.split(key, tasks), batch_size=min(20, tasks))

    return run


def test(config: Config, environment: Any, params: Params, rate: float, steps: int) -> np.ndarray:
    """Mean returns `[seeds, tasks, steps + 1]` on the test goals."""
    run, key = evaluation(config, environment, steps, config.test_tasks), jax.random.key(TEST_KEY)
    return np.stack([np.asarray(run(key, each, rate)) for each in per_seed(params)])


def best_rate(config: Config, params: Params) -> float:
    """The inner rate with the highest return after three steps, on validation goals."""
    run = evaluation(config, point.environment, max(DEPTHS), VALIDATION_TASKS)
    key = jax.random.key(VALIDATION_KEY)
    found = [
        np.mean([run(key, each, rate)[:, -1] for each in per_seed(params)])
        for rate in FINE_TUNING_RATES
    ]
    return FINE_TUNING_RATES[int(np.argmax(np.nan_to_num(found, nan=-np.inf)))]


def summary(found: np.ndarray) -> list[dict[str, Any]]:
    """By depth: mean and interval over seeds, and the half width over tasks of their means."""
    return [
        seeds_summary(of_depth.mean(axis=1))
        | {"ci95_tasks": float(mean_ci95(of_depth.mean(axis=0))[1])}
        for of_depth in np.moveaxis(found, 2, 0)
    ]


def draw_pictures(config: Config, run: Run, params: Params, result: dict[str, Any]) -> None:
    """Paths of two tasks before and after steps, returns by steps, and the learning curves."""
    goals = jnp.array([[0.35, 0.3], [-0.4, 0.1]])
    keys = jax.random.split(jax.random.key(FIGURE_KEY), len(goals))
    policy, draw = policy_of(config), draw_of(config, point.environment, config.trajectories)
    rates = halved(config.inner_lr)(max(DEPTHS))

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0, 0))
    def paths(params: Params, key: Key, goal: Array) -> Recorded:
        return play(policy, draw, rates, key, params, goal)[1]

    if "maml" in params:
        played = paths(per_seed(params["maml"])[0], keys, goals)
        run.picture("paths", partial(draw_paths, goals, played), size=(11, 6))
    run.picture("returns", partial(draw_returns, result), size=(6, 4.5))
    curves = {name: run.part(name).metrics("train") for name in params if name != "random"}
    run.picture("learning_curve", partial(draw_curve, curves), size=(7, 4.5))


if __name__ == "__main__":
    cli.command_line(main, Config)
