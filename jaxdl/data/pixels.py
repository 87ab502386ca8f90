"""What the numbers in an image mean: uint8 counts to 255, floats are what a net should see."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from jaxdl.errors import InputError
from jaxdl.types import Array

Image = Shaped[Array, "height width channels"]


def white(images: Any) -> int:
    """The value by which images are divided to become a net's input.

    255 for uint8, so that they lie in `[0, 1]`; 1 for floats, which stay as they are. All of the
    library keeps to this. `images` is a NumPy or JAX array, and may be traced.

    Raises:
        InputError: for any other type. Bytes that became int64 on their way are bytes no more, and
            16-bit images have a white of their own.
    """
    if images.dtype == np.uint8:
        return 255
    if jnp.issubdtype(images.dtype, jnp.floating):
        return 1
    raise InputError(
        f"images are {images.dtype}, but must be uint8 or float: convert them, bytes by"
        " images.astype(np.uint8)"
    )


def check_images(images: Any) -> np.ndarray:
    """Images from the host: uint8 as they are, floats as float32.

    Raises:
        InputError: if there are none, or as `white`, or if floats are not finite.
    """
    images = np.asarray(images)
    if images.ndim == 0 or images.size == 0:
        raise InputError(f"there are no images: their shape is {list(images.shape)}")
    if white(images) == 255:
        return images
    images = images.astype(np.float32, copy=False)
    if not np.isfinite(images).all():
        raise InputError("images contain NaN or infinity (as float32): correct or leave them out")
    return images
