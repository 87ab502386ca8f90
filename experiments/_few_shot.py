"""What the experiment on few-shot classification says, read off its result."""

from typing import Any

import numpy as np

from jaxdl.report import tables
from jaxdl.report.intervals import seeds_summary

METHODS = {
    "maml": "MAML",
    "pretrained": "pretrained, fine-tuned",
    "nearest_centroid": "nearest centroid of pixels",
}


def report(result: dict[str, Any]) -> str:
    """The result as a table, and what the numbers depend on.

    What another seed would bring is the interval over seeds; that over episodes is the mean of the
    seeds' own, and says how well each is known. Of a single seed there is the second alone.
    """
    config, run = result["config"], result["run"]
    many, rows = config["seeds"] > 1, []
    for name, title in METHODS.items():
        runs = result[name]  # of the centroid one for all seeds: nothing is trained
        found = seeds_summary([run["accuracy"] for run in runs])
        half = np.mean([run["ci95"] for run in runs])
        shown = tables.interval(found if many else {**found, "ci95": half}, scale=100)
        each = tables.by_seed(found, scale=100) * (len(runs) > 1)
        rows.append([title, shown, f"{100 * half:.2f}", each])
    if result["paper"]:
        rows.append(["MAML, published, ± over episodes", result["paper"], "", ""])
    title = f"{config['data']} {config['ways']}-way {config['shots']}-shot"
    header = [f"{title}, accuracy in %", f"mean, ± 95 % over {'seeds' if many else 'episodes'}"]
    header += ["± 95 % over episodes", "by seed"] * many
    table = tables.markdown(header, [row[: len(header)] for row in rows])
    notes = [
        f"{run['steps']:,} steps; {config['test_episodes']:,} test episodes with"
        f" {config['test_queries']} queries a class after {config['test_inner_steps']} inner steps;"
        f" {tables.seeds(config['seed'], config['seeds'])}",
        f"batch norm: {result['batch_norm']}; {result['split']}",
        f"chosen on validation: step {result['best_steps']}, fine-tuning rate"
        f" {result['fine_tuning_rate']}",
        *result["deviations"],
        tables.made_by(run),
    ]
    return "\n".join([table, *notes])
