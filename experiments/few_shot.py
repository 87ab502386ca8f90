"""Few-shot image classification by MAML, ProtoNet, fine-tuning, or a learner of your own.

A learner trains on many tasks. A task shows a few images of each of its classes, then asks to
classify other images of them. The default is MAML (section 5.2, arXiv:1703.03400) on pairs of
digits, which need no download. The papers' recipes are presets. Validation classes choose the
checkpoint. Test classes give the accuracy. Baselines are tested too: fine-tuning, the nearest
class mean of the pixels by distance and by cosine, logistic regression on the pixels, and the
learner before training.

Command: scripts/run few_shot [--preset omniglot-5way-1shot] [--learner NAME]
Runtime: 1 minute for the default on 2 CPU cores; use a GPU for the paper's 60,000 steps
Result: accuracy with its 95 % interval, and the paper's accuracy; see docs/results.md
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reports._departures import of_few_shot
from experiments.reports.few_shot import draw_curve, draw_episode, published, report
from jaxdl import parallel
from jaxdl.data.sets.images import OMNIGLOT_SEED, Resize
from jaxdl.errors import InputError
from jaxdl.recipes import few_shot as recipe
from jaxdl.recipes import meta_training
from jaxdl.recipes.choice import (
    Choice,
    find,
    own_keywords,
    with_learner,
)
from jaxdl.recipes.gradient_learners import maml
from jaxdl.recipes.grid import Experiment, run_grid
from jaxdl.recipes.grid_training import validation_by
from jaxdl.recipes.learners import AnyLearner
from jaxdl.recipes.meta_training import one_on_cpu
from jaxdl.recipes.own_data import OwnData
from jaxdl.recipes.plans import (
    begin_images,
    frame_of_images,
    learners_of,
    plan_by,
    plan_of_images,
    refuse_another_schedule,
)
from jaxdl.recipes.score import by_seed, keep_episodes, score_by_seed
from jaxdl.recipes.tasks import Tasks
from jaxdl.runs import cli
from jaxdl.runs.config import (
    AtLeastTwo,
    Count,
    Natural,
    NotNegative,
    Positive,
    RunFlags,
    Seeds,
    Start,
    flat,
    seeds_below,
)
from jaxdl.runs.experiment import run_experiment
from jaxdl.runs.grid import Grid
from jaxdl.runs.identity import added
from jaxdl.runs.run import Run
from jaxdl.train.loop import per_seed
from jaxdl.train.streams import run_keys
from jaxdl.types import Key, Params

Prepared = Literal["numbers", "digits", "omniglot", "cifar_fs", "fc100"]
Data = Prepared | Literal["folder", "mini_imagenet", "table"]
Maml = own_keywords(maml)
TEST_KEY, VALIDATION_KEY, FIGURE_KEY = 1_000_001, 1_000_002, 1_000_003
"""Keys apart from all training seeds: every learner, step and seed meets the same episodes."""


@dataclasses.dataclass(frozen=True)
class Config:
    learner: str = added("maml")
    """Learner: maml, fomaml, anil, boil, meta_sgd, meta_curvature, maml_pp, es_maml, imaml,
    reptile, proto_maml, protonet, matchingnet, relationnet, r2d2, metaoptnet, lstm_learner, snail,
    pfn, finetune, linear_probe, baseline_pp, rfs, simpleshot, or path/to/mine.py:my_learner. Each
    has flags of its own."""
    data: Data = "numbers"
    """Data. `numbers` (two digits side by side) and `digits` need no download. The last three are
    your own, at --path."""
    test_data: Prepared | None = added(None)
    """Images of the test tasks. None: those of --data."""
    data_dir: Path | None = None
    """Folder of prepared data. None: the variable JAXDL_DATA, or else the user's cache."""
    split: Literal["maml", "vinyals"] = "maml"
    """Split of the Omniglot characters: MAML's 1100/100/423, or Vinyals' 1028/172/423."""
    omniglot_seed: Natural = added(OMNIGLOT_SEED)
    """Seed of MAML's split of the Omniglot characters."""
    omniglot_resize: Resize = added("area")
    """How Omniglot's drawings become 28 x 28 pixels: the mean of each box, or the pixel nearest to
    its centre, as in the MAML code."""
    rotations: Literal["none", "augment", "classes"] = "none"
    """Turns by 0, 90, 180 or 270 degrees. augment: a random turn per sampled class, as in MAML.
    classes: each turn makes a new class."""
    ways: AtLeastTwo = 5
    """Classes per training task."""
    test_ways: AtLeastTwo | None = added(None)
    """Classes per validation and test task. None: --ways."""
    shots: Count = 1
    """Support examples per class in training tasks."""
    test_shots: Count | None = added(None)
    """Support examples per class in validation and test tasks. None: --shots."""
    queries: Count = 5
    """Query examples per class in training tasks."""
    test_queries: Count = 5
    """Query examples per class in validation and test tasks. `--norm batch` normalises all queries
    together, so this number changes the accuracy."""
    filters: Count = 32
    """Filters of each of the four convolutions."""
    head: Literal["xavier", "normal"] = "xavier"
    """Initialiser of the head, for grey images. `normal` is that of the MAML code, and learns
    more slowly."""
    norm: Literal["batch", "support", "example"] = "batch"
    """Statistics of batch norm: of all images at hand (as in MAML), of the support set, or of each
    image alone."""
    steps: Count = 4000
    """Meta-training steps."""
    tasks: Count = 16
    """Tasks per step."""
    test_inner_steps: Natural | None = 3
    """Inner gradient steps in a validation or test task. None: as many as in training."""
    lr: Positive = 0.003
    """Learning rate of Adam, which trains the meta-parameters."""
    schedule: Literal["constant", "cosine"] = added("constant")
    """Schedule of that rate: constant, or half a cosine to 0, as in MAML++."""
    decay_steps: Natural = added(0)
    """Steps of the cosine. 0 means --steps, which a resumed run then cannot change."""
    clip: NotNegative = 0.0
    """Clips each element of the meta-gradient to this absolute value. 0 does not clip."""
    batch: Count = added(64)
    """Images per step, for learners that train on labels and for the fine-tuning baseline."""
    pretraining_steps: Natural = 1000
    """Pretraining steps of the fine-tuning baseline. 0 leaves the baseline out."""
    chunk: Natural = 0
    """Tasks per backward pass. 0 means 1 on a CPU, and all on an accelerator."""
    eval_every: Count = 500
    """Steps between validations, a multiple of --log-every."""
    eval_episodes: AtLeastTwo = 600
    """Tasks per validation."""
    test_episodes: AtLeastTwo = 6000
    """Tasks of the final test."""
    own: OwnData = OwnData()
    method: Any = dataclasses.field(default_factory=Maml)
    start: Start = Start()
    """Initial weights of the learner's net. The fine-tuning baseline starts from random weights."""
    random: Seeds = Seeds()
    run: RunFlags = dataclasses.field(default_factory=partial(RunFlags, log_every=50))


_OMNIGLOT = Config(
    data="omniglot",
    rotations="augment",
    filters=64,
    steps=60_000,
    lr=0.001,
    tasks=32,
    queries=1,
    test_queries=1,
    pretraining_steps=5000,
)
_TWENTY_WAYS = dataclasses.replace(
    _OMNIGLOT, ways=20, tasks=16, test_inner_steps=5, method=Maml(inner_steps=5, inner_lr=0.1)
)
_CIFAR = Config(
    data="cifar_fs",
    steps=60_000,
    lr=0.001,
    tasks=4,
    queries=15,
    test_queries=15,
    test_inner_steps=10,
    method=Maml(inner_steps=5, inner_lr=0.01, inner_loss="sum-over-classes"),
    clip=10.0,
    pretraining_steps=10_000,
)
_PROTOTYPES: Config = with_learner(
    dataclasses.replace(
        _OMNIGLOT,
        split="vinyals",
        rotations="classes",
        ways=60,
        test_ways=5,
        queries=5,
        test_queries=15,
        steps=20_000,
        tasks=1,
    ),
    "protonet",
)
PRESETS = {
    "numbers-5way-1shot": Config(),
    "digits-5way-1shot": Config(data="digits"),
    "omniglot-5way-1shot": _OMNIGLOT,
    "omniglot-5way-5shot": dataclasses.replace(_OMNIGLOT, shots=5, queries=5, test_queries=5),
    "omniglot-20way-1shot": _TWENTY_WAYS,
    "omniglot-20way-5shot": dataclasses.replace(_TWENTY_WAYS, shots=5, queries=5, test_queries=5),
    "cifar_fs-5way-1shot": _CIFAR,
    "cifar_fs-5way-5shot": dataclasses.replace(_CIFAR, shots=5, tasks=2),
    "omniglot-5way-1shot-protonet": _PROTOTYPES,
    "omniglot-5way-5shot-protonet": dataclasses.replace(_PROTOTYPES, shots=5),
    "omniglot-20way-1shot-protonet": dataclasses.replace(_PROTOTYPES, test_ways=20),
    "omniglot-20way-5shot-protonet": dataclasses.replace(_PROTOTYPES, test_ways=20, shots=5),
}


complete = recipe.complete


def main(config: Config) -> dict[str, Any]:
    """Trains, or resumes, or reprints; returns what result.json holds."""
    choice = find(config.learner, recipe.learners_for(flat(config)))
    options = frame_of_images(check, choice, config)
    return run_experiment("few_shot", config, partial(experiment, choice), report, **options)


def grid(configs: Sequence[Config], asked: Grid) -> None:
    """Trains a configuration per combination of hyper-parameters, and tests the best."""
    choice = find(configs[0].learner, recipe.learners_for(flat(configs[0])))
    plan = partial(plan_of_images, choice, VALIDATION_KEY)
    own = partial(frame_of_images, check, choice), plan, partial(begin_images, choice)
    run_grid(Experiment("few_shot", main, *own), configs, asked)


def check(config: Config) -> None:
    """Validates the configuration."""
    seeds_below(config.random, TEST_KEY)
    if config.decay_steps and config.schedule == "constant":
        raise InputError("`decay_steps=` is for `schedule=cosine`: leave it out")


def experiment(choice: Choice, config: Config, run: Run) -> dict[str, Any]:
    """Meta-training, the baselines, their test and the pictures."""
    refuse_another_schedule(config, run)
    tasks = recipe.tasks_of(flat(config))
    trained, learner = learners_of(choice, tasks, config)
    recipe.check_learners(choice, trained, learner, tasks)
    choice.keep(run)
    keys = run_keys(config.random.seed, config.random.seeds)
    params, best_steps = meta_train(config, run, trained, learner, tasks, keys)

    scores = scores_of(tasks, config)
    values, rate = {choice.name: scores(learner, params, steps=config.test_inner_steps)}, None
    first = meta_training.initial_params(trained, keys=keys, x=tasks.train_x, start=config.start)
    values["untrained"] = scores(learner, first, steps=config.test_inner_steps)
    if config.pretraining_steps and tasks.labelled is not None:
        fine_tuning, pretrained, rate = recipe.fine_tuning_baseline(
            run.part("pretrained", config.pretraining_steps),
            partial(recipe.fine_tuning_of_images, flat(config), tasks),
            tasks,
            lr=config.lr,
            batch=config.batch,
            keys=keys,
            key=jax.random.key(VALIDATION_KEY),
        )
        values["pretrained"] = scores(fine_tuning, pretrained)
    for name, baseline in recipe.baselines_of_inputs(tasks).items():
        values[name] = scores(baseline, jnp.zeros((1, 1)))
    keep_episodes(run, values)
    result = {
        **{name: by_seed(each, tasks.metric) for name, each in values.items()},
        "best_steps": best_steps,
        "fine_tuning_rate": rate,
        "paper": published(flat(config)),
        "batch_norm": "none" if config.data == "table" else recipe.BATCH_NORM[config.norm],
        "split": tasks.split,
        "deviations": [*tasks.notes, *recipe.failure(values), *of_few_shot(flat(config), PRESETS)],
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(per_seed(params)[0])),
        "metric": tasks.metric,
        "scaling": tasks.scaling,
        "outputs": tasks.test_ways,
        "config": flat(config),
    }
    run.picture("learning_curve", partial(draw_curve, run, tasks.metric), size=(6, 4))
    episode = tasks.test(jax.random.key(FIGURE_KEY))
    draw_episode(run, tasks, config.test_inner_steps, learner, per_seed(params)[0], episode)
    return run.finish(result)


def scores_of(tasks: Tasks, config: Config) -> Callable[..., Any]:
    """`(learner, params, steps=None) -> {metric: [seeds, episodes]}` on the test episodes."""
    test: dict[str, Any] = {"sample": tasks.test, "episodes": config.test_episodes}
    test |= {"key": jax.random.key(TEST_KEY), "chunk": one_on_cpu(200)}
    devices = parallel.count_devices(config.run.devices)
    return partial(score_by_seed, loss=tasks.loss, devices=devices, **test)


def meta_train(
    config: Config,
    run: Run,
    learner: AnyLearner,
    tested: AnyLearner,
    tasks: Tasks,
    keys: Key,
) -> tuple[Params, np.ndarray]:
    """The parameters `[seeds]` that were best on validation, and the steps they come from."""
    tx = meta_training.optimiser(flat(config))
    plan = plan_by(lambda config: (learner, tested, tx), tasks, VALIDATION_KEY, config)
    last = meta_training.meta_train(
        run,
        learner,
        plan.sample,
        tx=tx,
        keys=keys,
        x=plan.x,
        tasks=plan.tasks,
        chunk=plan.chunk,
        start=config.start,
        validate=validation_by(plan, tested, run),
        eval_every=config.eval_every,
        best=plan.metric,
    )
    return run.best(last)


if __name__ == "__main__":
    cli.command_line(main, Config, presets=PRESETS, complete=complete, grid=grid)
