"""Checks of what a user gives to `fit`, to `score` and to a learner that is loaded."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.errors import InputError
from jaxdl.meta.tried import takes
from jaxdl.types import Batch, MetaLearner, PyTree, TransferLearner

Learner = TypeVar("Learner", bound=MetaLearner | TransferLearner)


def check_sampler(sample: Any) -> None:
    """Refuses what cannot draw an episode.

    Raises:
        InputError: saying what to give.
    """
    if not callable(sample) or not takes(sample, 1, {}):
        what = "takes other arguments" if callable(sample) else f"is {type(sample).__name__}"
        raise InputError(
            f"`sample=` {what}. Give a function of a key that draws an episode:"
            " jaxdl.few_shot(x, labels, ...), say"
        )


def check_key(key: Any) -> None:
    """Refuses what is no key of JAX, such as a seed.

    Raises:
        InputError: saying how to make one.
    """
    kind = getattr(key, "dtype", None)
    if kind is None or not (jnp.issubdtype(kind, jax.dtypes.prng_key) or np.shape(key) == (2,)):
        raise InputError(f"`key={key}` is no key of JAX. Give jax.random.key(0), say")


def check_task(learner: Learner, ways: int) -> Learner:
    """The learner whose `adapt` refuses labels that are not in `[0, ways)`.

    Inside jit the labels are not known, and pass.
    """

    def adapt(key: Any, params: PyTree, support: Batch, steps: int | None = None) -> PyTree:
        check_labels(support.y, ways)
        return learner.adapt(key, params, support, steps)

    return learner._replace(adapt=adapt)


def check_labels(labels: Any, ways: int) -> None:
    """Refuses labels that are not integers in `[0, ways)`. Those of a traced batch pass.

    Raises:
        InputError: naming the largest.
    """
    if isinstance(labels, jax.core.Tracer):
        return
    found = np.asarray(labels)
    if found.dtype.kind not in "iu":
        raise InputError(
            f"labels are {found.dtype}. Give integers from 0 to {ways - 1}:"
            " np.unique(labels, return_inverse=True)[1], say"
        )
    if found.size and not 0 <= found.min() <= found.max() < ways:
        raise InputError(
            f"labels go from {found.min()} to {found.max()}, but the learner has {ways} classes."
            f" Give labels from 0 to {ways - 1}"
        )
