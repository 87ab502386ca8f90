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
    """The first loss that is not finite, in the metrics `[seeds, steps, ...]` of a chunk.

    Other metrics may be NaN: an accuracy over zero examples, say.

    Returns:
        Its index along the steps, and its name: "loss", or "loss of seed 1 of 3". None if all
        losses are finite.
    """
    found = []
    for name in filter(is_loss, metrics):
        seeds = len(metrics[name])
        for seed, offset, *_ in np.argwhere(~np.isfinite(metrics[name])).tolist():
            found.append((offset, f"{name} of seed {seed + 1} of {seeds}" if seeds > 1 else name))
    return min(found, key=lambda place: place[0], default=None)


def suspect(metrics: Mapping[str, np.ndarray], done: int) -> str:
    """A sentence that names the likely cause: the inner optimiser, or the data; or "".

    The derivative of an inner optimiser may be NaN where its steps are finite. Then the loss of a
    step is as before, and the next one is NaN. A learning rate that is too high mostly shows in
    losses that grow, or in infinity. So nothing is said of these. No gradient came before the first
    loss of all, so there the data are named.

    Args:
        metrics: of a chunk, `[seeds, steps]`, in which a loss is not finite, or after which the
            state is not.
        done: the steps before the chunk.

    >>> calm = {"loss": np.array([[0.5, 0.4, np.nan]])}
    >>> suspect(calm, done=0)[:71]
    'The loss was finite one step before, so its gradient is the suspect. If'
    >>> suspect({"loss": np.array([[0.5, 1e9, np.nan]])}, done=0)
    ''
    >>> suspect({"loss": np.array([[np.nan]])}, done=0)[:44]
    'It is the first loss of all, so look at the '
    """
    if not any(map(is_loss, metrics)):
        return ""
    if (found := first_bad_loss(metrics)) is not None:
        offset, name = found
        rows = metrics[name.partition(" of seed ")[0]]
        rows = rows.reshape(*rows.shape[:2], -1).sum(axis=-1)  # of several, the sum is as bad
        bad = rows[~np.isfinite(rows[:, offset]), : offset + 1]
        grew = offset and bool(np.any(np.abs(bad[:, -2]) > GREW * np.abs(bad[:, 0])))
        if done + offset == 0:
            return (
                "It is the first loss of all, so look at the data: NaN, very large inputs, or"
                " labels outside [0, classes)"
            )
        if grew or not np.isnan(bad[:, -1]).any():
            return ""
    return (
        "The loss was finite one step before, so its gradient is the suspect. If the loss contains"
        " an inner loop, as that of MAML does, its optimiser may have a NaN derivative:"
        " the page inner-optimisers of the documentation"
    )


GREW = 10
"""A loss that is so many times the first one of its chunk shows a divergence that builds up."""


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
