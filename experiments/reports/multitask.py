"""Report and pictures of the experiment `multitask`."""

from typing import Any

import numpy as np

from experiments.reports._many_tasks import MARKERS, costs, difference, notes, shown
from jaxdl.report import tables

SINGLE = "two single nets"


def report(result: dict[str, Any]) -> str:
    """One row per method, then settings, seeds, data and machine."""
    return "\n".join([methods_table(result), *notes(result, SINGLE)])


def methods_table(result: dict[str, Any]) -> str:
    """Accuracies, and paired differences from single nets and from equal weights."""
    methods = result["methods"]
    rows = [
        [
            SINGLE if name == "single" else name,
            *(tables.interval(task, scale=100) for task in found["accuracy"]),
            tables.interval(found["mean"], scale=100),
            *(
                "" if name in known else shown(difference(found, methods[other]))
                for other, known in (("single", ("single",)), ("equal", ("single", "equal")))
            ),
            *costs(result, name),
        ]
        for name, found in methods.items()
    ]
    header = [
        "MultiMNIST, test accuracy in %",
        *result["tasks"],
        "mean",
        "minus single",
        "minus equal",
    ]
    return tables.markdown([*header, "conflicts %", "ms per step"], rows)


def draw_accuracy(result: dict[str, Any], figure: Any) -> None:
    """Accuracy on the left digit against the right one. Lines are the single nets."""
    axis = figure.subplots()
    lines = [
        (100 * task["mean"], 100 * (task["ci95"] or 0))
        for task in result["methods"]["single"]["accuracy"]
    ]
    for (at, half), line, span in zip(
        lines, (axis.axvline, axis.axhline), (axis.axvspan, axis.axhspan), strict=True
    ):
        line(at, color="0.4", lw=1, ls="--")
        span(at - half, at + half, color="0.5", alpha=0.12, lw=0)
    axis.plot([], [], color="0.4", lw=1, ls="--", label="single nets")
    names = [name for name in result["methods"] if name != "single"]
    for i, name in enumerate(names):
        x, y = result["methods"][name]["accuracy"]
        axis.errorbar(
            100 * x["mean"],
            100 * y["mean"],
            xerr=100 * (x["ci95"] or 0),
            yerr=100 * (y["ci95"] or 0),
            marker=MARKERS[i % len(MARKERS)],
            markersize=11 if name == "equal" else 7,
            color="black" if name == "equal" else f"C{i % 10}",
            elinewidth=0.7,
            alpha=0.85,
            ls="",
            label=name,
        )
    for (at, _), limit, side in zip(lines, (axis.set_xlim, axis.set_ylim), (0, 1), strict=True):
        limit(*view([result["methods"][name]["accuracy"][side] for name in names], at))
    axis.grid(alpha=0.3)
    axis.set(xlabel="accuracy on the left digit in %", ylabel="accuracy on the right digit in %")
    axis.set_title("overlaid digits, test; bars and bands: 95 % over seeds", fontsize="medium")
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small")


def view(accuracies: list[dict[str, Any]], single: float) -> tuple[float, float]:
    """The limits of an axis in %. They hold all means and typical intervals, not the widest."""
    means = [single, *(100 * found["mean"] for found in accuracies)]
    room = 2 * float(np.median([100 * (found["ci95"] or 0) for found in accuracies])) + 0.2
    return max(min(means) - room, 0), min(max(means) + room, 100)


def draw_samples(
    canvases: np.ndarray, labels: np.ndarray, predicted: np.ndarray, figure: Any
) -> None:
    """The first canvases `[n, h, w, 1]`, and the first with an error. `predicted` is `[n, 2]`."""
    first, wrong = np.arange(len(labels))[:20], np.flatnonzero((predicted != labels).any(axis=1))
    parts = [
        ("the first test images: what the heads see left and right, red: predicted (true)", first),
        (f"the first of {len(wrong):,} with an error", wrong[:20]),
    ]
    for panel, (title, chosen) in zip(figure.subfigures(2, 1), parts, strict=True):
        panel.suptitle(title, fontsize="medium")
        axes = panel.subplots(2, 10).ravel()
        for axis in axes:
            axis.set_axis_off()
        for axis, i in zip(axes, chosen, strict=False):
            axis.imshow(canvases[i, ..., 0], cmap="gray_r", vmin=0, vmax=255)
            for side, at in enumerate((0.25, 0.75)):
                guess, truth = predicted[i, side], labels[i, side]
                text, color = (
                    (str(guess), "0.2") if guess == truth else (f"{guess} ({truth})", "C3")
                )
                style = {"color": color, "fontsize": "small", "ha": "center"}
                axis.text(at, 1.03, text, transform=axis.transAxes, **style)
