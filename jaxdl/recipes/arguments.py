"""Checks of what a user gives to `fit`, to `score` and to a learner that is loaded."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.errors import InputError, takes
from jaxdl.losses import counted
from jaxdl.meta.base import as_partial
from jaxdl.recipes.learners import AnyLearner
from jaxdl.types import Batch, Key, PyTree, Sampler, Weight

UNTRACEABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
"""What JAX raises where NumPy or Python gets a value that is not known yet."""


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


def drawn(sample: Sampler, key: Key) -> Any:
    """What a sampler draws, inside jit, as a training draws it.

    Raises:
        InputError: if it calls NumPy or Python on values that only JAX knows.
    """
    try:
        return _draw(as_partial(sample), key)
    except UNTRACEABLE as error:
        raise InputError(
            "the sampler cannot run inside jit: it gives NumPy or Python a value that depends on"
            " the key. Use jax.numpy and jax.random, on data from jnp.asarray"
        ) from error
    except TypeError:  # it returns something that jit cannot: `check_learner` says what
        return sample(key)


_draw = jax.jit(lambda sample, key: sample(key))  # compiled once per sampler, not per call


def check_key(key: Any) -> None:
    """Refuses what is no key of JAX, such as a seed.

    Raises:
        InputError: saying how to make one.
    """
    kind = getattr(key, "dtype", None)
    if kind is None or not (jnp.issubdtype(kind, jax.dtypes.prng_key) or np.shape(key) == (2,)):
        raise InputError(f"`key={key}` is no key of JAX. Give jax.random.key(0), say")


def check_task(
    learner: AnyLearner, ways: int | None, check_inputs: Callable[[Any], None]
) -> AnyLearner:
    """The learner whose `adapt` and `predict` refuse inputs that it was not trained for.

    Inside jit values are not known, and pass.

    Args:
        ways: labels must lie in `[0, ways)`. None: targets are numbers.
        check_inputs: refuses other inputs.
    """

    def adapt(key: Any, params: PyTree, support: Batch, steps: int | None = None) -> PyTree:
        check_inputs(support.x)
        if ways is not None:
            check_labels(support.y, ways)
        else:
            cure = "Give them in the units of the run's training"
            (targets,) = counted(support.weight, jnp.asarray(support.y))
            _refuse_large(targets, LARGEST, cure, "targets")
        if np.shape(support.y)[:1] != np.shape(support.x)[:1]:
            raise InputError(
                f"there are {len(support.x)} inputs and {len(support.y)} targets. Give one target"
                " per input"
            )
        return learner.adapt(key, params, support, steps)

    def predict(
        adapted: PyTree, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> PyTree:
        check_inputs(x)
        return learner.predict(adapted, x, key=key, weight=weight)

    return learner._replace(adapt=adapt, predict=predict)


def check_rows(rows: Any, columns: Sequence[str]) -> None:
    """Refuses rows of a table that are not `[n, columns]`, or not in standard units.

    Raises:
        InputError: naming the columns.
    """
    if np.ndim(rows) != 2 or np.shape(rows)[1] != len(columns):
        raise InputError(
            f"the rows are {list(np.shape(rows))}, but the learner was trained on {len(columns)}"
            f" columns. Give {', '.join(columns)}"
        )
    _refuse_large(rows, LARGEST, "Standardise the columns by `scaling` in the run's result.json")


LARGEST = 100.0
"""In standard units, no number of a table should be larger."""


def _refuse_large(values: Any, most: float, cure: str, what: str = "inputs") -> None:
    if isinstance(values, jax.core.Tracer):
        return
    if not (largest := float(np.max(np.abs(np.asarray(values)), initial=0))) <= most:
        raise InputError(f"the {what} go up to {largest:.4g}, which is not plausible. {cure}")


def check_images(images: Any, shape: tuple[int, ...]) -> None:
    """Refuses images that are not `[n, *shape]`, or are bytes, or not in [0, 1].

    Raises:
        InputError: naming both shapes.
    """
    found, kind = tuple(np.shape(images)), jnp.result_type(images)
    if found[1:] != shape or not jnp.issubdtype(kind, jnp.floating):
        raise InputError(
            f"the images are {kind} {list(found)}, but the learner was trained on floats in [0, 1]"
            f" {['n', *shape]}. Resize them, divide bytes by 255, or use `jaxdl classify`"
        )
    _refuse_large(images, 1.01, "Give floats in [0, 1]: divide bytes by 255")
    if isinstance(images, jax.core.Tracer):
        return
    if (least := float(np.min(np.asarray(images), initial=0))) < -0.01:  # rounding may go below 0
        raise InputError(
            f"the images go down to {least:.4g}, and the learner was trained on floats in [0, 1]."
            " Undo their normalisation"
        )


def check_labels(labels: Any, ways: int) -> None:
    """Refuses labels that are not integers in `[0, ways)`. Those of a traced batch pass.

    Raises:
        InputError: naming the largest.
    """
    if isinstance(labels, jax.core.Tracer):
        return
    found = np.asarray(labels)
    if found.ndim != 1:
        raise InputError(f"labels are {list(found.shape)}. Give one integer per input, [n]")
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
