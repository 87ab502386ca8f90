"""Where a run is another than its paper's recipe, so that the paper's number is no aim of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxdl.recipes.choice import name_of
from jaxdl.runs.config import flat


def departures(
    config: Mapping[str, Any], recipe: Mapping[str, Any], names: Sequence[str]
) -> list[str]:
    """A sentence for each of these settings that both have and that differs.

    >>> departures({"steps": 500, "lr": 0.1}, {"steps": 60_000, "lr": 0.1}, ["steps", "lr", "clip"])
    ['steps: 500 here, 60,000 in the recipe.']
    """
    return [
        f"{name.replace('_', ' ')}: {_shown(config[name])} here, {_shown(recipe[name])} in the"
        " recipe."
        for name in names
        if name in config and name in recipe and _shown(config[name]) != _shown(recipe[name])
    ]


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


SETTINGS = (
    *("split", "omniglot_seed", "omniglot_resize", "rotations", "ways", "test_shots", "queries"),
    *("test_queries", "filters", "norm", "tasks", "lr", "clip", "test_inner_steps", "inner_steps"),
    "inner_lr",
)
"""The settings of a recipe of which nothing else is told."""


def of_few_shot(config: Mapping[str, Any], presets: Mapping[str, Any]) -> list[str]:
    """Where a run of few_shot departs from its paper, to be printed beside its number.

    Args:
        presets: the configurations of the papers, by learner, data, ways and shots.
    """
    if config["data"] not in ("omniglot", "cifar_fs", "fc100"):
        return []
    ways, end = (
        config.get("test_ways") or config["ways"],
        "-protonet" * (name_of(config) == "protonet"),
    )
    preset = presets.get(f"{config['data']}-{ways}way-{config['shots']}shot{end}")
    recipe = {} if preset is None else flat(preset)
    cosine = config.get("schedule") == "cosine"
    if name_of(config) == "protonet":
        net = ["The paper's net pools; this one has strides of 2, as MAML's."]
        return [
            *net * (config["data"] == "omniglot"),
            *departures(config, recipe, ("steps", *SETTINGS)),
            "The paper halves the learning rate every 2,000 episodes; here it"
            f" {'falls along a cosine' if cosine else 'is constant'}.",
        ]
    if name_of(config) not in ("maml", "fomaml"):
        return []
    inner = {
        "mean": "Inner loss: the mean over the support set, as the paper prints it; its code sums"
        " over classes.",
        "sum-over-classes": "Inner loss: summed over classes, as the code does; the paper prints"
        " the mean.",
    }
    found = [inner[config["inner_loss"]]]
    if config["data"] == "omniglot" and config["head"] == "xavier":
        found.append("The head starts as Xavier; the code draws it with standard deviation 1.")
    found += ["The paper's learning rate is constant; here it falls along a cosine."] * cosine
    found.append("All parameters adapt; in the code the batch-norm offsets do not.")
    if config["steps"] != 60_000:
        found.append(f"The paper trains 60,000 steps; this run {config['steps']:,}.")
    return [*found, *departures(config, recipe, SETTINGS)]
