"""Report and pictures of the experiment `regression_2d`."""

import math
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from experiments.reports._processes import cell, moments
from jaxdl.recipes.choice import name_of
from jaxdl.report import tables
from jaxdl.types import Batch, Episode, MetaLearner, Params

METRICS = {
    "log_likelihood": "log-likelihood",
    "joint_log_likelihood": "log-likelihood, jointly",
    "squared_error": "squared error",
    "context": "log-likelihood of given pixels",
}
"""The metrics of the table with their titles."""
TITLES = {"mean_picture": "mean picture", "nearest_pixel": "nearest given pixel"}
UNKNOWN = (0.6, 0.8, 1.0)
"""The colour of a pixel that is not given."""


def report(result: dict[str, Any]) -> str:
    """The result as a table: a row per method and metric, a column per number of given pixels."""
    run, config, scores = result["run"], result["config"], result["scores"]
    given, name = [str(n) for n in config["context"]], name_of(result["config"])
    of_learner, rows = scores[name], []
    for metric, title in METRICS.items():
        if metric not in of_learner[given[0]][0]:
            continue
        rows.append([f"{name}, {title}", *_cells(of_learner, given, metric)])
        if metric in ("log_likelihood", "squared_error"):
            for baseline, called in TITLES.items():
                of_baseline = {n: [found] for n, found in scores[baseline].items()}
                rows.append([f"{called}, {title}", *_cells(of_baseline, given, metric)])
    seeds = len(of_learner[given[0]])
    header = [f"per pixel, ± 95 % over {'seeds' if seeds > 1 else 'pictures'}"]
    most = -math.log(result["least_scale"]) - math.log(2 * math.pi) / 2
    notes = [
        f"trained for {run['steps']:,} steps of {config['tasks']} of {result['images']['train']:,}"
        f" pictures, with 3 to {config['points'] - 3} pixels given;"
        f" {tables.seeds(config['seed'], seeds)}; {config['test_tasks']:,} draws of"
        f" {result['images']['test']:,} test pictures per column; {result['parameters']:,}"
        " parameters; no batch norm",
        "pixels that are given count in the last row alone; grey values go from -0.5 to 0.5; no"
        f" scale is below {result['least_scale']}, so no log-likelihood is above {most:.3f}",
        "mean picture: mean and deviation of each pixel of the training pictures; nearest given"
        " pixel: its value, and its root mean squared error on training pictures as the scale;"
        " their ± is over pictures",
        tables.made_by(run),
    ]
    return "\n".join([tables.markdown([*header, *_columns(given)], rows), *notes])


def _columns(given: list[str]) -> list[str]:
    return [f"{n} pixel{'s' * (n != '1')} given" for n in given]


def _cells(scores: dict[str, Any], given: list[str], metric: str) -> list[str]:
    digits = 4 if metric == "squared_error" else 3
    return [cell([seed[metric] for seed in scores[n]], digits) for n in given]


def draw_pictures(
    learner: MetaLearner, params: Params, episodes: dict[str, Episode], figure: Any
) -> None:
    """A column per picture: itself, and for each number of pixels what is given, the mean and the
    standard deviation that the learner predicts."""

    @jax.jit
    def predict(episode: Episode) -> Any:
        adapted = learner.adapt(jax.random.key(0), params, episode.support)
        return learner.predict(adapted, episode.query.x)

    whole = next(iter(episodes.values())).query
    rows = {"picture": whole.y[..., 0] + 0.5}
    for n, episode in episodes.items():
        mean, scale = moments(jax.vmap(predict)(episode))
        rows |= {f"{n} given": given_pixels(episode.query), f"mean, {n}": mean[..., 0] + 0.5}
        rows |= {f"scale, {n}": scale[..., 0]}
    axes = figure.subplots(len(rows), len(whole.y), squeeze=False)
    for line, (title, found) in zip(axes, rows.items(), strict=True):
        for axis, values in zip(line, np.asarray(found), strict=True):
            size = math.isqrt(len(values))
            dark, top = ("magma", 0.5) if title.startswith("scale") else ("gray_r", 1)
            axis.imshow(values.reshape(size, size, *values.shape[1:]), cmap=dark, vmin=0, vmax=top)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(title, fontsize="small")
    figure.suptitle(
        "blue: not given; scale: the standard deviation, from 0 (black) to 0.5", fontsize="small"
    )


def given_pixels(query: Batch) -> Float[np.ndarray, "tasks pixels 3"]:
    """Colours of all pixels: ink is black, and what is not given, and so counts, is blue."""
    grey = 1 - (np.asarray(query.y) + 0.5).repeat(3, axis=2)
    return np.where(np.asarray(query.weight)[..., None] > 0, np.array(UNKNOWN), grey)
