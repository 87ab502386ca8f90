"""An episode that a sampler drew, looked at before a training that would fail late."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.errors import InputError
from jaxdl.types import Batch, Cells, Episode


def check_episode(episode: Any) -> None:
    """Refuses what is no episode, and one that nobody can learn.

    Raises:
        InputError: saying what to draw.
    """
    parts = episode if isinstance(episode, Episode) else ()
    if not parts or not all(isinstance(part, Batch) for part in parts):
        found = next((part for part in parts if not isinstance(part, Batch)), episode)
        within = "an Episode that holds " if parts else ""
        raise InputError(
            f"the sampler drew {within}{type(found).__name__}. Let it return"
            " jaxdl.Episode(support, query), each a jaxdl.Batch(x, y)"
        )
    for name, part in zip(("support set", "query set"), parts, strict=True):
        check_values(name, part)


def check_columns(episode: Episode) -> None:
    """Refuses queries that are other inputs than the examples of the support set.

    Call it where a learner failed: nets of sequences, say, may take other lengths.

    Raises:
        InputError: saying what differs.
    """
    support, query = (part.x for part in episode)
    structures: list[Any] = [jax.tree.structure(x) for x in (support, query)]
    if structures[0] != structures[1]:
        raise InputError(
            f"the inputs of the support set of an episode are {structures[0]}, and those of the"
            f" query set {structures[1]}. Draw both alike"
        )
    for one, other in zip(*map(jax.tree.leaves, (support, query)), strict=True):
        if one.shape[1:] != other.shape[1:]:
            raise InputError(
                f"this learner fails where the examples of the support set are"
                f" {list(one.shape[1:])} and those of the query set {list(other.shape[1:])}. Draw"
                " both alike"
            )


def check_values(name: str, part: Batch) -> None:
    """Refuses weights that are not finite or negative, and inputs that count and are not finite.

    Raises:
        InputError: naming the part of the episode.
    """
    leaves = jax.tree.leaves(part.x)
    if not leaves or any(np.ndim(leaf) == 0 for leaf in leaves):
        raise InputError(
            f"the {name} of an episode has no rows: {'an input is a single number' * bool(leaves)}"
            f"{'there is no input' * (not leaves)}. Give arrays `[n, ...]` of n examples"
        )
    count = len(leaves[0])
    weight = np.ones(count) if part.weight is None else np.asarray(part.weight, np.float64)
    if not (np.isfinite(weight).all() and (weight >= 0).all()):
        raise InputError(
            f"the {name} of an episode has a weight that is negative or not finite. Give each"
            " example a weight of 0 or more"
        )
    if not (weight > 0).any():
        raise InputError(
            f"the {name} of an episode has no example that counts. Draw at least one whose weight"
            " is above 0"
        )
    for x in jax.tree.leaves(part.x, is_leaf=lambda leaf: isinstance(leaf, Cells)):
        if isinstance(x, Cells) or not jnp.issubdtype(x.dtype, jnp.inexact):
            continue
        if weight.shape == x.shape[:1] and not jnp.isfinite(x[weight > 0]).all():
            raise InputError(
                f"the inputs of the {name} of an episode hold NaN or infinity. Correct them, or"
                " give these examples the weight 0"
            )


def check_outputs(outputs: int, episode: Episode) -> None:
    """Refuses labels below 0, and labels for which a learner has no output.

    A single output may be the logit of two classes, whatever two numbers they have.

    Raises:
        InputError: naming the label.
    """
    labels, counted = 0, []
    for part in episode:
        counts = np.ones(len(part.y)) if part.weight is None else np.asarray(part.weight)
        counted.append(np.asarray(part.y)[counts > 0])
    if outputs == 1 and len(np.unique(np.concatenate([each.ravel() for each in counted]))) <= 2:
        return
    for found in counted:
        if found.min() < 0:
            raise InputError(
                f"an episode has the label {found.min()}, but labels count from 0. Renumber them,"
                " or give examples without a label the weight 0"
            )
        labels = max(labels, int(found.max()) + 1)
    if outputs < labels:
        raise InputError(
            f"the learner predicts {outputs} classes, but the labels of an episode go up to"
            f" {labels - 1}. Give it {labels} outputs or `ways={labels}`, or draw tasks of"
            f" {outputs} classes"
        )
