"""Random rotation, zoom and shift of one image, by interpolation, on the device."""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Float

from jaxdl.data.pixels import Image
from jaxdl.errors import InputError
from jaxdl.types import Array, Key


def affine(
    key: Key,
    image: Image,
    *,
    degrees: float = 0.0,
    zoom: float = 0.0,
    pixels: float = 0.0,
) -> Float[Array, "height width channels"]:
    """Rotates, zooms and moves an image at random, by bilinear interpolation.

    The image rotates about its centre by an angle in `[-degrees, degrees]`, grows by a factor in
    `[1 - zoom, 1 + zoom]`, and moves along both axes by `[-pixels, pixels]`. All are uniform and
    real-valued. Pixels from outside the image are 0.

    Args:
        image: `[height, width, channels]` of any dtype.

    Returns:
        float32, in the units of `image`.

    Raises:
        InputError: for a negative range, or a zoom of 1 or more.
    """
    if min(degrees, zoom, pixels) < 0 or zoom >= 1:
        raise InputError(
            f"affine cannot use degrees={degrees}, zoom={zoom}, pixels={pixels}. Choose ranges of 0"
            " or more, and a zoom below 1"
        )
    angle, size, *shift = jax.random.uniform(key, (4,), minval=-1.0, maxval=1.0)
    angle, size = angle * jnp.deg2rad(degrees), 1 + size * zoom
    # For each pixel of the result, its place in the image: the inverse transformation.
    rows, columns = (
        jnp.arange(n, dtype=jnp.float32) - (n - 1) / 2 - pixels * by
        for n, by in zip(image.shape[:2], shift, strict=True)
    )
    rows, columns = jnp.meshgrid(rows / size, columns / size, indexing="ij")
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    places = (
        cos * rows + sin * columns + (image.shape[0] - 1) / 2,
        cos * columns - sin * rows + (image.shape[1] - 1) / 2,
    )

    def look_up(channel: Float[Array, "height width"]) -> Float[Array, "height width"]:
        return map_coordinates(channel, places, order=1)

    return jax.vmap(look_up, in_axes=-1, out_axes=-1)(image.astype(jnp.float32))
