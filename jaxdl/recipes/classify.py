"""`jaxdl classify RUN --support DIR --pictures DIR`: a trained learner on the user's own pictures.

The learner adapts to the folders of `--support`, a class each, and says which class each picture of
`--pictures` shows. Pictures become images as the run's own data did. Runs of omniglot, digits and
numbers know bright strokes on black: there, dark ink on light paper is inverted.
"""

import csv
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from jaxdl.data.resize import Fit
from jaxdl.data.sets.pictures import class_folders, picture_files, read
from jaxdl.errors import InputError, damaged
from jaxdl.files.atomic import writing
from jaxdl.recipes.few_shot import image_shape
from jaxdl.recipes.loaded import LoadedRun, load_run
from jaxdl.report import pictures
from jaxdl.runs.identity import recorded_config
from jaxdl.runs.recorded import CONFIG
from jaxdl.types import Batch

FITS: dict[str, Fit] = {
    "omniglot": "ink",
    "digits": "ink",
    "numbers": "ink",
    "mini_imagenet": "squash",
}
"""How a picture becomes an image, by the data of the run; "crop" for others."""
AT_ONCE = 256
"""Pictures that are predicted together, where that does not change the answer."""
SHOWN = 60
"""Pictures on the contact sheet."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Classify your own pictures by a run of few_shot."""

    run: Path
    """Folder of the run."""
    support: Path | None = None
    """Folder with a folder of example pictures per class."""
    pictures: Path | None = None
    """Folder of the pictures to classify, or one picture."""
    out: Path = Path("classes.csv")
    """Table to write: file, class, probability. The contact sheet has the same name, as .png."""
    seed: int = 0
    """Which seed of the run to use, from 0."""


class Classified(NamedTuple):
    """The pictures, and what the learner says of them.

    `probabilities` are `[pictures, classes]`; `class_names` and `files` are paths. `together`: each
    answer depends on the other pictures, because batch norm normalises all of them together.
    `seen`: how many of them are support pictures, too, so that their answer means little.
    """

    images: UInt8[np.ndarray, "n height width channels"]
    probabilities: Float[np.ndarray, "n classes"]
    class_names: tuple[str, ...]
    files: tuple[str, ...]
    together: bool
    seen: int = 0


def classify(run: Path, support: Path, folder: Path, *, seed: int = 0) -> Classified:
    """Adapts the learner of a run to labelled pictures, and classifies others.

    Args:
        run: folder of a run of few_shot on images.
        support: folder with a folder of pictures per class, as many classes as the run's test
            tasks. A learner such as ProtoNet takes any number.
        folder: the pictures to classify, or a single one.
        seed: which seed of the run.

    Raises:
        InputError: if the folders hold no such pictures, or too few or many classes, or if a single
            picture is to be normalised by itself.
        RunError: if the run is damaged.
    """
    data = recorded_config(Path(run)).get("data")
    if data is None:
        raise InputError(
            f"{run} is no run of few_shot, so its files do not say how to rebuild its learner. Load"
            " the parameters by jaxdl.load_best, and call the learner's adapt and predict"
        )
    if data == "table":
        raise InputError(f"{run} was trained on a table. Give a run of few_shot on images")
    if (resized := recorded_config(Path(run)).get("omniglot_resize", "area")) != "area":
        raise InputError(
            f"{run} was trained on drawings with `omniglot_resize={resized}`, and pictures become"
            " the mean of each box here. Resize them in your own program, and use jaxdl.load_run"
        )
    classes = class_folders(support)
    loaded = load_run(run, seed, ways=len(classes))
    config = loaded.config
    if "test_inner_steps" not in config:
        raise damaged(Path(run) / CONFIG, "it has no test_inner_steps")
    shape, how = image_shape(config), FITS.get(config["data"], "crop")
    given = tuple(file for name in classes for file in classes[name])
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])
    root, single = Path(folder), Path(folder).is_file()
    files = (root.name,) if single else picture_files(folder)
    root = root.parent if single else root
    images = read(root, files, shape, how)
    examples = read(Path(support), given, shape, how)
    support_x = _scaled(examples)
    known = {image.tobytes() for image in examples}
    seen = sum(image.tobytes() in known for image in images)
    found = _probabilities(loaded, Batch(support_x, jnp.asarray(labels)), images)
    return Classified(images, found, tuple(classes), files, config["norm"] == "batch", seen)


def main(arguments: Arguments) -> None:
    """Writes the table and the contact sheet, and says where."""
    if arguments.support is None or arguments.pictures is None:
        raise InputError(
            "both `support=` and `pictures=` are needed. Give a folder of class folders, and the"
            " pictures to classify"
        )
    if arguments.out.suffix != ".csv":
        raise InputError(f"`out={arguments.out}`: the table is a .csv file. Let the name end so")
    found = classify(arguments.run, arguments.support, arguments.pictures, seed=arguments.seed)
    best = found.probabilities.argmax(axis=1)
    with writing(arguments.out), arguments.out.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "class", "probability"])
        for name, row, i in zip(found.files, found.probabilities, best, strict=True):
            table.writerow([name, found.class_names[i], f"{row[i]:.4f}"])
    if found.together:
        print(
            "Batch norm: each answer depends on the other pictures, unless a run has --norm support"
        )
    if found.seen:
        print(f"{found.seen} of the pictures are support pictures, too: their answers mean little")
    print(f"table {arguments.out}: {len(found.files)} pictures, {len(found.class_names)} classes")
    rows = -(-min(SHOWN, len(found.files)) // 10)
    sheet = arguments.out.with_suffix(".png")

    def draw(figure: Any) -> None:
        pictures.contact_sheet(
            found.images[:SHOWN], found.probabilities[:SHOWN], found.class_names, figure
        )

    print(pictures.save(sheet, draw, size=(11, 0.4 + 1.4 * rows)))


def _probabilities(
    loaded: LoadedRun, support: Batch, images: np.ndarray
) -> Float[np.ndarray, "n classes"]:
    learner, params, config = loaded
    steps = config["test_inner_steps"]

    @jax.jit
    def adapt(support: Batch) -> Any:
        return learner.adapt(jax.random.key(0), params, support, steps)

    @jax.jit
    def predict(adapted: Any, x: jax.Array) -> jax.Array:
        return jax.nn.softmax(learner.predict(adapted, x))

    adapted, count = adapt(support), len(images)
    if config["norm"] == "batch":
        return np.asarray(predict(adapted, _scaled(images)))
    parts = [images[i : i + AT_ONCE] for i in range(0, count, AT_ONCE)]
    return np.concatenate([np.asarray(predict(adapted, _scaled(part))) for part in parts])


def _scaled(images: np.ndarray) -> jax.Array:
    return jnp.asarray(images, jnp.float32) / 255
