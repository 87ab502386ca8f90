"""Neural processes on pictures: from a few pixels of an MNIST digit they predict all others.

A task is a picture. An input is the place of a pixel, row and column from -1 to 1. A target is its
grey value, from -0.5 to 0.5. The test has pictures of the test set, which training never sees. All
pixels are predicted, and those that are not given count. Two baselines train nothing: the mean
picture, and the nearest pixel that is given.

The recipe is that of the code of TNP (arXiv:2207.04179) for EMNIST: these scales, 3 to 196 random
pixels given, at most 199 in all, Adam with 0.0005 along a cosine. Four things differ. TNP takes 100
pictures per step for 200 epochs, which are 120,000 steps of MNIST; the defaults are 16 and 20,000.
It draws the number of pixels per step, and here each picture has its own. Its CANP for pictures is
a layer deeper than that for curves, which is ours. Its TNP-D has scales of at least 0.05, and here
all learners have 0.1, so that they compare.

Recalled, not checked: CNP (arXiv:1807.01613) is tested with 10, 100 and 1,000 pixels of faces, by
the squared error of all pixels, beside nearest neighbours and a Gaussian process. ANP
(arXiv:1901.05761) has the scales of TNP.

Command: scripts/run regression_2d --learner cnp
Runtime: 14 minutes for 8,000 of the 20,000 steps, on one CPU core beside another training
Result: CNP, 1 seed, 8,000 steps: log-likelihood per pixel 0.43, 0.65 and 0.71 with 10, 100 and 300
pixels given; the mean picture has 0.46 (docs/results.md)
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax

from experiments.reports._processes import draw_curve
from experiments.reports.regression_2d import draw_pictures, report
from jaxdl.data.sets.completion import completion
from jaxdl.data.sets.images import image_arrays
from jaxdl.errors import InputError
from jaxdl.losses import gaussian_nll
from jaxdl.meta.base import evaluate
from jaxdl.meta.cnp import cnp
from jaxdl.recipes.choice import Choice, find, from_arguments, own_keywords
from jaxdl.recipes.completion import CHUNK, Images, mean_picture, nearest_pixel
from jaxdl.recipes.curves import learner_of_curves, measure_of, summary, trained
from jaxdl.recipes.learners import COMPLETERS
from jaxdl.runs import cli
from jaxdl.runs.config import (
    AtLeastTwo,
    Count,
    Natural,
    Positive,
    Range,
    RunFlags,
    Seeds,
    Start,
    flat,
    seeds_below,
)
from jaxdl.runs.experiment import run_experiment
from jaxdl.runs.run import Run, say
from jaxdl.train.loop import per_seed
from jaxdl.types import MetaLearner, Params, Sampler

TEST_KEY, SCALE_KEY, FIGURE_KEY = 1_000_001, 1_000_002, 1_000_003
"""Keys apart from all training seeds, the same for every learner and seed."""
PIXELS, SHOWN = 28 * 28, 5
"""Pixels of a picture, and pictures that are drawn."""


@dataclasses.dataclass(frozen=True)
class Config:
    learner: str = "cnp"
    """Learner: cnp, canp, lnp, anp, tnp_d, or path/to/mine.py:my_learner. Each has flags of its
    own."""
    points: Annotated[int, Range(6, PIXELS)] = 199
    """Most pixels of a training task. From 3 to 3 less than this are given."""
    context: tuple[Annotated[int, Range(1, PIXELS - 1)], ...] = (10, 100, 300)
    """Random pixels that are given in the test."""
    steps: Count = 20_000
    """Training steps."""
    tasks: Count = 16
    """Pictures per step."""
    lr: Positive = 0.0005
    """Learning rate of Adam at the start. It falls to 0 along a cosine."""
    decay_steps: Natural = 0
    """Steps until the learning rate is 0. 0: those of the training."""
    method: Any = dataclasses.field(default_factory=own_keywords(cnp))
    test_tasks: AtLeastTwo = 1000
    """Pictures of the final evaluation, for each number of given pixels."""
    data_dir: Path | None = None
    """Folder of prepared data. By default JAXDL_DATA, or else the user's cache."""
    start: Start = Start()
    """Weights to start from."""
    random: Seeds = Seeds()
    run: RunFlags = dataclasses.field(default_factory=RunFlags)


complete = partial(from_arguments, learners=COMPLETERS)
"""Adds the flags of the learner."""


def main(config: Config) -> dict[str, Any]:
    """Trains, or resumes, or reprints; returns what result.json holds."""
    choice = find(config.learner, COMPLETERS)
    options: dict[str, Any] = {"label": f"{choice.name}-mnist", "contents": choice.contents}
    return run_experiment(
        "regression_2d", config, partial(experiment, choice), report, check=check, **options
    )


def check(config: Config) -> None:
    """Validates the configuration."""
    if not config.context or len(set(config.context)) < len(config.context):
        raise InputError(
            f"`context={' '.join(map(str, config.context))}`: give at least one number, and each"
            " number once"
        )
    if least_scale(config) <= 0:
        raise InputError(
            f"`least_scale={least_scale(config)}`: most pixels are exactly black, so that their"
            " likelihood grows without end. Choose 0.1, say"
        )
    seeds_below(config.random, TEST_KEY)


def least_scale(config: Config) -> float:
    """The least standard deviation of the learner, and of the baselines beside it."""
    return float(flat(config).get("least_scale", 0.1))


def experiment(choice: Choice, config: Config, run: Run) -> dict[str, Any]:
    """Training, evaluation and the pictures."""
    images = {
        split: image_arrays("mnist", split, data_dir=config.data_dir).images
        for split in ("train", "test")
    }
    learner = learner_of_curves(flat(config), make=choice.make, tasks="pictures")
    numbers = (3, config.points - 3)
    sample = completion(images["train"], shots=numbers, queries=numbers, points=config.points)
    choice.check(learner, sample, gaussian_nll)
    choice.keep(run)
    params = trained(flat(config), run, learner, sample, inputs=2, start=config.start)
    tests = {
        str(shots): completion(images["test"], shots=shots, queries=None)
        for shots in config.context
    }
    scores = {choice.name: {n: evaluated(config, learner, params, tests[n]) for n in tests}}
    result = {
        "scores": scores | baselines(config, images["train"], tests),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(per_seed(params)[0])),
        "least_scale": least_scale(config),
        "images": {split: len(of_split) for split, of_split in images.items()},
        "split": "MNIST's test pictures; training has its training pictures",
        "batch_norm": "none",
        "config": flat(config),
    }
    draw(run, learner, params, tests)
    return run.finish(result)


def evaluated(
    config: Config, learner: MetaLearner, params: Params, sample: Sampler
) -> list[dict[str, Any]]:
    """For each seed: mean and 95 % interval over pictures of each metric."""
    measure = measure_of(learner, sample, episodes=config.test_tasks, chunk=CHUNK)
    say(f"test on {config.test_tasks:,} pictures")
    return [summary(measure(jax.random.key(TEST_KEY), each)) for each in per_seed(params)]


def baselines(config: Config, images: Images, tests: dict[str, Sampler]) -> dict[str, Any]:
    """The same on the same pictures, for what knows the training pictures and trains nothing."""
    found: dict[str, Any] = {"mean_picture": {}, "nearest_pixel": {}}
    key, scale, count = jax.random.key(SCALE_KEY), least_scale(config), config.test_tasks
    mean = mean_picture(images, least_scale=scale)
    for n, sample in tests.items():
        near = nearest_pixel(images, shots=int(n), least_scale=scale, key=key, episodes=count)
        for name, learner in zip(found, (mean, near), strict=True):
            measure = evaluate(learner, gaussian_nll, sample, episodes=count, chunk=CHUNK)
            metrics = measure(jax.random.key(TEST_KEY), ())
            found[name][n] = summary({metric: values[0] for metric, values in metrics.items()})
    return found


def draw(run: Run, learner: MetaLearner, params: Params, tests: dict[str, Sampler]) -> None:
    """The predictions for a few test pictures, and the learning curve."""
    keys = jax.random.split(jax.random.key(FIGURE_KEY), SHOWN)
    episodes = {n: jax.vmap(sample)(keys) for n, sample in tests.items()}
    pictures = partial(draw_pictures, learner, per_seed(params)[0], episodes)
    run.picture("pictures", pictures, size=(6, 1.2 + 3.6 * len(tests)))
    run.picture("learning_curve", partial(draw_curve, run), size=(6, 4))


if __name__ == "__main__":
    cli.command_line(main, Config, complete=complete)
