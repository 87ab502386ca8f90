"""Augmentation of one image on the device: plain functions from which you write a `transform`.

    def transform(key, image):
        flip_key, crop_key = jax.random.split(key)
        image = translate(crop_key, flip(flip_key, image), pixels=4)
        return normalise(image, data.mean, data.std)

Images are `[height, width, channels]` of any dtype. Functions that move pixels work on the stored
uint8, which take a quarter of the memory of floats. `jaxdl.data.epochs` maps over the batch.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Float, Shaped
from numpy.typing import ArrayLike

from jaxdl.data.epochs import Visit
from jaxdl.data.pixels import Image, white
from jaxdl.errors import InputError
from jaxdl.types import Array, Key

Border = Literal["reflect", "zeros"]


def flip(key: Key, image: Image, *, probability: float = 0.5) -> Image:
    """Mirrors the image from left to right with this probability."""
    return jnp.where(jax.random.bernoulli(key, probability), image[:, ::-1], image)


def alternating_flip(visit: Visit, image: Image) -> Image:
    """Mirrors the image in every second epoch; a random bit per image chooses even or odd epochs.

    In two consecutive epochs the net sees both versions of each image once. Independent coins would
    show one version twice in half of the cases (Jordan 2024, arXiv:2404.00498).
    """
    first = jax.random.bernoulli(visit.key)
    return jnp.where(first ^ (visit.epoch % 2 == 1), image[:, ::-1], image)


def translate(
    key: Key,
    image: Image,
    *,
    pixels: int,
    border: Border = "zeros",
) -> Image:
    """Moves the image by `-pixels` to `pixels` along both axes; all offsets are equally likely.

    The result is a random crop of the image, padded by `pixels` zeros or by its reflection. The
    reflection does not repeat the edge pixels.

    Raises:
        InputError: for negative pixels, an unknown border, or a reflection as wide as the image.
    """
    least = min(image.shape[:2])
    if (
        border not in ("reflect", "zeros")
        or pixels < 0
        or (border == "reflect" and pixels >= least)
    ):
        raise InputError(
            f"translate cannot use pixels={pixels} with border={border!r}. Choose 'zeros' or"
            f" 'reflect', and from 0 to less than the {least} pixels of the image"
        )
    mode = "reflect" if border == "reflect" else "constant"
    padded = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)), mode=mode)
    row, column = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
    return lax.dynamic_slice(padded, (row, column, 0), image.shape)


def cutout(key: Key, image: Image, *, size: int, fill: ArrayLike = 0) -> Image:
    """Paints a square of `size` x `size` pixels with `fill`; its centre is anywhere in the image.

    The square may reach over the border, as in the paper (DeVries, Taylor 2017, arXiv:1708.04552).
    This matters: if the square were always inside, no image would stay almost whole. On normalised
    images, a fill of 0 is the mean colour.

    Raises:
        InputError: for a negative size.
    """
    if size < 0:
        raise InputError(f"cutout cannot use size={size}. Choose 0 or more pixels")
    height, width = image.shape[:2]
    centre = jax.random.randint(key, (2,), 0, jnp.array([height, width]))
    top, left = centre - size // 2
    rows = (jnp.arange(height) - top).reshape(height, 1, 1)
    columns = (jnp.arange(width) - left).reshape(1, width, 1)
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    return jnp.where(inside, jnp.asarray(fill, image.dtype), image)


def normalise(
    image: Shaped[Array, "*shape"],
    mean: ArrayLike,
    std: ArrayLike,
    *,
    dtype: DTypeLike = jnp.float32,
    full: float | None = None,
) -> Float[Array, "*shape"]:
    """An image `[..., channels]` as `(image / full - mean) / std`, by channel.

    Args:
        image: uint8, or float.
        mean, std: `[channels]`, of images scaled to `[0, 1]`.
        full: the value of white; by default 255 for uint8 and 1 for floats (`data.pixels.white`).
            Give 255 for floats in the range of bytes, such as those of `data.warp.affine`.

    Raises:
        InputError: for images of another type, unless `full` is given.
    """
    shape = (1,) * (image.ndim - 1) + (-1,)
    full = white(image) if full is None else full
    # One multiplication and one addition per pixel; XLA folds the constants.
    scale = (1 / (full * jnp.asarray(std))).reshape(shape)
    shift = (-jnp.asarray(mean) / jnp.asarray(std)).reshape(shape)
    return (image * scale + shift).astype(dtype)
