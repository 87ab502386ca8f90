"""The baselines of the completion of pictures, which know training pictures and train nothing."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from jaxdl.data.sets.completion import completion
from jaxdl.losses import Normal, gaussian_nll
from jaxdl.meta.base import evaluate, through_adaptation
from jaxdl.types import AdaptFn, Array, Batch, Key, MetaLearner, Params, PredictFn, PyTree, Weight

Images = Shaped[np.ndarray, "n height width channels"]
CHUNK = 10
"""Pictures of a test that are computed at once: their layers take 200 MB with 50 samples."""


def mean_picture(images: Images, *, least_scale: float) -> MetaLearner:
    """Predicts mean and standard deviation of each pixel over `images`, whatever is given.

    Args:
        images: uint8.
        least_scale: the least standard deviation.

    >>> import numpy as np
    >>> learner = mean_picture(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1), least_scale=0.1)
    >>> mean, scale = learner.predict((), jnp.array([[-1.0, -1.0]]))
    >>> mean.tolist(), scale.tolist()  # of -0.5 and 0.5
    ([[0.0]], [[0.5]])
    """
    mean = images.mean(axis=0, dtype=np.float64)
    square = np.square(images, dtype=np.uint16).mean(axis=0, dtype=np.float64)
    std = np.sqrt(np.maximum(square - mean**2, 0)) / 255
    scale = jnp.asarray(np.maximum(std, least_scale), "float32")
    value, last = jnp.asarray(mean / 255 - 0.5, "float32"), np.array(images.shape[1:3]) - 1

    def adapt(key: Key, params: Params, support: Batch, steps: int | None = None) -> tuple[()]:
        del key, params, support, steps
        return ()

    def predict(
        adapted: PyTree, x: Array, *, key: Key | None = None, weight: Weight | None = None
    ) -> Normal:
        del adapted, key, weight
        row, column = jnp.round((x + 1) / 2 * last[None]).astype("int32").T
        return Normal(value[row, column], scale[row, column])

    return _untrained(adapt, predict)


def nearest_pixel(
    images: Images, *, shots: int, least_scale: float, key: Key, episodes: int
) -> MetaLearner:
    """Predicts the value of the nearest support pixel, and one standard deviation for all.

    It is the root mean squared error on `images` with so many support pixels, at least
    `least_scale`. Of pixels as near, the first in the support set counts.

    Args:
        key, episodes: of the pictures on which the error is measured.
    """
    sample = completion(images, shots=shots, queries=None)
    measure = evaluate(nearest(1.0), gaussian_nll, sample, episodes=episodes, chunk=CHUNK)
    error = float(measure(key, ())["squared_error"].mean())
    return nearest(max(error**0.5, least_scale))


def nearest(scale: float) -> MetaLearner:
    """The value of the nearest support pixel, with a given standard deviation.

    >>> import jax
    >>> learner, x = nearest(0.3), jnp.array([[-1.0, 0.0], [1.0, 0.0]])
    >>> support = Batch(x, jnp.array([[0.1], [0.4]]))
    >>> learner.predict(learner.adapt(jax.random.key(0), (), support), x + 0.5).mean.tolist()
    [[0.10000000149011612], [0.4000000059604645]]
    """

    def adapt(key: Key, params: Params, support: Batch, steps: int | None = None) -> Batch:
        del key, params, steps
        return support

    def predict(
        adapted: Batch, x: Array, *, key: Key | None = None, weight: Weight | None = None
    ) -> Normal:
        del key, weight
        apart: Float[Array, "m n"] = jnp.sum((x[:, None] - adapted.x[None]) ** 2, axis=2)
        if adapted.weight is not None:
            apart = jnp.where(adapted.weight[None] > 0, apart, jnp.inf)
        value = adapted.y[jnp.argmin(apart, axis=1)]
        return Normal(value, jnp.full_like(value, scale))

    return _untrained(adapt, predict)


def _untrained(adapt: AdaptFn, predict: PredictFn) -> MetaLearner:
    grad = through_adaptation(adapt, predict, gaussian_nll)
    return MetaLearner(lambda key, x: (), adapt, predict, grad)
