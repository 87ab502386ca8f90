"""Report and picture of the experiment `many_questions`."""

from typing import Any

import numpy as np

from experiments.reports._many_tasks import MARKERS, costs, notes, shown, values
from jaxdl.report import tables

SINGLE = "ten single nets"


def report(result: dict[str, Any]) -> str:
    """One row per net, one row per digit, then settings, seeds, data and machine."""
    return "\n".join([questions_tables(result), *notes(result, SINGLE)])


def questions_tables(result: dict[str, Any]) -> str:
    """One row per net, the differences paired by seed, and one row per digit."""
    steps, seeds = result["run"]["steps"], result["config"]["seeds"]
    names = {name: SINGLE if name == "single" else f"one net, {name}" for name in result["methods"]}
    rows = []
    for name, found in result["methods"].items():
        figures = [tables.interval(found[key], scale=100) for key in ("mean", "f1_mean", "ten_way")]
        conflicts, ms = costs(result, name)
        seconds = f"{found['ms_per_step'] * steps * seeds / 1000:.0f}" if ms else ""
        parameters = f"{found['parameters']:,}"
        rows.append([names[name], *figures, parameters, conflicts, ms, seconds])
    methods = result["methods"]
    rows += [
        [
            f"{names[name]}, minus {SINGLE}",
            *(
                shown(100 * (values(found[key]) - values(methods["single"][key])))
                for key in ("mean", "f1_mean", "ten_way")
            ),
            *[""] * 4,
        ]
        for name, found in methods.items()
        if name != "single"
    ]
    rate = 100 * np.mean(result["base_rates"])
    header = ["mean of ten questions", f"accuracy in % (base rate {rate:.2f})", "F1 in %"]
    header += ["ten-way accuracy in %", "parameters", "conflicts %", "ms per step", "s, all seeds"]
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
    return "\n\n".join([tables.markdown(header, rows), questions])


def draw_questions(result: dict[str, Any], figure: Any) -> None:
    """F1 score by question, of the single nets and of the shared net."""
    axis, x = figure.subplots(), np.arange(len(result["tasks"]))
    for i, (name, found) in enumerate(result["methods"].items()):
        mean = [100 * task["mean"] for task in found["f1"]]
        half = [100 * (task["ci95"] or 0) for task in found["f1"]]
        label = SINGLE if name == "single" else f"one net, {name}"
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
