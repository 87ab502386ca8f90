"""Divergence of a training: a loss, or the state, is not finite."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxdl.files.leaves import is_key
from jaxdl.types import PyTree


def is_loss(name: str) -> bool:
    """Whether a metric is a loss: "loss" is one of the words of its name.

    `loss`, `loss/0`, `value_loss` and `loss2` are losses; `accuracy` and `lossless` are not.
    """
    return "loss" in re.findall("[a-z]+", name.lower())


def first_bad_loss(metrics: Mapping[str, np.ndarray]) -> tuple[int, str] | None:
    """The first loss that is not finite, in the metrics `[seeds, steps]` of a chunk.

    Other metrics may be NaN: an accuracy over zero examples, say.

    Returns:
        Its index along the steps, and its name: "loss", or "loss of seed 1 of 3". None if all
        losses are finite.
    """
    found = []
    for name in filter(is_loss, metrics):
        seeds = len(metrics[name])
        for seed, offset in np.argwhere(~np.isfinite(metrics[name])).tolist():
            found.append((offset, f"{name} of seed {seed + 1} of {seeds}" if seeds > 1 else name))
    return min(found, key=lambda place: place[0], default=None)


def can_go_on(state: PyTree) -> bool:
    """Whether a state may be saved: its parameters are finite, and nothing is NaN.

    An optimiser's state may hold infinity (the best loss so far). Random keys are not checked.
    """
    params = jax.tree.leaves(getattr(state, "params", ()))
    return not any(_holds(np.isnan, leaf) for leaf in jax.tree.leaves(state)) and not any(
        _holds(np.isinf, leaf) for leaf in params
    )


def _holds(is_bad: Callable[[Any], Any], leaf: Any) -> bool:
    return not is_key(leaf) and bool(np.any(is_bad(leaf)))
