"""What the reports of neural processes share."""

from typing import Any

import numpy as np
from jaxtyping import Float

from jaxdl.losses import Normal
from jaxdl.report import tables
from jaxdl.report.intervals import seeds_summary
from jaxdl.report.pictures import band
from jaxdl.runs.run import Run


def cell(of_seeds: list[dict[str, Any]], digits: int = 3) -> str:
    """The mean over seeds with its interval; that over tasks, if there is one seed."""
    found = seeds_summary([float(each["mean"]) for each in of_seeds])
    if len(of_seeds) == 1:
        found["ci95"] = float(of_seeds[0]["ci95"])
    return tables.interval(found, digits=digits)


def moments(found: Normal) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Mean and standard deviation `[tasks, n, outputs]`; of samples, those of their mixture."""
    mean, scale = np.asarray(found.mean), np.asarray(found.scale)
    if mean.ndim < 4:
        return mean, scale
    total = np.sqrt(np.mean(scale**2 + mean**2, -1) - np.mean(mean, -1) ** 2)
    return mean.mean(-1), total


def draw_curve(run: Run, figure: Any) -> None:
    """The training loss by step."""
    axis, lines = figure.subplots(), run.metrics("train")
    band(axis, lines["step"], lines["loss"], 0)
    axis.set(xlabel="step", ylabel="training loss, nats per point")
