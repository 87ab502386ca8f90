"""What the experiment on limited data says and draws, read off its result."""

from typing import Any

import numpy as np

from jaxdl.report import by_count, tables
from jaxdl.report.by_count import interval, labelled
from jaxdl.report.intervals import seeds_mean_ci95

METHODS = {
    "scratch": "from scratch",
    "augmented": "augmented, regularised",
    "transfer": "transfer",
    "maml": "MAML initialisation",
}


def finding(result: dict[str, Any]) -> str:
    """What a reader can quote, read off the numbers."""
    test = {name: 100 * np.array(found["test"]) for name, found in result["methods"].items()}
    few, many = (labelled(result["counts"][i]) for i in (0, -1))
    best = by_count.best_start(result, METHODS)
    ahead, behind = test[best][0].mean(), test["scratch"][0].mean()
    last, half = seeds_mean_ci95(test[best][-1] - test["scratch"][-1])
    within = " (within its interval)" if abs(last) <= half else ""
    train, judged = (
        100 * np.array(result["sizes"][name]).mean(axis=2) for name in ("train", "test")
    )
    small, large = (labelled(count) for count in result["sizes"]["counts"])
    gap = train - judged
    narrow, wide = (result["config"]["widths"][i] for i in (0, -1))
    return (
        f"With {few} labelled a class of {result['config']['data']}, the best start"
        f" ({METHODS[best]}) is {interval(test[best][0] - test['scratch'][0])} points above"
        f" training from scratch, {ahead:.1f} against {behind:.1f} %, and training from scratch"
        f" needs {by_count.examples_needed(result, best)} that; with {many} the difference is"
        f" {interval(test[best][-1] - test['scratch'][-1])} points{within}. A dense net of {wide}"
        f" hidden units is right on {train[0, -1]:.1f} % of its training examples and"
        f" {judged[0, -1]:.1f} % of the test images with {small}, a gap of"
        f" {gap[0, -1]:.1f} points, and the gap is {gap[1, -1]:.1f} points with"
        f" {large}; one of {narrow} has {train[1, 0]:.1f} % in training even then, a gap of"
        f" {gap[1, 0]:.1f}."
    )


def report(result: dict[str, Any]) -> str:
    """Both tables, the finding, and what the numbers depend on."""
    config, run = result["config"], result["run"]
    train, test = (100 * np.array(result["sizes"][name]) for name in ("train", "test"))
    size_rows = [
        [str(width)]
        + [
            interval(values[i, w])
            for i in range(len(train))
            for values in (train, test, train - test)
        ]
        for w, width in enumerate(config["widths"])
    ]
    size_header = ["hidden units"] + [
        f"{name}, {labelled(count)}"
        for count in result["sizes"]["counts"]
        for name in ("train", "test", "gap")
    ]
    return "\n".join(
        [
            "test accuracy in %, ± 95 % over seeds by Student's t",
            by_count.table(result, METHODS),
            "dense nets from scratch, accuracy in %",
            tables.markdown(size_header, size_rows),
            result["finding"],
            f"{run['steps']:,} steps of {config['batch']}; {result['images']['test']:,} test"
            f" images; seeds {config['seed']} to {config['seed'] + config['seeds'] - 1}, each"
            " with other examples; the net is LeNet; batch norm: none",
            by_count.chosen(result, METHODS),
            tables.made_by(run),
        ]
    )


def draw_gap(result: dict[str, Any], figure: Any) -> None:
    """Accuracy in training and test by width, one panel a count; the gap is shaded."""
    widths = result["config"]["widths"]
    axes = figure.subplots(1, 2, sharey=True)
    for i, (axis, count) in enumerate(zip(axes, result["sizes"]["counts"], strict=True)):
        means = []
        for color, name in enumerate(("train", "test")):
            mean, half = seeds_mean_ci95(100 * np.array(result["sizes"][name][i]), axis=1)
            style = {"color": f"C{color}", "marker": "os"[color], "capsize": 3}
            axis.errorbar(widths, mean, np.nan_to_num(half), label=name, markersize=5, **style)
            means.append(mean)
        axis.fill_between(widths, *means, color="0.5", alpha=0.15, lw=0, label="gap")
        axis.set_xscale("log", base=2)
        axis.set_xticks(widths, [str(width) for width in widths])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.set(
            xlabel="hidden units", title=f"{labelled(count)} a class" if count else "all examples"
        )
    axes[0].set(ylabel="accuracy in %, ± 95 % over seeds", ylim=(0, 103))
    axes[0].legend(loc="lower right")
