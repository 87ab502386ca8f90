"""Losses: `(prediction, target, weight) -> (scalar, metrics)`, means over weighted examples.

An example of weight 0 counts for nothing. `without_void` replaces NaN and infinity in its input,
and every loss masks its prediction and its target. One case is left: if a net turns a finite input
into NaN, by overflow for example, this NaN still reaches the gradient.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float, Shaped

from jaxdl.errors import InputError, arguments_of, takes
from jaxdl.types import Array, Batch, LossFn, Metrics, PyTree, Scalar


def weighted_mean(values: Array, weight: Array | None = None) -> Scalar:
    """Mean of `values` `[n, ...]` over all elements, each row counted `weight` `[n]` times.

    A value of weight 0 counts for nothing, even if it is NaN or infinity. If all weights are zero,
    the mean is zero, so that an empty shard of a batch does no harm.

    >>> import jaxdl, jax.numpy as jnp
    >>> values, weight = jnp.array([1.0, 2.0, jnp.nan]), jnp.array([3.0, 1.0, 0.0])
    >>> float(jaxdl.weighted_mean(values, weight))  # (3 * 1 + 1 * 2) / (3 + 1)
    1.25

    Raises:
        InputError: if `weight` is not `[n]`.
    """
    if weight is None:
        return jnp.mean(values)
    _check_weight(values, weight)
    values = jnp.reshape(values, (values.shape[0], -1)).mean(axis=1)
    # Sums of 16-bit floats overflow, and NumPy does not know the smallest bfloat16.
    values = values.astype(jnp.promote_types(values.dtype, "float32"))
    values, weight = jnp.where(weight == 0, 0, values), weight.astype(values.dtype)
    total = jnp.sum(weight)
    # Not a quotient by the smallest float: of constants, XLA makes a NaN of it.
    total_of_values = jnp.vdot(values, weight, precision="highest")  # accelerators round products
    return total_of_values / jnp.where(total < np.finfo(values.dtype).tiny, 1, total)


def without_void(x: PyTree, weight: Array | None) -> PyTree:
    """Inputs `[n, ...]` in which NaN and infinity are 0 in the rows whose `weight` `[n]` is 0.

    A mask after the net comes too late: in a gradient, zero times NaN is NaN.

    Raises:
        InputError: if `weight` is not `[n]`.
    """
    if weight is None:
        return x

    def without(leaf: Any) -> Any:
        _check_weight(leaf, weight)
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        return jnp.where(_void(leaf, weight) & ~jnp.isfinite(leaf), 0, leaf)

    return jax.tree.map(without, x)


def counted(weight: Array | None, *arrays: Array) -> tuple[Array, ...]:
    """Arrays `[n, ...]` with zeros in the rows whose `weight` `[n]` is 0. None changes nothing.

    Call it first in a loss. Then neither its value nor its gradient depends on these rows. In a
    learner that applies its net to the support set, call it on the inputs, before the net:
    afterwards is too late, because in a gradient zero times NaN is NaN.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> def poisson(prediction, target, weight=None):
    ...     prediction, target = jaxdl.counted(weight, prediction, target)
    ...     loss = jaxdl.weighted_mean(jnp.exp(prediction) - target * prediction, weight)
    ...     return loss, {"loss": loss}
    >>> prediction, target = jnp.array([0.0, 0.0]), jnp.array([3.0, jnp.nan])
    >>> grad = jax.jit(jax.grad(poisson, has_aux=True))
    >>> grads, metrics = grad(prediction, target, weight=jnp.array([1, 0]))
    >>> float(metrics["loss"]), grads.tolist()  # exp(0), and exp(0) - 3; the second has no target
    (1.0, [-2.0, 0.0])

    Raises:
        InputError: if `weight` is not `[n]`.
    """
    if weight is None:
        return arrays
    for array in arrays:
        _check_weight(array, weight)
    return tuple(jnp.where(_void(array, weight), 0, array) for array in arrays)


def measured(
    loss: LossFn, prediction: PyTree, target: PyTree, weight: Array | None = None
) -> tuple[Scalar, Metrics]:
    """What a loss says of predictions, itself among its metrics.

    >>> import jax.numpy as jnp
    >>> measured(lambda y, target, weight: (y - target, {}), jnp.float32(3), 1)[1]["loss"].item()
    2.0

    Raises:
        InputError: if the loss takes other arguments, or returns something else than a number and
            a dict of numbers.
    """
    if not takes(loss, 3, {}):
        raise InputError(
            f"the loss takes {arguments_of(loss)}. Write loss(prediction, target, weight=None); see"
            " jaxdl.LossFn"
        )
    return with_loss(loss(prediction, target, weight))


def with_loss(found: Any) -> tuple[Scalar, Metrics]:
    """What a `LossFn` returned, with the loss among its metrics, where its author left it out.

    So each training has a loss to log and to check.

    >>> import jax.numpy as jnp
    >>> with_loss((jnp.float32(2), {"error": jnp.float32(1)}))[1]["loss"].item()
    2.0

    Raises:
        InputError: if it is no pair of a loss and metrics, or if one of them is no single number.
    """
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping)):
        kind = "an array alone" if hasattr(found, "shape") else type(found).__name__
        raise InputError(
            f"the loss returned {kind}. Return the pair `(loss, metrics)`, with a dict of numbers"
            ' such as `{"loss": loss}`; see jaxdl.LossFn'
        )
    loss, metrics = found
    named = {f"metric {name}": value for name, value in metrics.items()}
    for what, value in {"loss": loss, **named}.items():
        if (shape := np.shape(value)) != ():
            raise InputError(
                f"the {what} is an array {list(shape)}. Let the loss return one number, such as"
                " jaxdl.weighted_mean(values, weight)"
            )
    return loss, {"loss": loss, **metrics}


def cross_entropy(
    prediction: Array, target: Array, weight: Array | None = None, *, smoothing: float = 0.0
) -> tuple[Scalar, Metrics]:
    """Softmax cross-entropy of logits `[n, ..., classes]` with int labels `[n, ...]`, in nats.

    A label outside `[0, classes)` makes the loss and its gradient NaN, unless its weight is 0.

    `smoothing` in `[0, 1)` is the share of each label that is spread equally over all classes
    (Szegedy et al. 2016, arXiv:1512.00567). Metrics: `loss`, and `accuracy` in `[0, 1]`, which is
    NaN if a prediction is.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> logits, labels = jnp.zeros((3, 4)), jnp.array([0, 3, -1])  # the third has no label
    >>> loss, metrics = jax.jit(jaxdl.cross_entropy)(logits, labels, weight=jnp.array([1, 1, 0]))
    >>> f"{loss:.3f}", float(metrics["accuracy"])  # log 4; of equal logits the first is taken
    ('1.386', 0.5)

    Raises:
        InputError: if labels are not integers, if shapes do not fit (that of `weight` included), or
            if `smoothing` is out of range.
    """
    _refuse_batch("cross_entropy", target)
    if not 0 <= smoothing < 1:
        raise InputError(f"`smoothing={smoothing}` is a share of each label. Choose it in [0, 1)")
    if not jnp.issubdtype(target.dtype, jnp.integer):
        raise InputError(
            f"cross_entropy takes integer class labels, not {target.dtype}: convert them with"
            " labels.astype('int32')"
        )
    if prediction.ndim < 2 or prediction.shape[:-1] != target.shape:
        raise InputError(
            "cross_entropy takes logits [n, ..., classes] and labels [n, ...], not"
            f" {list(prediction.shape)} and {list(target.shape)}: reshape one of them"
        )
    prediction, target = counted(weight, prediction, target)
    # Labels of 8 bits cannot be compared with 300 classes.
    target, classes = target.astype(jnp.promote_types(target.dtype, "int32")), prediction.shape[-1]
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(prediction, target)
    if smoothing:
        # Cross-entropy is linear in the target, so two terms add up: the cross-entropy with the
        # label, and the mean of that with each class.
        of_all = -jnp.mean(jax.nn.log_softmax(prediction), axis=-1)
        losses = (1 - smoothing) * losses + smoothing * of_all
    # Without this line, label -1 would index the last class. A factor reaches the gradient, too, so
    # that an inner loop with such a label does not go on with a part of its examples.
    known = (target >= 0) & (target < classes)
    losses *= jnp.where(known, 1, jnp.nan).astype(losses.dtype)
    loss = weighted_mean(losses, weight)
    return loss, {"loss": loss, "accuracy": weighted_mean(correct(prediction, target), weight)}


def correct(
    prediction: Float[Array, "... classes"], target: Shaped[Array, "..."]
) -> Float[Array, "..."]:
    """1 where the largest logit is that of the label, else 0; NaN where a logit is NaN.

    >>> correct(jnp.array([[0.0, 1.0], [0.0, -jnp.inf], [jnp.nan, 1.0]]), jnp.array([0, 0, 0]))
    Array([ 0.,  1., nan], dtype=float32)
    """
    found = (jnp.argmax(prediction, axis=-1) == target).astype(prediction.dtype)
    # `argmax` takes the first NaN for the largest logit.
    return jnp.where(jnp.isnan(prediction).any(axis=-1), jnp.nan, found)


def mean_squared_error(
    prediction: Array, target: Array, weight: Array | None = None
) -> tuple[Scalar, Metrics]:
    """Mean of `(prediction - target) ** 2` over examples and features (no factor 1/2).

    Prediction and target are `[n, ...]`. Metrics: `loss`.

    >>> import jaxdl, jax.numpy as jnp
    >>> prediction, target = jnp.array([[1.0], [2.0]]), jnp.array([[0.0], [5.0]])
    >>> loss, metrics = jaxdl.mean_squared_error(prediction, target)
    >>> float(loss)  # (1 + 9) / 2
    5.0

    Raises:
        InputError: if the shapes of prediction and target differ, or `weight` is not `[n]`.
    """
    _refuse_batch("mean_squared_error", target)
    if prediction.shape != target.shape:
        raise InputError(
            f"mean_squared_error takes a prediction and a target of one shape, not"
            f" {list(prediction.shape)} and {list(target.shape)}: reshape one of them"
        )
    prediction, target = counted(weight, prediction, target)
    loss = weighted_mean(jnp.square(prediction - target), weight)
    return loss, {"loss": loss}


class Normal(NamedTuple):
    """A prediction as normal distributions: `mean` and `scale`, the standard deviation, above 0.

    Both are `[n, outputs]`. With one more axis, `[n, outputs, samples]`, they are an equal mixture
    of functions: sample s of all rows belongs to one function.

    >>> import jaxdl, jax.numpy as jnp
    >>> prediction = jaxdl.Normal(mean=jnp.zeros((3, 1)), scale=jnp.ones((3, 1)))
    >>> loss, metrics = jaxdl.gaussian_nll(prediction, jnp.zeros((3, 1)))
    >>> f"{loss:.3f}"  # log(2 pi) / 2
    '0.919'
    """

    mean: Float[Array, "n ..."]
    scale: Float[Array, "n ..."]


def gaussian_nll(
    prediction: Normal, target: Array, weight: Array | None = None
) -> tuple[Scalar, Metrics]:
    """Negative log-likelihood in nats per example of targets `[n, ...]` under a `Normal`.

    The outputs of an example are independent, and their log-likelihoods are added. A `Normal` of
    samples gives each example the mean of its likelihoods under the samples.

    Metrics: `loss`; `log_likelihood`, which is minus the loss; `squared_error` of the means, per
    example and output; and for samples `joint_log_likelihood`: the targets of the task have one
    sample in common. It is per example, too. If the samples are from the prior given the support
    set, it is an importance-weighted estimate (Le et al. 2018) whose weights are all equal.

    >>> import jaxdl, jax.numpy as jnp
    >>> prediction = jaxdl.Normal(jnp.array([[0.0], [3.0]]), jnp.array([[1.0], [2.0]]))
    >>> loss, metrics = jaxdl.gaussian_nll(prediction, jnp.array([[0.0], [5.0]]))
    >>> f"{loss:.3f}"  # log(2 pi) / 2 + (log 2 + 1 / 2) / 2
    '1.516'
    >>> float(metrics["squared_error"])
    2.0

    Raises:
        InputError: if the prediction is no `Normal`, if shapes do not fit, or if `weight` is not
            `[n]`.
    """
    if not isinstance(prediction, Normal):
        raise InputError(
            f"gaussian_nll takes a prediction Normal(mean, scale), not {type(prediction).__name__}."
            " Give a learner that predicts distributions, or `normal(net)`"
        )
    _refuse_batch("gaussian_nll", target)
    if (shape := prediction.mean.shape) == target.shape:
        prediction = Normal(prediction.mean[..., None], prediction.scale[..., None])
    if prediction.mean.shape[:-1] != target.shape or prediction.scale.shape[:-1] != target.shape:
        raise InputError(
            f"gaussian_nll takes means, scales and targets of one shape, not {list(shape)},"
            f" {list(prediction.scale.shape)} and {list(target.shape)}. Reshape one of them"
        )
    mean, scale, target = counted(weight, *prediction, target)
    error, rows = (target[..., None] - mean), len(target)
    log_scale = jnp.log(scale) + math.log(2 * math.pi) / 2
    each = -jnp.square(error / scale) / 2 - log_scale
    each = jnp.sum(jnp.reshape(each, (rows, -1, each.shape[-1])), axis=1)  # [n, samples]
    samples = each.shape[1]
    found = weighted_mean(jax.nn.logsumexp(each, axis=1) - math.log(samples), weight)
    squared = weighted_mean(jnp.square(jnp.mean(error, axis=-1)), weight)
    metrics = {"loss": -found, "log_likelihood": found, "squared_error": squared}
    if samples > 1:
        total = jnp.asarray(rows if weight is None else jnp.sum(weight), each.dtype)
        sums = total * jax.vmap(lambda of_sample: weighted_mean(of_sample, weight), 1)(each)
        joint = jax.nn.logsumexp(sums) - math.log(samples)
        metrics["joint_log_likelihood"] = joint / jnp.where(total > 0, total, 1)
    return -found, metrics


def _void(array: Shaped[Array, " n *rest"], weight: Shaped[Array, " n"]) -> Bool[Array, "n ..."]:
    return jnp.reshape(weight == 0, (-1,) + (1,) * (array.ndim - 1))


def _refuse_batch(name: str, target: Any) -> None:
    if isinstance(target, Batch):
        raise InputError(f"{name} takes targets, not a Batch: give `batch.y` and `batch.weight`")


def _check_weight(array: Array, weight: Array) -> None:
    if jnp.shape(weight) != jnp.shape(array)[:1] or jnp.ndim(array) == 0:
        raise InputError(
            f"weights are [n], one per example, not {list(jnp.shape(weight))} beside an array of"
            f" shape {list(jnp.shape(array))}: give one weight per row"
        )
