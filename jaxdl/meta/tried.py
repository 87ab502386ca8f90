"""A learner tried on one episode, by shapes alone, before a training that would fail late."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.errors import InputError, arguments_of, takes
from jaxdl.losses import measured
from jaxdl.types import Batch, Cells, Episode, LossFn, Metrics, PyTree

SIGNATURES = {
    "init": "init(key, x)",
    "adapt": "adapt(key, params, support, steps=None)",
    "predict": "predict(adapted, x, *, key=None, weight=None)",
    "grad": "grad(key, step, params, episode)",
}
"""The functions of a learner, as other code calls them."""


def check_learner(learner: Any, episode: Episode, loss: LossFn | None = None) -> None:
    """Refuses a learner that cannot learn such episodes, and episodes that nobody can learn.

    No gradient is computed.

    Args:
        episode: one that was drawn, and not traced.
        loss: the loss of queries. None takes the metrics of the learner's `grad`.

    Raises:
        InputError: if one of its functions takes other arguments or returns something else than
            other code needs, if the episode is none, if the loss takes other arguments, if the
            labels of the episode are more than the learner's outputs, or if an input is not finite,
            a label or a weight is negative, or nothing counts.
    """
    _check_functions(learner)
    _check_episode(episode)
    for name, part in zip(("support set", "query set"), episode, strict=True):
        _check_values(name, part)
    key, weight = jax.random.key(0), episode.query.weight
    params = jax.eval_shape(learner.init, key, episode.support.x)

    def predictions(params: PyTree, support: Batch, x: PyTree) -> PyTree:
        adapted = learner.adapt(key, params, support, None)
        return learner.predict(adapted, x, key=None, weight=weight)

    found = jax.eval_shape(predictions, params, episode.support, episode.query.x)
    leaves = jax.tree.leaves(found)
    if not leaves:
        raise InputError(
            f"the predict of this learner returned nothing. Write {SIGNATURES['predict']}, which"
            " returns predictions `[n, ...]` for n inputs"
        )
    if loss is None:
        metrics = _metrics_of_grad(learner, params, episode)
    else:
        query = episode.query
        metrics = jax.eval_shape(partial(measured, loss), found, query.y, query.weight)[1]
    if "accuracy" in metrics and len(leaves) == 1:
        _check_outputs(leaves[0].shape[-1], episode)


def _check_functions(learner: Any) -> None:
    needs = ["init", "adapt", "predict", *["grad"] * hasattr(learner, "grad")]
    for name in needs:
        function = getattr(learner, name, None)
        given: dict[str, Any] = {"key": None, "weight": None} if name == "predict" else {}
        count = {"init": 2, "predict": 2}.get(name, 4)
        if not takes(function, count, given):
            what = "this is no learner: it has" if function is None else "this learner has"
            shown = "" if function is None else f" that takes {arguments_of(function)}"
            missing = "no" if function is None else "a"
            raise InputError(
                f"{what} {missing} function {name}{shown}. Write {SIGNATURES[name]}; see"
                " jaxdl.MetaLearner"
            )


def _check_episode(episode: Any) -> None:
    parts = episode if isinstance(episode, Episode) else ()
    if not parts or not all(isinstance(part, Batch) for part in parts):
        found = next((part for part in parts if not isinstance(part, Batch)), episode)
        within = "an Episode that holds " if parts else ""
        raise InputError(
            f"the sampler drew {within}{type(found).__name__}. Let it return"
            " jaxdl.Episode(support, query), each a jaxdl.Batch(x, y)"
        )


def _check_values(name: str, part: Batch) -> None:
    """Refuses weights that are not finite or negative, and inputs that count and are not finite."""
    count = len(jax.tree.leaves(part.x)[0])
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


def _metrics_of_grad(learner: Any, params: PyTree, episode: Episode) -> Metrics:
    returned = jax.eval_shape(learner.grad, jax.random.key(0), jnp.int32(0), params, episode)
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], dict)):
        raise InputError(
            f"the grad of this learner does not return (grads, metrics). Write"
            f" {SIGNATURES['grad']} as jaxdl.through_adaptation makes it"
        )
    metrics: Metrics = returned[1]
    return metrics


def _check_outputs(outputs: int, episode: Episode) -> None:
    labels = 0
    for part in episode:
        counts = np.ones(len(part.y)) if part.weight is None else np.asarray(part.weight)
        found = np.asarray(part.y)[counts > 0]
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
