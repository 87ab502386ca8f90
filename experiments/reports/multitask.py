"""What the experiment on many tasks says and draws, read off its result."""

from typing import Any

import numpy as np

from jaxdl.report import tables
from jaxdl.report.intervals import seeds_mean_ci95, seeds_summary

MARKERS = "osD^v<>Pp*XhHd"
ALONE = {"overlaid": "two single nets", "binary": "ten single nets"}


def finding(result: dict[str, Any]) -> str:
    """What a reader can quote, read off the numbers."""
    says = said_of_overlaid if result["config"]["case"] == "overlaid" else said_of_questions
    return says(result)


def said_of_overlaid(result: dict[str, Any]) -> str:
    """Equal weights beside single nets, and the other methods beside equal weights."""
    single, equal = result["methods"]["single"], result["methods"]["equal"]
    gained = {
        name: seeds_mean_ci95(difference(found, equal))
        for name, found in result["methods"].items()
        if name not in ("single", "equal")
    }
    better = [name for name, (mean, half) in gained.items() if mean > half]
    worse = [name for name, (mean, half) in gained.items() if mean < -half]
    told = (
        f"With equal weights one net names {100 * equal['mean']['mean']:.2f} % of the digits,"
        f" {shown(difference(equal, single))} points from the two single nets, with"
        f" {share_of_parameters(result):.0f} % of their parameters; the two gradients conflict in"
        f" {100 * equal['conflicts']['mean']:.0f} % of the batches."
    )
    if not gained:
        return told
    if result["config"]["seeds"] == 1:
        return f"{told} One seed leaves no interval to compare the methods by."
    return (
        f"{told} Of {len(gained)} other methods, {' and '.join(better) or 'none'} "
        f"{'are' if len(better) > 1 else 'is'} better than equal weights, and"
        f" {' and '.join(worse) or 'none'} worse, by more than the 95 % interval of the difference"
        f" (paired by seed; chance alone would put {0.05 * len(gained):.1f} of them outside)."
    )


def said_of_questions(result: dict[str, Any]) -> str:
    """One net with ten heads beside ten nets."""
    single, equal = result["methods"]["single"], result["methods"]["equal"]
    ten = [100 * found["ten_way"]["mean"] for found in (equal, single)]
    change = 100 * (values(equal["ten_way"]) - values(single["ten_way"]))
    f1 = 100 * (values(equal["f1_mean"]) - values(single["f1_mean"]))
    faster = (
        f", and a step takes {equal['ms_per_step'] / single['ms_per_step']:.2f} times as long"
        if equal["ms_per_step"] and single["ms_per_step"]
        else ""
    )
    return (
        f"One net with ten heads has {share_of_parameters(result):.0f} % of the parameters of ten"
        f" nets{faster}. By the surest of its answers it names {ten[0]:.2f} % of the digits, they"
        f" {ten[1]:.2f} %: a difference of {shown(change)} points; of the mean F1 score it is"
        f" {shown(f1)} points."
    )


def values(summary: dict[str, Any]) -> np.ndarray:
    """By seed."""
    return np.array(summary["values"])


def difference(found: dict[str, Any], other: dict[str, Any]) -> np.ndarray:
    """Of mean accuracies, in points, by seed: both had the same data in the same order."""
    return 100 * (values(found["mean"]) - values(other["mean"]))


def shown(by_seed: np.ndarray) -> str:
    """Mean and interval."""
    return tables.interval(seeds_summary(by_seed))


def share_of_parameters(result: dict[str, Any]) -> float:
    """Of the shared net, in % of those of the single nets."""
    equal, single = (result["methods"][name]["parameters"] for name in ("equal", "single"))
    return float(100 * equal / single)


def report(result: dict[str, Any]) -> str:
    """The tables of a case, the finding, and what the numbers depend on."""
    config, run = result["config"], result["run"]
    overlaid = config["case"] == "overlaid"
    counts = ", ".join(
        f"{result['methods'][name]['parameters']:,} in {what}"
        for name, what in (("single", ALONE[config["case"]]), ("equal", "the shared net"))
    )
    notes = [
        result["finding"],
        f"parameters: {counts}; {run['steps']:,} steps of {config['batch']};"
        f" {tables.seeds(config['seed'], config['seeds'])}; batch norm: none",
        f"{result['images']['test']:,} test images; the last parameters;"
        f" {config['validation']:,} images held out for choices, none made on test",
        "conflicts: share of pairs of tasks whose gradients in the trunk have a negative inner"
        f" product, on {config['probes']} batches at each validation; ms a step are of one seed,"
        " without compilation and validation",
    ]
    if config["decay_steps"] > run["steps"]:
        notes.append(
            f"stopped before the learning rate had fallen (--decay-steps {config['decay_steps']:,})"
        )
    table = methods_table(result) if overlaid else questions_tables(result)
    return "\n".join([table, *notes, tables.made_by(run)])


def methods_table(result: dict[str, Any]) -> str:
    """A row a method."""
    methods = result["methods"]
    rows = [
        [
            ALONE["overlaid"] if name == "single" else name,
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
    header = ["MultiMNIST, test accuracy in %", *result["tasks"], "mean", "to single", "to equal"]
    return tables.markdown([*header, "conflicts %", "ms a step"], rows)


def costs(result: dict[str, Any], name: str) -> list[str]:
    """Conflicts in %, and milliseconds of a step."""
    found = result["methods"][name]
    conflicts, ms = found["conflicts"], found["ms_per_step"]
    return [
        "" if conflicts is None else tables.interval(conflicts, scale=100, digits=0),
        "" if ms is None else f"{ms:.2f}",
    ]


def questions_tables(result: dict[str, Any]) -> str:
    """A row a net, and a row a digit."""
    steps, seeds = result["run"]["steps"], result["config"]["seeds"]
    names = {
        name: ALONE["binary"] if name == "single" else f"one net, {name}"
        for name in result["methods"]
    }
    rows = []
    for name, found in result["methods"].items():
        figures = [tables.interval(found[key], scale=100) for key in ("mean", "f1_mean", "ten_way")]
        conflicts, ms = costs(result, name)
        seconds = f"{found['ms_per_step'] * steps * seeds / 1000:.0f}" if ms else ""
        parameters = f"{found['parameters']:,}"
        rows.append([names[name], *figures, parameters, conflicts, ms, seconds])
    rate = 100 * np.mean(result["base_rates"])
    header = ["mean of ten questions", f"accuracy in % (base rate {rate:.2f})", "F1 in %"]
    header += ["ten-way accuracy in %", "parameters", "conflicts %", "ms a step", "s, all seeds"]
    each = [
        [
            task,
            f"{100 * result['base_rates'][i]:.2f}",
            *(
                tables.interval(found[key][i], scale=100)
                for key in ("accuracy", "f1")
                for found in result["methods"].values()
            ),
        ]
        for i, task in enumerate(result["tasks"])
    ]
    columns = [f"{key}, {name}" for key in ("accuracy", "F1") for name in names.values()]
    questions = tables.markdown(["is it this digit? in %", "base rate", *columns], each)
    return "\n".join([tables.markdown(header, rows), questions])


def draw_accuracy(result: dict[str, Any], figure: Any) -> None:
    """Accuracy on the left digit against the right one, a mark a method; single nets as lines."""
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
    """What an axis shows, in %: all means, and room for usual intervals, not for the widest."""
    means = [single, *(100 * found["mean"] for found in accuracies)]
    room = 2 * float(np.median([100 * (found["ci95"] or 0) for found in accuracies])) + 0.2
    return max(min(means) - room, 0), min(max(means) + room, 100)


def draw_samples(
    canvases: np.ndarray, labels: np.ndarray, predicted: np.ndarray, figure: Any
) -> None:
    """The first canvases `[n, h, w, 1]`, and the first with an error; `predicted` is `[n, 2]`."""
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


def draw_questions(result: dict[str, Any], figure: Any) -> None:
    """F1 score by question, of the single nets and of the shared one."""
    axis, x = figure.subplots(), np.arange(len(result["tasks"]))
    for i, (name, found) in enumerate(result["methods"].items()):
        mean = [100 * task["mean"] for task in found["f1"]]
        half = [100 * (task["ci95"] or 0) for task in found["f1"]]
        label = ALONE["binary"] if name == "single" else f"one net, {name}"
        axis.errorbar(
            x + 0.15 * (i - (len(result["methods"]) - 1) / 2),
            mean,
            half,
            marker=MARKERS[i % len(MARKERS)],
            ls="",
            capsize=3,
            label=label,
        )
    axis.set_xticks(x, result["tasks"])
    axis.grid(alpha=0.3)
    axis.set(xlabel="is it this digit?", ylabel="F1 score in %, ± 95 % over seeds")
    figure.legend(loc="outside upper center", ncols=2)
