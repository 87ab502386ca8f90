"""Pictures: saving them, and the Matplotlib figures that several experiments share."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from jaxdl.data.labels import check_labels
from jaxdl.data.pixels import white
from jaxdl.errors import InputError, extra
from jaxdl.files.atomic import writing
from jaxdl.report.intervals import seeds_mean_ci95
from jaxdl.types import Array, Batch, Episode

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def save(path: Path, draw: Callable[[Any], None], *, size: tuple[float, float]) -> str:
    """Saves the picture that `draw(figure)` draws on a figure of `size` inches.

    Returns:
        A line for the user: the path, or that Matplotlib is missing (on a cluster node).

    Raises:
        RunError: if the file cannot be written.
    """
    try:
        with extra("plots"):
            from matplotlib.figure import Figure
    except InputError as error:
        return f"no {path.name}: {error}"
    figure = Figure(figsize=size, layout="constrained")
    draw(figure)
    with writing(path):
        figure.savefig(path, dpi=150)
    return f"picture {path}"


def svg(draw: Callable[[Any], None], *, size: tuple[float, float], salt: str) -> str:
    """The picture that `draw(figure)` draws on a figure of `size` inches, as an SVG element.

    `salt` decides the names inside it, so that pictures of other salts may stand on the same page.

    Raises:
        InputError: if Matplotlib is missing.
    """
    with extra("plots"):
        import matplotlib as mpl
        from matplotlib.figure import Figure
    text, nothing = io.StringIO(), dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    found = text.getvalue()
    return found[found.index("<svg") :]


def episode(shown: Episode, logits: Array, figure: "Figure") -> None:
    """One few-shot task, one row per class: its support images, then its queries with predictions.

    Args:
        shown: images `[n, height, width, channels]` in `[0, 1]`, labels in `[0, ways)`.
        logits: predictions for the query set, `[n, ways]`.
    """
    support, query = shown.support, shown.query
    predicted = np.argmax(np.asarray(logits), axis=1)
    ways = logits.shape[1]
    rows = [
        (np.flatnonzero(_labels(support) == way), np.flatnonzero(_labels(query) == way))
        for way in range(ways)
    ]
    shots = max(len(given) for given, _ in rows)
    columns = shots + min(8, max(len(asked) for _, asked in rows))
    axes = figure.subplots(ways, columns, squeeze=False)
    for way, (given, asked) in enumerate(rows):
        for axis in axes[way]:
            axis.set_axis_off()
        for axis, index in zip(axes[way], given, strict=False):
            _image(axis, support.x[index])
            axis.set_title(f"class {way}", fontsize="small", color="0.4")
        for axis, index in zip(axes[way, shots:], asked, strict=False):
            _image(axis, query.x[index])
            right = predicted[index] == way
            axis.set_title(f"{predicted[index]}", fontsize="small", color="C2" if right else "C3")
    labels = _labels(query)
    accuracy = np.mean((predicted == labels)[labels >= 0])
    figure.suptitle(
        f"support (left) and queries with predicted class, red if wrong; {accuracy:.0%} correct",
        fontsize="medium",
    )


def _labels(batch: Batch) -> np.ndarray:
    """The labels of a batch; -1 for padding."""
    labels = np.asarray(batch.y)
    return labels if batch.weight is None else np.where(np.asarray(batch.weight) > 0, labels, -1)


def predictions(
    images: np.ndarray,
    labels: ArrayLike,
    logits: ArrayLike,
    names: Sequence[str],
    figure: "Figure",
    *,
    columns: int = 10,
    rows: int = 2,
) -> None:
    """The first images of a set with prediction and confidence, then its most confident errors.

    A wrong prediction is red, with the true class below. Confidence is the softmax probability.
    Each part has at most `rows` rows of `columns` images.

    Args:
        images: `[n, height, width, channels]`, 1 or 3 channels, uint8 or in `[0, 1]`.
        labels: `[n]` ints in `[0, classes)`.
        logits: `[n, classes]`.
        names: one per class.

    Raises:
        InputError: for other labels.
    """
    labels, confidence = check_labels(labels, classes=len(names)), _softmax(logits)
    predicted, confidence = confidence.argmax(1), confidence.max(1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")]
    count = rows * columns
    share = f"{len(wrong):,} of {len(labels):,} wrong, {len(wrong) / len(labels):.2%}"
    parts = [(f"the first images ({share})", np.arange(min(count, len(labels))))]
    if len(worst):
        parts.append(("the most confident errors", worst[:count]))
    panels = figure.subfigures(len(parts), 1, squeeze=False)[:, 0]
    for panel, (title, chosen) in zip(panels, parts, strict=True):
        panel.suptitle(title, fontsize="medium")
        axes = panel.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes:
            axis.set_axis_off()
        for axis, i in zip(axes, chosen, strict=False):
            _image(axis, images[i])
            right = predicted[i] == labels[i]
            text = f"{names[predicted[i]]} ({confidence[i]:.0%})"
            truth = "" if right else f"\ntrue: {names[labels[i]]}"
            axis.set_title(text + truth, fontsize="x-small", color="0.2" if right else "C3")


def contact_sheet(
    images: np.ndarray,
    probabilities: np.ndarray,
    names: Sequence[str],
    figure: "Figure",
    *,
    columns: int = 10,
) -> None:
    """Images with their most probable class and its probability, `columns` per row.

    Args:
        images: `[n, height, width, channels]`, 1 or 3 channels, uint8 or in `[0, 1]`.
        probabilities: `[n, classes]`.
        names: one per class.
    """
    best = probabilities.argmax(1)
    axes = figure.subplots(-(-len(images) // columns), columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for i, axis in enumerate(axes[: len(images)]):
        _image(axis, images[i])
        text = f"{names[best[i]]} ({probabilities[i, best[i]]:.0%})"
        axis.set_title(text, fontsize="x-small", color="0.2")


def confusion(
    labels: ArrayLike, predicted: ArrayLike, names: Sequence[str], figure: "Figure"
) -> None:
    """The confusion matrix: counts of each true class (rows) by predicted class (columns).

    The redder an error, the larger its share of the row. The diagonal stays pale, because its
    numbers are hundreds of times larger.

    Args:
        labels, predicted: `[n]` ints in `[0, classes)`.
        names: one per class.

    Raises:
        InputError: for other labels.
    """
    classes = len(names)
    labels, predicted = (check_labels(each, classes=classes) for each in (labels, predicted))
    pairs = np.bincount(labels.astype(np.int64) * classes + predicted, minlength=classes**2)
    counts = pairs.reshape(classes, classes)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    axis = figure.subplots()
    image = axis.imshow(100 * shares, cmap="Reds", vmin=0, vmax=max(100 * shares.max(), 1e-9))
    figure.colorbar(image, ax=axis, label="% of the class", shrink=0.8)
    for (row, column), value in np.ndenumerate(counts):
        if value:
            dark = row != column and shares[row, column] > 0.6 * shares.max()
            weight = "bold" if row == column else "normal"
            axis.text(
                column,
                row,
                f"{value:,}",
                ha="center",
                va="center",
                fontsize="x-small",
                fontweight=weight,
                color="white" if dark else "black",
            )
    slant: dict[str, Any] = {"rotation": 45, "ha": "right"} if max(map(len, names)) > 2 else {}
    axis.set_xticks(range(classes), names, **slant)
    axis.set_yticks(range(classes), names)
    axis.set(xlabel="predicted class", ylabel="true class")
    axis.set_title(f"accuracy {np.mean(labels == predicted):.2%}", fontsize="medium")


def learning_curve(lines: Mapping[str, Mapping[str, Any]], figure: "Figure") -> None:
    """Loss and error by step, one line per split: the mean over seeds, with their range as a band.

    Args:
        lines: the metrics of each split, from `Run.metrics`: `step` `[lines]`, `loss` and
            `accuracy` `[lines, seeds]`.
    """
    axes = figure.subplots(1, 2)
    for color, (split, found) in enumerate(lines.items()):
        for axis, values in zip(axes, (found["loss"], 100 - 100 * found["accuracy"]), strict=True):
            marker = "o" if len(values) <= 30 else None
            band(axis, found["step"], values, color, label=split, marker=marker, markersize=3)
    axes[0].set(xlabel="step", ylabel="cross-entropy in nats")
    axes[1].set(xlabel="step", ylabel="error in %")
    for axis in axes:
        axis.set_yscale("log", subs=[2, 5])
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.tick_params(axis="y", which="minor", labelsize="x-small")
    axes[0].legend()


def band(axis: "Axes", steps: ArrayLike, values: np.ndarray, color: int, **style: Any) -> None:
    """The mean of values `[steps, seeds]` over seeds as a line, and their range as a band."""
    mean, low, high = (f(values, axis=1) for f in (np.mean, np.min, np.max))
    axis.plot(steps, mean, f"C{color}", **style)
    axis.fill_between(steps, low, high, color=f"C{color}", alpha=0.25, lw=0)


def accuracy_by_count(
    result: Mapping[str, Any], methods: Mapping[str, str], figure: "Figure"
) -> None:
    """Test accuracy by labelled examples per class, with the 95 % interval over seeds.

    `result` is as in `jaxdl.report.by_count`. The argument `methods` has the titles of the methods
    to draw, by name.
    """
    axis, x = figure.subplots(), np.array(result["examples"])
    for i, (name, title) in enumerate(methods.items()):
        mean, half = seeds_mean_ci95(100 * np.array(result["methods"][name]["test"]), axis=1)
        beside = x * 1.08 ** (i - (len(methods) - 1) / 2)  # so that intervals do not overlap
        style: dict[str, Any] = {
            "color": f"C{i}",
            "marker": "osD^v"[i % 5],
            "markersize": 5,
            "capsize": 3,
        }
        axis.errorbar(beside, mean, np.nan_to_num(half), label=title, lw=1.2, **style)
    axis.set_xscale("log")
    names = [
        f"all\n({value:,.0f})" if count == 0 else str(count)
        for count, value in zip(result["counts"], x, strict=True)
    ]
    axis.set_xticks(x, names)
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.set(xlabel="labelled examples per class", ylabel="test accuracy in %, ± 95 % over seeds")
    axis.set_ylim(top=101)
    axis.legend(loc="lower right")


def _softmax(logits: ArrayLike) -> np.ndarray:
    logits = np.asarray(logits, np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _image(axis: "Axes", image: Any) -> None:
    image = image / white(image)
    gray = image.shape[-1] == 1
    axis.imshow(image[..., 0] if gray else image, cmap="gray_r" if gray else None, vmin=0, vmax=1)
