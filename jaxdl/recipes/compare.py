"""The learners of runs of few_shot, compared episode by episode.

All runs have met the same test episodes, so the difference in one episode is paired. Its interval
is narrower than the intervals of the two means suggest, because some tasks are hard for all.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdl.data.prepare.cache import load_arrays
from jaxdl.data.sets.images import OMNIGLOT_SEED
from jaxdl.errors import InputError, RunError, content_of, damaged
from jaxdl.recipes.choice import name_of
from jaxdl.recipes.score import EPISODES
from jaxdl.recipes.side_by_side import write_side_by_side
from jaxdl.report import tables
from jaxdl.report.intervals import Interval, over_episodes, over_seeds
from jaxdl.runs.identity import DIGESTS, recorded_config

SAME = ("data", "split", "rotations", "ways", "shots", "test_queries", "test_episodes")
"""The fields that decide the test episodes, beside the test fields that stand in for them."""

LATER = {
    "omniglot_seed": OMNIGLOT_SEED,
    "split_seed": 0,
    "target": "",
    "task": "",
    "target_kind": "auto",
}
"""Fields that decide them, too, and came later, with their defaults."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Compare the learners of runs of few_shot on the test episodes that all of them have met."""

    runs: tuple[Path, ...]
    """Folders of two or more finished runs with the same test episodes. The others are compared
    with the first."""
    page: Path | None = None
    """Also write a page with these tables, and with curves over steps and over minutes, to this
    file, such as compare.html."""


DELETE = "Delete result.json and run it again"


class Difference(NamedTuple):
    """The metric of the second run minus that of the first.

    `over_seeds` pairs seed s of both; it is None where they have not the same number of seeds, or
    a single one.
    """

    first: float
    second: float
    over_episodes: Interval
    over_seeds: Interval | None


def compare(first: Path, second: Path) -> dict[str, Difference]:
    """The difference of two runs for each metric.

    Raises:
        InputError: if one is no finished run of few_shot, or their test episodes differ.
        RunError: if a file of them is damaged.
    """
    configs = [recorded_config(path) for path in (first, second)]
    episodes = [_episodes_of(config) for config in configs]
    if changed := [key for key in episodes[0] if episodes[0][key] != episodes[1][key]]:
        pairs = ", ".join(
            "other files" if key == "content" else " ".join([key, *_both(episodes, key)])
            for key in changed
        )
        raise InputError(
            f"{first} and {second} were tested on different episodes: {pairs}. Give two runs with"
            " the same test episodes"
        )
    values = [_values(*each) for each in zip((first, second), configs, strict=True)]
    with content_of(second / EPISODES, DELETE):
        return {name: difference(values[0][name], values[1][name]) for name in values[0]}


def difference(
    first: Float[np.ndarray, "seeds episodes"], second: Float[np.ndarray, "others episodes"]
) -> Difference:
    """The difference of two arrays of one metric, paired by episode and by seed.

    >>> found = difference(np.array([[0.4, 0.6]]), np.array([[0.5, 0.9]]))
    >>> [round(float(each), 3) for each in (found.first, found.second, found.over_episodes.mean)]
    [0.5, 0.7, 0.2]
    """
    by_episode = over_episodes(second.mean(axis=0) - first.mean(axis=0))
    by_seed = None
    if len(first) == len(second) > 1:
        by_seed = over_seeds(second.mean(axis=1) - first.mean(axis=1))
    return Difference(float(first.mean()), float(second.mean()), by_episode, by_seed)


def main(arguments: Arguments) -> None:
    """Prints the comparison as tables, and writes the page if one is asked for."""
    if len(arguments.runs) < 2:
        raise InputError("compare takes two runs or more. Give the folders of finished runs")
    text = comparison(arguments.runs)
    print(text)
    if arguments.page is not None:
        named = dict(zip(names_of(arguments.runs), arguments.runs, strict=True))
        write_side_by_side(arguments.page, named, text)


def comparison(runs: Sequence[Path]) -> str:
    """A table per metric: the mean of each run, and its difference from the first."""
    first, *others = runs
    name, *names = names_of(runs)
    found = [compare(first, other) for other in others]
    parts = []
    for metric, difference in found[0].items():
        scale, digits = (100, 2) if metric == "accuracy" else (1, 3)
        rows = [[name, f"{scale * difference.first:.{digits}f}", "", ""]]
        for other, each in zip(names, [one[metric] for one in found], strict=True):
            row = [other, f"{scale * each.second:.{digits}f}"]
            both = (each.over_episodes, each.over_seeds)
            rows.append([*row, *(_shown(over, scale, digits) for over in both)])
        title = "accuracy in %" if metric == "accuracy" else metric
        over = f"minus {name}, ± 95 % over"
        header = [title, "mean", f"{over} episodes", f"{over} seeds"]
        parts += [tables.markdown(header, rows), ""]  # without a blank line the tables would be one
    parts.append("Differences are paired by episode, and by seed. A lower loss is better.")
    for other, path in zip(names, others, strict=True):
        if told := other_training(first, path):
            parts.append(f"{name} and {other} trained otherwise: {told}")
    folders = zip([name, *names], runs, strict=True)
    return "\n".join([*parts, *(f"{each}: {path}" for each, path in folders)])


def names_of(runs: Sequence[Path]) -> list[str]:
    """The learners of runs; with the folder where two have the same learner, or else a number."""
    found = [name_of(recorded_config(path)) for path in runs]
    for more in ([path.resolve().name for path in runs], map(str, range(1, len(runs) + 1))):
        found = [
            f"{name} {what}" if found.count(name) > 1 else name
            for name, what in zip(found, more, strict=True)
        ]
    return found


def other_training(first: Path, second: Path) -> str:
    """The settings in which two runs differ, beside the learner: "steps 4000 and 500".

    Settings that only one of them has, such as those of its learner, are left out.
    """
    one, other = (recorded_config(path) for path in (first, second))
    own = {"learner", "run", "runs_dir", "seed", "seeds", *DIGESTS.values()}
    changed = [key for key in one if key in other and key not in own and one[key] != other[key]]
    return ", ".join(" ".join([key, *_both((one, other), key)]) for key in changed)


def _both(values: Sequence[Mapping[str, Any]], key: str) -> tuple[str, ...]:
    """Two values as words: "5", "and", "20"."""
    return str(values[0][key]), "and", str(values[1][key])


def _shown(interval: Interval | None, scale: float, digits: int) -> str:
    if interval is None:
        return ""
    half = (interval.high - interval.low) / 2
    return f"{scale * interval.mean:+.{digits}f} ± {scale * half:.{digits}f}"


def _episodes_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the test episodes of a run."""
    found = {name: config.get(name) for name in SAME}
    for name, default in LATER.items():  # runs of before have none
        found[name] = config.get(name, default)
    for name in ("data", "ways", "shots"):
        found[name] = config.get(f"test_{name}") or found[name]
    if config.get("task"):
        found["ways"] = None  # the tasks of a table have all classes
    return found | {"content": config.get(DIGESTS["path"])}


def _values(path: Path, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The metrics of the run's learner, `[seeds, episodes]`."""
    file = path / EPISODES
    if not file.exists():
        raise InputError(
            f"{path} has no {EPISODES}. Give finished runs of few_shot, the only experiment that"
            " keeps its test episodes; repeat a run that was made before it did"
        )
    try:
        prefix, arrays = f"{name_of(config)}/", load_arrays(file)
    except RunError as error:
        raise damaged(file, "its arrays cannot be read", DELETE) from error
    found = {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
    with content_of(file, DELETE):
        shape = len(found["loss"]), config["test_episodes"]
        for name, array in found.items():
            if array.dtype.kind != "f" or array.shape != shape or not array.size:
                raise ValueError(f"{name} is {array.dtype} {array.shape}, not {shape}")
    return found
