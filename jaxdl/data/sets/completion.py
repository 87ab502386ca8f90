"""Pictures to complete: a task is one picture, and its examples are pixels.

The tasks of CNP (Garnelo et al. 2018, arXiv:1807.01613), drawn as in the code of TNP (Nguyen,
Grover 2022, arXiv:2207.04179). An input is the place of a pixel and a target its value.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float, Int, Shaped

from jaxdl.data.pixels import check_images, white
from jaxdl.data.ranges import Range, Span, check_count, check_range
from jaxdl.data.table import below
from jaxdl.errors import InputError
from jaxdl.types import Array, Batch, Count, Episode, Key, Sampler


def completion(
    images: Any,
    *,
    shots: Range = (3, 196),
    queries: Range | None = (3, 196),
    points: int = 199,
) -> Sampler:
    """Sampler of one picture: some random pixels are the support set, and others the queries.

    x is `[n, 2]`: row and column, each from -1 at the first to 1 at the last. y is `[n, channels]`
    in `[-0.5, 0.5]`: the value from 0 to 1, less 0.5. No pixel occurs twice. Where a number is a
    range, each number is as likely as the others; x and y have the most of it, and rows of zeros
    with weight 0 follow the drawn ones. The defaults are those of TNP, up to 199 pixels of 784.

    A key decides the picture and the order of its pixels, whatever the numbers. So the 10 support
    pixels of `shots=10` are among the 100 of `shots=100`.

    Args:
        images: `[n, height, width, channels]`, uint8, or floats in `[0, 1]`.
        queries: None: all pixels, row by row. Those of the support set have weight 0.
        points: the most support pixels and queries together. None of `queries` ignores it.

    >>> import jax, jaxdl, numpy as np
    >>> images = np.random.default_rng(0).integers(0, 256, (9, 28, 28, 1), np.uint8)
    >>> support, query = jax.jit(jaxdl.completion(images))(jax.random.key(0))
    >>> support.x.shape, query.y.shape, 3 <= int(support.weight.sum()) <= 196
    ((196, 2), (196, 1), True)
    >>> sample = jaxdl.completion(images, shots=10, queries=None)
    >>> jax.jit(sample)(jax.random.key(0)).query.weight.sum().item()
    774.0

    Raises:
        InputError: if images have another type or shape, or so many pixels cannot be drawn.
    """
    images = check_images(images)
    if images.ndim != 4:
        raise InputError(
            f"images are {list(images.shape)}. Give them as [n, height, width, channels]"
        )
    pixels, given = images.shape[1] * images.shape[2], check_range("shots", shots)
    asked = None if queries is None else check_range("queries", queries)
    most = pixels if asked is None else min(pixels, check_count("points", points))
    if given.most + (1 if asked is None else asked.fewest) > most:
        if asked is None:
            cure = f"Pictures have {pixels} pixels, and one at least is asked for. Give fewer shots"
        else:
            cure = (
                f"Pictures have {pixels} pixels, and a task points={points}. Give more points than"
                " the most shots and the fewest queries together, or fewer of both"
            )
        raise InputError(f"shots={given} and queries={asked} cannot be drawn. {cure}")

    def draw(images: Shaped[Array, "n height width channels"], key: Key) -> Episode:
        bits = jax.random.bits(key, (3 + pixels,))  # the same for all numbers of pixels
        picture = images[below(bits[0], jnp.int32(len(images)))]
        value = picture.reshape(pixels, -1).astype("float32") / white(images) - 0.5
        place, order = jnp.asarray(places(*images.shape[1:3])), jnp.argsort(bits[3:])

        def part(which: Int[Array, " most"], count: Count, span: Span) -> Batch:
            """The first of the pixels `which`."""
            if span.fewest == span.most:
                return Batch(place[which], value[which])
            weight = (jnp.arange(len(which)) < count).astype(value.dtype)
            return Batch(place[which] * weight[:, None], value[which] * weight[:, None], weight)

        count = _count(given, bits[1], jnp.int32(given.most))
        support = part(order[: given.most], count, given)
        if asked is None:
            is_known = jnp.zeros(pixels, bool).at[order].set(jnp.arange(pixels) < count)
            return Episode(support, Batch(place, value, 1 - is_known.astype(value.dtype)))
        # The support set is at the start of the order and the queries are at its end.
        others = _count(asked, bits[2], jnp.minimum(asked.most, most - count))
        return Episode(support, part(order[::-1][: asked.most], others, asked))

    return Partial(draw, jnp.asarray(images))


def places(height: int, width: int) -> Float[np.ndarray, "pixels 2"]:
    """Row and column of each pixel, row by row, as `completion` has them.

    >>> places(2, 3).tolist()
    [[-1.0, -1.0], [-1.0, 0.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    axes = (np.linspace(-1, 1, size, dtype=np.float32) for size in (height, width))
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)


def _count(span: Span, bits: Array, most: Count) -> Count:
    return span.fewest + below(bits, most - span.fewest + 1)
