"""Report and pictures of the experiment `continual`."""

from typing import Any

import numpy as np

from jaxdl.report import tables
from jaxdl.report.intervals import seeds_summary

NAMES = {
    "online": "online",
    "independent": "independent nets",
    "ewc": "EWC",
    "agem": "A-GEM",
    "gem": "GEM",
    "er": "ER",
    "mer6": "MER, algorithm 6",
    "mer1": "MER, algorithm 1",
}
PAPER = {
    "rotations": {"online": 53.4, "gem": 87.1, "mer1": 89.6},
    "permutations": {"online": 55.4, "gem": 82.0, "mer1": 85.5},
}
"""Retained accuracy in MER's table for a memory of 5,120. The figures are recalled, not read."""
PAPER_MEMORIES = 5120


def beside_er(result: dict[str, Any], name: str) -> str:
    """Retained accuracy of a method minus that of ER, in points. It is empty for ER itself."""
    methods = result["methods"]
    if name == "er":
        return ""
    return tables.interval(seeds_summary(100 * (values(methods[name]) - values(methods["er"]))))


def values(found: dict[str, Any]) -> np.ndarray:
    """Retained accuracies by seed."""
    return np.array(found["retained"]["values"])


def report(result: dict[str, Any]) -> str:
    """The table of scores, then settings, seeds, data and machine."""
    config, run = result["config"], result["run"]
    paper = PAPER[config["data"]] if of_the_paper(config) else {}
    paired = "er" in result["methods"] and config["seeds"] > 1
    rows = [
        [
            NAMES[name],
            *(tables.interval(found[key], scale=100) for key in SCORES),
            *([beside_er(result, name)] if paired else []),
            *([f"{paper[name]:.1f}" if name in paper else ""] if paper else []),
            f"{found['ms_per_example']:.3f}" if found["ms_per_example"] else "",
        ]
        for name, found in result["methods"].items()
    ]
    title = {"mnist": "MNIST", "digits": "8x8 digits"}[config["images"]]
    header = [f"{title} {config['data'].capitalize()}, test accuracy in %", *SCORES.values()]
    header += ["RA beside ER, paired by seed"] * paired
    header += ["RA in the paper"] * bool(paper) + ["ms per example"]
    reached = len(next(iter(result["methods"].values()))["tasks_so_far"])
    notes = [
        f"{run['steps']:,} examples in {reached} tasks of {config['examples']:,}, each seen once;"
        f" memories of {config['memories']:,}; {result['test_images']:,} test images per task;"
        f" {tables.seeds(config['seed'], config['seeds'])}; no batch norm",
        "RA: retained, of all tasks after the last; LA: of each right after it; BTI: RA - LA",
        "settings: those published for a memory of 5,120; A-GEM's are GEM's; independent nets share"
        " 100 hidden units out among the tasks, and begin as copies of the one before",
    ]
    if paper:
        notes.append("the paper's figures are recalled, not read from it; ± is over seeds alone")
    return "\n".join([tables.markdown(header, rows), *notes, tables.made_by(run)])


SCORES = {"retained": "RA", "learning": "LA", "transfer": "BTI"}


def of_the_paper(config: dict[str, Any]) -> bool:
    """Whether the run is complete, and has the paper's stream and its largest memory."""
    whole = config["steps"] == config["tasks"] * config["examples"] == 20_000
    return (
        whole
        and config["tasks"] == 20
        and config["images"] == "mnist"
        and config["memories"] == PAPER_MEMORIES
    )


def style(name: str) -> dict[str, Any]:
    """The colour and the marker of a method, the same in every picture."""
    place = list(NAMES).index(name)
    return {"color": f"C{place}", "marker": "os^vDPX*"[place], "markersize": 4, "lw": 1.4}


def draw_retention(result: dict[str, Any], figure: Any) -> None:
    """Accuracy after each task, on the first task and on all so far, with 95 % bands over seeds."""
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"first_task": "the first task", "tasks_so_far": "all tasks so far"}
    for axis, (key, title) in zip(panels, titles.items(), strict=True):
        for name, found in result["methods"].items():
            tasks = 1 + np.arange(len(found[key]))
            mean = np.array([100 * each["mean"] for each in found[key]])
            half = np.array([100 * (each["ci95"] or 0) for each in found[key]])
            axis.plot(tasks, mean, **style(name), label=NAMES[name])
            axis.fill_between(
                tasks, mean - half, mean + half, color=style(name)["color"], alpha=0.15, lw=0
            )
        axis.grid(alpha=0.3)
        axis.set(xlabel="tasks learnt", title=title)
        axis.xaxis.get_major_locator().set_params(integer=True)
    panels[0].set_ylabel("test accuracy in %, bands: 95 % over seeds")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)


def draw_matrices(result: dict[str, Any], figure: Any) -> None:
    """Accuracy on every task after every task, for up to three methods."""
    wanted = ("online", "er", "mer1", "mer6")
    methods = [name for name in wanted if name in result["methods"]][:3]
    methods = methods or list(result["methods"])[:3]
    panels = figure.subplots(1, len(methods), sharey=True, squeeze=False)[0]
    for axis, name in zip(panels, methods, strict=True):
        found = result["methods"][name]
        matrix = 100 * np.asarray(found["matrix"])
        image = axis.imshow(matrix, vmin=0, vmax=100, cmap="viridis", origin="upper")
        axis.set(title=f"{NAMES[name]}, RA {100 * found['retained']['mean']:.1f} %")
        axis.set_xlabel("evaluated on task")
        ticks = np.arange(0, matrix.shape[1], max(1, matrix.shape[1] // 4))
        axis.set_xticks(ticks, ticks + 1)
        rows = np.arange(0, matrix.shape[0], max(1, matrix.shape[0] // 4))
        axis.set_yticks(rows, rows + 1)
    panels[0].set_ylabel("after task")
    figure.colorbar(image, ax=panels, label="test accuracy in %, mean over seeds", shrink=0.9)


def draw_tasks(shown: np.ndarray, angles: list[float] | None, figure: Any) -> None:
    """The first test images in the form of each task, `shown` uint8 `[images, tasks, pixels]`."""
    count, tasks, pixels = shown.shape
    side = int(np.sqrt(pixels))
    panels = figure.subplots(count, tasks, squeeze=False)
    for row, of_image in zip(panels, shown, strict=True):
        for axis, image in zip(row, of_image, strict=True):
            axis.imshow(image.reshape(side, side), cmap="gray_r", vmin=0, vmax=255)
            axis.set_axis_off()
    for task, axis in enumerate(panels[0]):
        name = f"{task + 1}" if angles is None else f"{angles[task]:.0f}°"
        axis.set_title(name, fontsize="small")
    figure.suptitle(
        "the first test images in every task"
        + (", an order of the pixels" if angles is None else ", turned by so many degrees"),
        fontsize="medium",
    )
