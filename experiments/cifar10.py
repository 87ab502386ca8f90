"""CIFAR-10 by nets of three sizes: LeNet, ResNet-18, and the fast net of the speed records.

`lenet` is a tutorial's recipe, for a CPU; its learning rate falls so early that it underfits: three
seeds reach 54.2 % on test and 54.8 % on training images. `resnet18` is the standard recipe for
95 % and more, `fast` that of airbench94 (arXiv:2404.00498) for 94 % in the shortest time. Both want
a GPU, and their accuracy at full length is not yet measured here. Nothing is chosen on test images:
the last parameters are reported, and whoever tunes holds out training images (`--validation`).

Command: scripts/run cifar10 [--preset resnet18]; --predict DIRECTORY shows what a run has learnt
Runtime: 3 seeds of lenet 15 minutes on 2 CPU cores that other work shared; the others want a GPU
Result: lenet, 3 seeds: 54.19 ± 0.50 % of the 10,000 test images
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdl import parallel
from jaxdl.data.augment import Border, alternating_flip, cutout, flip, normalise, translate
from jaxdl.data.epochs import Visit, epochs
from jaxdl.data.sets.images import STATISTICS, ImageData, image_arrays, image_splits, rows
from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.models.airnet import airnet, with_views
from jaxdl.models.lenet import lenet
from jaxdl.models.linen import without_stats
from jaxdl.models.resnet import Stem, resnet18
from jaxdl.models.torch_weights import load_torch_weights, read_tensors
from jaxdl.optim.lookahead import lookahead, with_slow
from jaxdl.recipes import supervised
from jaxdl.runs import cli
from jaxdl.runs.checks import above_zero, at_least, evaluated_at_log_points
from jaxdl.runs.identity import added, refuse_other_steps
from jaxdl.runs.run import Run, RunFlags, load_config, open_run, say
from jaxdl.runs.stored import load_last
from jaxdl.runs.weights import holds_weights, started
from jaxdl.train.evaluation import measure
from jaxdl.train.steps import init_states, supervised_step
from jaxdl.train.streams import run_keys
from jaxdl.types import Array, Key, Metrics, Params, PyTree, StatefulModel, StepFn, TrainState

CLASSES, IMAGES = 10, 50_000
MEAN, STD = (np.array(each, np.float32) for each in STATISTICS["cifar10"])
WHITENED = 5000
"""Training images from whose patches the fast net's first layer is made."""
JUDGED = 10_000
"""Training images, the first ones, on which the accuracy in training is measured at the end."""


@dataclasses.dataclass(frozen=True)
class Config:
    net: Literal["lenet", "resnet18", "airnet"] = "lenet"
    """The net: 62 thousand, 11 million or 2 million parameters."""
    data_dir: Path | None = None
    """Where prepared data live; by default JAXDL_DATA, else the user's cache."""
    validation: int = 5000
    """Training images, the last ones, that are held out to make choices on; 0 trains on all."""
    images: int = 0
    """Training images to use, the first ones; 0 for all that are not held out."""
    steps: int = 14_063
    """Training steps."""
    batch: int = 64
    """Images a step, over all devices."""
    lr: float = 0.001
    """The highest learning rate."""
    momentum: float = 0.9
    """Of stochastic gradient descent."""
    nesterov: bool = False
    """Nesterov's form of momentum."""
    weight_decay: float = 0.0
    """Added to the gradient: so many times the weights."""
    schedule: Literal["staircase", "cosine", "triangle"] = "staircase"
    """The learning rate: times 0.1 every `decay_epochs`; a half cosine down to 0; or straight up
    from 0.2 to 1 in the first 23 % of the steps and straight down to 0.07."""
    decay_steps: int = added(0)
    """Steps after which cosine, triangle and lookahead end; 0: `steps`, which then stay so."""
    decay_epochs: float = 7.0
    """Epochs between the steps of the staircase."""
    flip: Literal["none", "random", "alternating"] = "none"
    """Mirror images: with a coin, or each image in every other epoch."""
    translate: int = 0
    """Pixels that images are moved by at most, along both axes."""
    border: Border = "zeros"
    """What moves in from outside: nothing, or the reflection of the image."""
    cutout: int = 0
    """Side of a square that is painted with the mean colour."""
    smoothing: float = 0.0
    """Share of each label that goes to all classes alike."""
    dropout: float = 0.0
    """Rate after both hidden dense layers of lenet."""
    bias_scale: float = 1.0
    """Airnet: the learning rate of the offsets of batch norm is so many times as high, and their
    weight decay as much lower."""
    whitening_epochs: float = 3.0
    """Airnet: epochs after which the bias of the first layer stays as it is."""
    lookahead: bool = False
    """Average the net with a slow one every five steps."""
    views: bool = False
    """Judge by the average over six moved and mirrored views of each image."""
    stem: Stem = "cifar"
    """Resnet18: begin with a 3x3 convolution, or, as torchvision's weights want, with a 7x7 one of
    stride 2 and a pool."""
    init_from: Path | None = None
    """Start from these weights: a .npz of weights, or a run's directory, of whose seeds
    each starts one here. Resnet18 also takes PyTorch's, a .safetensors or .npz in torchvision's
    layout, of which a head of other classes is left out."""
    init_except: tuple[str, ...] = ()
    """Layers that start anew all the same: a head of other classes, say."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation; parameters and batch norm are float32 always."""
    eval_every: int = 700
    """Steps between validations, a multiple of `log_every`."""
    predict: Path | None = None
    """Train nothing: show the predictions of the run in this directory."""
    seed: int = 0
    """First seed."""
    seeds: int = 1
    """How many seeds, from `seed` upward, train in one program."""
    run: RunFlags = dataclasses.field(default_factory=RunFlags)


PRESETS = {
    "lenet": Config(),
    # 200 epochs of 50,000 images.
    "resnet18": Config(
        net="resnet18",
        validation=0,
        steps=78_125,
        batch=128,
        lr=0.1,
        nesterov=True,
        weight_decay=5e-4,
        schedule="cosine",
        flip="random",
        translate=4,
        dtype="bfloat16",
        eval_every=2000,
    ),
    # In airbench94 9.9 epochs that leave out the last 848 images each. Its rate, 11.5, is divided
    # by 1 + 1 / (1 - momentum), and its weight decay, 0.0153, is that of a step.
    "fast": Config(
        net="airnet",
        validation=0,
        steps=475,
        batch=1024,
        lr=1.5,
        momentum=0.85,
        nesterov=True,
        weight_decay=0.0153 / 11.5,
        schedule="triangle",
        flip="alternating",
        translate=2,
        border="reflect",
        smoothing=0.2,
        bias_scale=64.0,
        lookahead=True,
        views=True,
        dtype="bfloat16",
        eval_every=475,
        run=RunFlags(log_every=25),
    ),
}


def main(config: Config) -> dict[str, Any]:
    """Trains, or resumes, or reprints; returns what result.json holds."""
    check(config)
    if config.predict is not None:
        predict = load(config.predict)
        test = rows(image_arrays("cifar10", "test", data_dir=config.data_dir), slice(1000))
        return supervised.show(config.predict, predict, test)
    parallel.start(config.run.coordinator, config.run.processes, config.run.process)
    with open_run("cifar10", config, label=config.net) as run:
        result = run.result() or experiment(config, run)
    print(report(result))
    return result


def check(config: Config) -> None:
    """Refuses what cannot be meant, before anything is loaded or compiled."""
    at_least(config, 1, "steps", "batch", "seeds", "eval_every")
    at_least(config, 0, "seed", "momentum", "weight_decay", "cutout", "whitening_epochs")
    at_least(config, 0, "decay_steps")
    at_least(config, 0, "translate", most=31)
    at_least(config, 0, "validation", most=IMAGES - 1)
    at_least(config, 0, "images", most=IMAGES - config.validation)
    at_least(config, 0, "smoothing", "dropout", most=0.999)
    above_zero(config, "lr", "decay_epochs", "bias_scale")
    at_least(config.run, 1, "log_every")
    evaluated_at_log_points(config)
    if config.decay_steps and config.schedule == "staircase" and not config.lookahead:
        raise InputError("--decay-steps is for --schedule cosine or triangle, and for --lookahead")
    if config.dropout and config.net != "lenet":
        raise InputError(f"--dropout is for --net lenet: {config.net} has none")


def experiment(config: Config, run: Run) -> dict[str, Any]:
    """Training, the figures on all three sets, and the pictures."""
    if not config.decay_steps and (config.schedule != "staircase" or config.lookahead):
        refuse_other_steps(run.directory, config.steps, "decay_steps")
    data = image_splits("cifar10", validation=config.validation, data_dir=config.data_dir)
    train_data = rows(data["train"], slice(config.images or None))
    judge = measure(judged(config), cross_entropy, as_seen)
    state = train(config, run, train_data, supervised.validation(judge, data["validation"]))
    say("testing ...")
    data["train"] = rows(train_data, slice(JUDGED))
    result = supervised.scores(judge, state, data)
    logits = supervised.predictor(judged(config), as_seen, state)(data["test"].images)
    supervised.draw(run, data["test"], logits, result["test"])
    about = {
        "train_images": len(train_data.labels),
        "batch_norm": "none" if config.net == "lenet" else "running averages of training",
        "config": dataclasses.asdict(config),
    }
    return run.finish({**result, **about})


def net(config: Config, axis_name: str | None = None) -> StatefulModel:
    """The net of a configuration, for normalised images `[n, 32, 32, 3]`."""
    dtype = jnp.dtype(config.dtype)
    if config.net == "lenet":
        return without_stats(lenet(CLASSES, dropout=config.dropout, dtype=dtype))
    if config.net == "resnet18":
        return resnet18(CLASSES, stem=config.stem, axis_name=axis_name, dtype=dtype)
    return airnet(CLASSES, axis_name=axis_name, dtype=dtype)


def as_seen(image: Array) -> Array:
    """Bytes as a net sees them."""
    return normalise(image, MEAN, STD)


def augmentation(config: Config) -> Callable[[Key, Array, Visit], Array]:
    """What a net sees of a stored image in training."""

    def transform(key: Key, image: Array, visit: Visit) -> Array:
        flip_key, move_key, cut_key = jax.random.split(key, 3)
        if config.flip == "random":
            image = flip(flip_key, image)
        elif config.flip == "alternating":
            image = alternating_flip(visit, image)
        if config.translate:
            image = translate(move_key, image, pixels=config.translate, border=config.border)
        image = as_seen(image)
        return cutout(cut_key, image, size=config.cutout) if config.cutout else image

    return transform


def optimiser(config: Config, images: int) -> optax.GradientTransformation:
    """Stochastic gradient descent on a schedule, by groups of parameters for airnet."""
    epoch, end = images / config.batch, config.decay_steps or config.steps

    def rate(step: Array) -> Array:
        done = jnp.minimum(step / end, 1)
        if config.schedule == "cosine":
            return config.lr * (1 + jnp.cos(jnp.pi * done)) / 2
        if config.schedule == "triangle":
            corners = jnp.array([0.0, 0.23, 1.0]), jnp.array([0.2, 1.0, 0.07])
            return config.lr * jnp.interp(done, *corners)
        return config.lr * 0.1 ** jnp.floor(step / (config.decay_epochs * epoch))

    def sgd(scale: float, rate: Callable[[Array], Array]) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(config.weight_decay / scale),
            optax.trace(config.momentum, nesterov=config.nesterov),
            optax.scale_by_learning_rate(lambda step: scale * rate(step)),
        )

    if config.net != "airnet":
        return sgd(1.0, rate)

    def group(path: Any, leaf: Any) -> str:
        del leaf
        name = jax.tree_util.keystr(path)
        return "whitening" if "whitening" in name else "offset" if "norm" in name else "weight"

    early = config.whitening_epochs * epoch
    return optax.partition(
        {
            "weight": sgd(1.0, rate),
            "offset": sgd(config.bias_scale, rate),
            "whitening": sgd(1.0, lambda step: rate(step) * (step < early)),
        },
        lambda params: jax.tree.map_with_path(group, params),
    )


def initial(config: Config, images: np.ndarray) -> tuple[TrainState, optax.GradientTransformation]:
    """The state before the first step, `[seeds]`, and the optimiser that it belongs to."""
    tx = optimiser(config, len(images))
    x = as_seen(jnp.asarray(images[: WHITENED if config.net == "airnet" else 1]))
    torchs = torch_file(config)

    def init(key: Key) -> tuple[Params, PyTree]:
        params, stats = net(config).init(key, x)
        return (params, stats) if torchs is None else load_torch_weights(torchs, params, stats)[:2]

    keys = run_keys(config.seed, config.seeds)
    state = init_states(init, keys, tx, with_stats=True)
    if torchs is None:
        state = started(state, config.init_from, config.init_except)
    return with_slow(state) if config.lookahead else state, tx


def torch_file(config: Config) -> Path | None:
    """The file to start from, if it is PyTorch's."""
    path = config.init_from
    if config.net != "resnet18" or path is None or not path.is_file():
        return None
    return None if holds_weights(read_tensors(path)) else path


def train(
    config: Config, run: Run, data: ImageData, validate: Callable[[TrainState], Metrics] | None
) -> TrainState:
    """The last state of all seeds, on one device."""
    devices = parallel.count_devices(config.run.devices)
    options: dict[str, Any] = {"batch": config.batch, "visits": True, "classes": CLASSES}
    stream = epochs(*data[:2], transform=augmentation(config), **options)
    state, tx = initial(config, data.images)
    return run.train(
        training_step(config, tx, parallel.axis_name(devices)),
        stream,
        run_keys(config.seed, config.seeds),
        run.restore(state),
        validate=validate,
        eval_every=config.eval_every,
        tasks=config.batch,
        devices=devices,
    )


def training_step(
    config: Config, tx: optax.GradientTransformation, axis_name: str | None = None
) -> StepFn:
    """One step on a batch, shared among the devices of the axis."""
    loss = partial(cross_entropy, smoothing=config.smoothing)
    step = supervised_step(net(config, axis_name), loss, tx, axis_name=axis_name)
    if not config.lookahead:
        return step
    end = config.decay_steps or config.steps
    return lookahead(
        step, every=5, keep=lambda i: 0.95**5 * jnp.minimum(i / end, 1) ** 3, steps=end
    )


def judged(config: Config) -> StatefulModel:
    """The net as it is judged: on several views of each image if so wished."""
    return with_views(net(config)) if config.views else net(config)


def load(directory: Path | str) -> supervised.Predictor:
    """The net of a run: images uint8 `[n, 32, 32, 3]` to logits `[n, 10]` (of the first seed).

    Raises:
        InputError: if there is no run, or none with a checkpoint.
        RunError: if it is damaged.
    """
    config = load_config(Path(directory), Config)
    like, _ = initial(config, np.zeros((1, 32, 32, 3), np.uint8))
    return supervised.predictor(judged(config), as_seen, load_last(directory, like))


def report(result: dict[str, Any]) -> str:
    """The result as a table, and what the numbers depend on."""
    config = result["config"]
    note = (
        f"{config['dtype']}; the last parameters, nothing chosen on test; train: its first"
        f" {JUDGED:,} images, not augmented; batch norm: {result['batch_norm']}"
        + ("; average over six views of each image" if config["views"] else "")
    )
    return supervised.report(f"CIFAR-10, {config['net']}", result, note)


if __name__ == "__main__":
    cli.command_line(main, Config, presets=PRESETS)
