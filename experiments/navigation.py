"""MAML on 2-D point navigation: the first reinforcement learning of the paper (section 5.3.1).

A task is a goal in a square. The policy does not observe the goal. The reward of each of 100 steps
is minus the distance to it. A policy plays 20 trajectories and takes a policy-gradient step on
them, up to three times. MAML learns the initial policy, by TRPO over 20 tasks per meta-iteration
(arXiv:1703.03400, arXiv:1502.05477). The baselines are the paper's: one policy trained on all
tasks, an untrained policy, and an oracle that observes the goal. The inner learning rate of the
first two is chosen on validation tasks. MAML reports its best parameters on validation tasks. The
other methods report their last parameters.

Command: scripts/run navigation
Runtime: 13 minutes on 2 CPU cores
Result: mean return on 200 new goals after 0 / 1 / 2 / 3 steps, 3 seeds -41.3 / -12.5 / -3.9 / -4.1;
    the paper -40.4 / -11.7 / -3.3 / -3.2
"""

import dataclasses
from functools import cache, partial
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.reports.navigation import DEPTHS, METHODS, draw_pictures, report, summary
from jaxdl import parallel
from jaxdl.models.mlp import INITIALISERS, mlp
from jaxdl.recipes.navigation import Evaluation, evaluate_goals, play_goals
from jaxdl.recipes.rates import highest
from jaxdl.rl import point
from jaxdl.rl.gaussian import gaussian_policy
from jaxdl.rl.maml_trpo import Draw, halved, samples_of, trpo_step
from jaxdl.runs import cli
from jaxdl.runs.config import (
    AtLeastTwo,
    Count,
    Positive,
    Range,
    RunFlags,
    Seeds,
    Start,
    each_once,
    flat,
    seeds_below,
)
from jaxdl.runs.experiment import run_experiment
from jaxdl.runs.run import Run
from jaxdl.runs.weights import started
from jaxdl.train.steps import init_states
from jaxdl.train.streams import run_keys, task_stream
from jaxdl.types import Model, Params, TrainState

RATES = (0.03, 0.1, 0.3, 1.0)
VALIDATION_TASKS = 40
ENVIRONMENTS = {"oracle": point.informed}
"""The environments of methods that do not have `point.environment`."""
TEST_KEY, VALIDATION_KEY = 1_000_001, 1_000_002
"""Keys that no training seed has. They are the same for every method and seed."""


@dataclasses.dataclass(frozen=True)
class Config:
    method: tuple[Literal["maml", "pretrained", "random", "oracle"], ...] = (
        "maml",
        "pretrained",
        "random",
        "oracle",
    )
    """Methods to compare: MAML, one policy for all tasks, an untrained policy, and the oracle."""
    steps: Count = 100
    """Meta-iterations. The paper's text has up to 500, its code 100."""
    tasks: Count = 20
    """Goals per meta-iteration."""
    trajectories: AtLeastTwo = 20
    """Trajectories per goal before each inner step, and after the last one."""
    inner_steps: Count = 1
    """Inner gradient steps per training task."""
    inner_lr: Positive = 0.1
    """Learning rate of the first inner step. Later steps have half of it."""
    max_kl: Positive = 0.01
    """Largest mean KL divergence by which a meta-iteration moves the adapted policies."""
    thin: Count = 5
    """TRPO's Hessian uses every --thin-th step of the trajectories."""
    discount: Annotated[float, Range(0, 1, above=True)] = 0.99
    """Discount of rewards in training. Reported returns are not discounted."""
    hidden: Count = 100
    """Units of each of the two hidden layers."""
    eval_every: Count = 10
    """Meta-iterations between validations of MAML, a multiple of --log-every."""
    test_tasks: AtLeastTwo = 200
    """Goals of the final evaluation."""
    test_trajectories: AtLeastTwo = 40
    """Trajectories per test goal before each inner step, and after the last one."""
    start: Start = Start()
    """Weights that all policies start from, except the oracle's, because it has other inputs. For a
    run, give the directory of one method, for example DIRECTORY/maml."""
    random: Seeds = Seeds(seeds=3)
    run: RunFlags = dataclasses.field(default_factory=partial(RunFlags, log_every=5))


def main(config: Config) -> dict[str, Any]:
    """Trains, resumes or reprints, and returns the content of result.json."""
    return run_experiment("navigation", config, experiment, report, check=check)


def check(config: Config) -> None:
    """Validates the configuration."""
    each_once("method", config.method, METHODS)
    seeds_below(config.random, TEST_KEY)


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """Trains and evaluates all methods, and draws the pictures."""
    params: dict[str, Params] = {}
    rates, measured, chosen = {}, {}, {}
    for name in config.method:
        environment = ENVIRONMENTS.get(name, point.environment)
        params[name] = (
            start(config, environment).params
            if name == "random"
            else train(config, run.part(name), environment, config.inner_steps * (name == "maml"))
        )
    if "maml" in params:
        # The third step may spoil what a later, more certain policy has learnt in the second.
        params["maml"], chosen["maml"] = run.part("maml").best(params["maml"])
    for each, learnt in params.items():
        steps = 0 if each == "oracle" else max(DEPTHS)
        if steps:
            rates[each] = config.inner_lr if each == "maml" else best_rate(config, learnt)
        environment = ENVIRONMENTS.get(each, point.environment)
        test = evaluation(config, environment, steps, config.test_tasks)
        measured[each] = test(jax.random.key(TEST_KEY), learnt, rates.get(each, 0.0))
    result = {
        "methods": {name: summary(found) for name, found in measured.items()},
        "inner_rates": rates,
        "chosen_steps": chosen,
        "split": "test and validation goals drawn anew, by keys that no training has",
        "batch_norm": "none",
        "config": flat(config),
    }
    play = partial(
        play_goals, policy_of(config), draw_of(config, point.environment, config.trajectories)
    )
    draw_pictures(run, params, result, partial(play, halved(config.inner_lr)(max(DEPTHS))))
    return run.finish(result)


def policy_of(config: Config) -> Model:
    """The paper's policy: two hidden layers of ReLUs, and one deviation for all observations."""
    net = mlp((config.hidden, config.hidden, 2), kernel_init=INITIALISERS["glorot"])
    return gaussian_policy(net, actions=2)


def draw_of(config: Config, environment: Any, trajectories: int) -> Draw:
    """Trajectories of the policy, with the learner's advantages."""
    options: dict[str, Any] = {"horizon": point.LIMIT, "discount": config.discount}
    return samples_of(policy_of(config), environment, trajectories=trajectories, **options)


def start(config: Config, environment: Any) -> Any:
    """The state of all seeds before the first step. TRPO has no optimiser state."""
    _, seen = environment(jnp.zeros(2))[0](jax.random.key(0))
    keys = run_keys(config.random.seed, config.random.seeds)
    init = lambda key: policy_of(config).init(key, seen[None])  # noqa: E731
    given = None if environment is point.informed else config.start.init_from
    return started(init_states(init, keys, optax.identity()), given, config.start.init_except)


def train(config: Config, run: Run, environment: Any, inner_steps: int) -> Params:
    """Meta-trains all seeds in one program. The parameters have a leading axis `[seeds]`."""
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
    return run.train(
        step,
        task_stream(point.draw_goal, config.tasks),
        run_keys(config.random.seed, config.random.seeds),
        run.restore(start(config, environment)),
        validate=partial(validation, config) if inner_steps else None,
        eval_every=config.eval_every,
        best="return",
        devices=devices,
    ).params


@cache
def evaluation(config: Config, environment: Any, steps: int, tasks: int) -> Evaluation:
    """`(key, params [seeds], rate) -> mean returns [seeds, tasks, steps + 1]`."""
    draw = draw_of(config, environment, config.test_trajectories)
    return evaluate_goals(policy_of(config), draw, point.draw_goal, steps=steps, tasks=tasks)


def validation(config: Config, state: TrainState) -> dict[str, np.ndarray]:
    """The mean return of MAML per seed, after three steps on validation goals."""
    run = evaluation(config, point.environment, max(DEPTHS), VALIDATION_TASKS)
    found = run(jax.random.key(VALIDATION_KEY), state.params, config.inner_lr)[..., -1]
    return {"return": np.mean(found, axis=1)}


def best_rate(config: Config, params: Params) -> float:
    """The inner learning rate with the highest return after three steps, on validation goals."""
    run = evaluation(config, point.environment, max(DEPTHS), VALIDATION_TASKS)
    returns = partial(run, jax.random.key(VALIDATION_KEY), params)
    return highest(RATES, [float(np.mean(returns(rate)[..., -1])) for rate in RATES])


if __name__ == "__main__":
    cli.command_line(main, Config)
