"""The scale of images: white is 255 in uint8, and floats are the net's input as they are."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from jaxdl.errors import InputError
from jaxdl.types import Array

Image = Shaped[Array, "height width channels"]


def white(images: Any) -> int:
    """The value that images are divided by to become a net's input.

    It is 255 for uint8, so that they lie in `[0, 1]`, and 1 for floats, which stay as they are. The
    whole library uses this rule. `images` is a NumPy or JAX array, and may be traced.

    Raises:
        InputError: for any other type, because its white is unknown: int64 may hold bytes or 16-bit
            values.
    """
    if images.dtype == np.uint8:
        return 255
    if jnp.issubdtype(images.dtype, jnp.floating):
        return 1
    raise InputError(
        f"images are {images.dtype}, but must be uint8 or float. Convert them, bytes by"
        " images.astype(np.uint8)"
    )


def check_images(images: Any) -> np.ndarray:
    """Checks images from the host, and returns uint8 unchanged and floats as float32.

    Raises:
        InputError: if there are no images, or a float is not finite, or as `white`.
    """
    images = np.asarray(images)
    if images.ndim == 0 or images.size == 0:
        raise InputError(f"there are no images in shape {list(images.shape)}. Give at least one")
    if white(images) == 255:
        return images
    images = images.astype(np.float32, copy=False)
    if not np.isfinite(images).all():
        raise InputError("inputs contain NaN or infinity (as float32). Correct or leave them out")
    return images
