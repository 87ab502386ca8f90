"""Does Reptile learn to tell five new curves apart from one example of each?"""

import dataclasses
from typing import Any

import jax
import optax
from curves import curves
from reptile import reptile

import jaxdl


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 500
    """Meta-training steps."""
    tasks: int = 8
    """Tasks per step."""
    lr: float = 0.5
    """How far a step goes towards the adapted parameters."""
    inner_lr: float = 0.1
    """Step size inside a task."""
    inner_steps: int = 5
    """Steps inside a task."""
    seed: int = 0
    """First seed."""
    seeds: int = 2
    """How many seeds, from `seed` upward, train in one program."""
    run: jaxdl.RunFlags = dataclasses.field(default_factory=jaxdl.RunFlags)


def main(config: Config) -> dict[str, Any]:
    """Trains, or resumes, or reprints."""
    with jaxdl.open_run("curves", config) as run:
        result = run.result() or experiment(config, run)
    for seed, accuracy in enumerate(result["accuracy"], config.seed):
        print(f"seed {seed}: accuracy {accuracy:.4f} on new classes")
    return result


def experiment(config: Config, run: jaxdl.Run) -> dict[str, Any]:
    """The training and the test."""
    train, test = (
        jaxdl.few_shot(*curves(split), ways=5, shots=1, queries=5) for split in ("train", "test")
    )
    learner = reptile(
        jaxdl.mlp((64, 5)),
        jaxdl.cross_entropy,
        tx=optax.sgd(config.inner_lr),
        steps=config.inner_steps,
    )
    tx, keys = optax.sgd(config.lr), jaxdl.run_keys(config.seed, config.seeds)
    x = train(keys[0]).support.x
    state = jaxdl.init_states(lambda key: learner.init(key, x), keys, tx)
    last = run.train(
        jaxdl.make_step(jaxdl.over_tasks(learner.grad), tx),
        jaxdl.task_stream(train, config.tasks),
        keys,
        run.restore(state),
    )
    score = jaxdl.evaluate(learner, jaxdl.cross_entropy, test, episodes=200)
    scores = [score(jax.random.key(-1), params) for params in jaxdl.per_seed(last.params)]
    return run.finish({"accuracy": [found["accuracy"].mean() for found in scores]})


if __name__ == "__main__":
    jaxdl.command_line(main, Config)
