"""Checks of what a user gives to `fit`, to `score` and to a learner that is loaded."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.errors import InputError
from jaxdl.meta.tried import takes
from jaxdl.recipes.learners import AnyLearner
from jaxdl.types import Batch, Key, PyTree, Weight


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


def check_task(learner: AnyLearner, ways: int, shape: tuple[int, ...] | None = None) -> AnyLearner:
    """The learner whose `adapt` refuses labels that are not in `[0, ways)`.

    Inside jit the labels are not known, and pass. With `shape`, that of an image, `adapt` and
    `predict` refuse other images.
    """

    def adapt(key: Any, params: PyTree, support: Batch, steps: int | None = None) -> PyTree:
        check_labels(support.y, ways)
        check_images(support.x, shape)
        return learner.adapt(key, params, support, steps)

    def predict(
        adapted: PyTree, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> PyTree:
        check_images(x, shape)
        return learner.predict(adapted, x, key=key, weight=weight)

    return learner._replace(adapt=adapt, predict=predict)


def check_images(images: Any, shape: tuple[int, ...] | None) -> None:
    """Refuses images that are not `[n, *shape]`, or are bytes.

    Raises:
        InputError: naming both shapes.
    """
    if shape is None:
        return
    found, kind = tuple(np.shape(images)), jnp.result_type(images)
    if found[1:] != shape or not jnp.issubdtype(kind, jnp.floating):
        raise InputError(
            f"the images are {kind} {list(found)}, but the learner was trained on floats in [0, 1]"
            f" {['n', *shape]}. Resize and scale them, or use `jaxdl classify`"
        )


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
