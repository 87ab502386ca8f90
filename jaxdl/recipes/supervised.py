"""The common part of experiments with an image classifier.

It has validation during training, scores on all parts of the data, pictures, the report, and
predictions of a stored run. The experiment provides the net, its augmentation and its optimiser.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.data.labels import check_labels
from jaxdl.data.sets.images import ImageData, Split
from jaxdl.report import pictures, tables
from jaxdl.report.intervals import seeds_summary
from jaxdl.runs.progress import say, timed
from jaxdl.runs.run import Run
from jaxdl.train.evaluation import predict_all
from jaxdl.train.loop import per_seed
from jaxdl.types import Array, Metrics, Params, PyTree, StatefulModel, TrainState

Evaluate = Callable[[Params, PyTree, Any, Array], Metrics]
"""`(params, stats, images, labels) -> metrics [seeds]`: what `evaluation.measure` returns."""
Predictor = Callable[[Any], Array]
"""Stored images `[n, ...]` to logits `[n, classes]`."""


def validation(evaluate: Evaluate, held_out: ImageData) -> Callable[[TrainState], Metrics] | None:
    """The `validate` of `Run.train`, or None if no images are held out.

    Raises:
        InputError: if labels are not in `[0, classes)`, or not one per image.
    """
    if len(held_out.labels) == 0:
        return None
    images, labels = jnp.asarray(held_out.images), labels_of(held_out)
    return lambda state: evaluate(state.params, state.stats, images, labels)


def labels_of(data: ImageData) -> Array:
    """The labels on the device.

    Raises:
        InputError: if they are not in `[0, classes)`, or not one per image.
    """
    classes = len(data.class_names)
    return jnp.asarray(check_labels(data.labels, len(data.images), classes=classes))


def split_of(title: str, held_out: int) -> str:
    """What is tested, and what choices are made on, for result.json.

    >>> split_of("MNIST", 5000)
    "MNIST's test images; 5,000 of its training images held out for choices"
    """
    return f"{title}'s test images; {held_out:,} of its training images held out for choices"


def scores(
    evaluate: Evaluate, state: TrainState, data: Mapping[Split, ImageData]
) -> dict[str, Any]:
    """Summaries over seeds of every metric, by part of the data. Parts without images are left out.

    Returns:
        `{part: {metric: seeds_summary}}`, for result.json.

    Raises:
        InputError: if labels are not in `[0, classes)`, or not one per image.
    """
    parts = [(name, part) for name, part in data.items() if len(part.labels)]
    found: dict[str, Any] = {}
    for name, part in timed(parts, "testing", [len(part.labels) for _, part in parts]):
        metrics = evaluate(state.params, state.stats, part.images, labels_of(part))
        found[name] = {metric: seeds_summary(values) for metric, values in metrics.items()}
    return found


def predictor(
    model: StatefulModel, transform: Callable[[Any], Any], state: TrainState
) -> Predictor:
    """The net of the first seed of a state `[seeds]`. See `evaluation.predict_all`."""
    params, stats = per_seed((state.params, state.stats))[0]
    run = predict_all(model, transform)
    return lambda images: run(params, stats, jnp.asarray(images))


def draw(run: Run, test: ImageData, logits: Any, figures: Mapping[str, Any]) -> None:
    """Draws predictions, confusion matrix, and learning curve, which ends with the test scores.

    `logits` `[n, classes]` are those of the test images. `figures` are their `scores`.
    """
    names, labels = test.class_names, test.labels
    predictions = partial(pictures.predictions, test.images, labels, logits, names)
    run.picture("predictions", predictions, size=(11, 7))
    confused = partial(pictures.confusion, labels, np.argmax(logits, axis=1), names)
    run.picture("confusion", confused, size=(6.5, 5.5))
    lines = {"train (batches as trained on)": run.metrics("train")}
    if len(run.metrics("validation").get("step", ())):
        lines["validation"] = run.metrics("validation")
    lines["test"] = {"step": np.array([run.steps])} | {
        name: np.array([found["values"]]) for name, found in figures.items()
    }
    run.picture("learning_curve", partial(pictures.learning_curve, lines), size=(9, 4))


def show(directory: Path, predict: Predictor, test: ImageData) -> dict[str, Any]:
    """Prints a stored net's predictions for the first ten images, and draws more in predicted.png.

    Returns:
        `true`, `predicted` (class names) and `confidence` of these ten.

    Raises:
        RunError: if the picture cannot be written.
    """
    logits = predict(test.images)
    confidence = np.asarray(jax.nn.softmax(logits[:10]))
    names = np.array(test.class_names)
    shown = {
        "true": names[test.labels[:10]].tolist(),
        "predicted": names[confidence.argmax(1)].tolist(),
        "confidence": [round(float(each), 4) for each in confidence.max(1)],
    }
    header = ["test image", *map(str, range(len(shown["true"])))]
    print(tables.markdown(header, [[name, *map(str, row)] for name, row in shown.items()]))
    picture = partial(pictures.predictions, test.images, test.labels, logits, test.class_names)
    say(pictures.save(directory / "predicted.png", picture, size=(11, 7)))
    return shown


def report(title: str, result: Mapping[str, Any], *notes: str) -> str:
    """The accuracy of all parts as a table, with the length of the training and its seeds.

    Args:
        result: the content of result.json: the summaries of `scores`, `train_images`, and `config`
            with `batch`, `seed`, `seeds` and, optionally, `decay_steps`.
        notes: lines before the last line of the report.
    """
    config, run, count = result["config"], result["run"], result["train_images"]
    rows = [
        [
            part,
            tables.interval(result[part]["accuracy"], scale=100),
            tables.by_seed(result[part]["accuracy"], scale=100),
            tables.number(float(result[part]["loss"]["mean"]), 4),
        ]
        for part in ("train", "validation", "test")
        if part in result or part != "validation"  # which may have no images
    ]
    header = [title, "accuracy in %, ± 95 % over seeds", "by seed", "cross-entropy"]
    length = (
        f"{run['steps']:,} steps of {config['batch']},"
        f" {run['steps'] * config['batch'] / count:.1f} epochs of {count:,} images;"
        f" {tables.seeds(config['seed'], config['seeds'])}"
    )
    if (decay := config.get("decay_steps", 0)) > run["steps"]:
        notes += (f"stopped before the learning rate had fallen (--decay-steps {decay})",)
    return "\n".join([tables.markdown(header, rows), length, *notes, tables.made_by(run)])
