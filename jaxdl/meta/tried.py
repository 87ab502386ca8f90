"""A learner tried on one episode, by shapes alone, before a training that would fail late."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl.errors import InputError, arguments_of, takes
from jaxdl.losses import measured
from jaxdl.meta.drawn import check_columns, check_episode, check_outputs
from jaxdl.types import Batch, Episode, LossFn, Metrics, PyTree

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
    check_episode(episode)
    key, weight = jax.random.key(0), episode.query.weight
    params = jax.eval_shape(learner.init, key, episode.support.x)

    def predictions(params: PyTree, support: Batch, x: PyTree) -> PyTree:
        adapted = learner.adapt(key, params, support, None)
        return learner.predict(adapted, x, key=None, weight=weight)

    try:
        found = jax.eval_shape(predictions, params, episode.support, episode.query.x)
    except Exception:
        check_columns(episode)
        raise
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
    labels = getattr(episode.query.y, "ndim", 0)
    if "accuracy" in metrics and len(leaves) == 1 and leaves[0].ndim > labels:
        check_outputs(leaves[0].shape[-1], episode)


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


def _metrics_of_grad(learner: Any, params: PyTree, episode: Episode) -> Metrics:
    returned = jax.eval_shape(learner.grad, jax.random.key(0), jnp.int32(0), params, episode)
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], dict)):
        raise InputError(
            f"the grad of this learner does not return (grads, metrics). Write"
            f" {SIGNATURES['grad']} as jaxdl.through_adaptation makes it"
        )
    metrics: Metrics = returned[1]
    return metrics
