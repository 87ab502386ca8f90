"""Report and picture of the experiment `capacity`."""

from typing import Any

import numpy as np

from jaxdl.report import tables
from jaxdl.report.by_count import interval, labelled
from jaxdl.report.intervals import seeds_mean_ci95


def report(result: dict[str, Any]) -> str:
    """Accuracy in training and test and their gap, by width, then settings, seeds and machine."""
    config, run = result["config"], result["run"]
    train, test = (100 * np.array(result["sizes"][name]) for name in ("train", "test"))
    rows = [
        [str(width)]
        + [
            interval(values[i, w])
            for i in range(len(train))
            for values in (train, test, train - test)
        ]
        for w, width in enumerate(config["widths"])
    ]
    header = ["hidden units"] + [
        f"{name}, {labelled(count)}"
        for count in result["sizes"]["counts"]
        for name in ("train", "test", "gap")
    ]
    return "\n".join(
        [
            "accuracy in %, ± 95 % over seeds by Student's t; counts are labels per class",
            tables.markdown(header, rows),
            f"{run['steps']:,} steps of {config['batch']}; {result['images']['test']:,} test"
            f" images; {tables.seeds(config['seed'], config['seeds'])}, each with other examples;"
            " one hidden layer; the last parameters, nothing is chosen; batch norm: none",
            tables.made_by(run),
        ]
    )


def draw_gap(result: dict[str, Any], figure: Any) -> None:
    """Accuracy in training and test by width, one panel per count. The gap is shaded."""
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
            xlabel="hidden units", title=f"{labelled(count)} per class" if count else "all examples"
        )
    axes[0].set(ylabel="accuracy in %, ± 95 % over seeds", ylim=(0, 103))
    axes[0].legend(loc="lower right")
