"""Decodes compressed images of any format to uint8.

Only this file, `tfds` and `jaxdl.data.resize` know Pillow. They import it when it is needed.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxdl.errors import InputError, RunError, extra

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's name for the pixel type, by number of channels."""
BITS, PHOTOMETRIC, ORIENTATION, SAMPLE_FORMAT = 258, 262, 274, 339
"""Tags of TIFF; the third is a tag of EXIF too."""
UPRIGHT: dict[Any, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).swapaxes(0, 1),
    8: lambda image: np.rot90(image),
}
"""The function that turns `[height, width, channels]` upright, by EXIF's orientation number."""


def decode_image(
    content: bytes, channels: int, name: str = "the image", *, floats: bool = False
) -> np.ndarray:
    """A compressed image as uint8 `[height, width, channels]` in `[0, 255]`.

    It reads all formats of Pillow: PNG, JPEG, GIF, WebP, BMP, TIFF and more.

    - Black is 0 and white is 255, for any number of bits per pixel. 16 bits give their high byte,
      as in TensorFlow. 1, 2 and 4 bits are stretched. 32-bit numbers count as 16 bits if they fit.
    - Colour becomes grey by the luma of ITU-R 601, `0.299 red + 0.587 green + 0.114 blue`.
    - With 4 channels the last is alpha, 255 if the file has no alpha. With 1 or 3 channels, alpha
      is dropped. A transparent pixel then has its stored colour, often black.
    - The image is turned upright by its EXIF orientation. TensorFlow's decoders, and so TFDS
      itself, leave it as the camera stored it.
    - Only the first frame or page counts. Colour profiles are ignored.

    Args:
        content: the bytes of the file.
        channels: 1, 3 or 4.
        name: the name of the file in messages.
        floats: whether floats are pixels. Their white is 1 if none is above 1, else 255.

    Raises:
        InputError: if the pixels have no meaning in 8 bits (floats, signed numbers, numbers beyond
            16 bits; with `floats`, those outside `[0, 255]`); for 4 channels of a 16-bit PNG with
            one transparent colour; for another number of channels; or if Pillow is not installed.
        RunError: if the image cannot be decoded.
    """
    with extra("data"):
        from PIL import Image, UnidentifiedImageError

    if channels not in MODES:
        raise InputError(f"channels={channels} is not possible. Choose 1, 3 or 4")
    try:
        with Image.open(io.BytesIO(content)) as image:
            if floats and image.mode == "F":
                pixels = _from_floats(image, channels, name)
            else:
                pixels = _pixels(image, content, channels, name)
            # After the pixels: Pillow itself turns TIFF on load, and then updates the EXIF.
            turn = UPRIGHT.get(_orientation(image))
    except InputError:
        raise
    except Exception as error:  # Pillow raises a dozen types for a damaged file
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "it has no format that Pillow knows" if unknown else error
        raise RunError(
            f"{name} cannot be decoded ({reason}). Replace it, or leave it out"
        ) from error
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def _pixels(image: Any, content: bytes, channels: int, name: str) -> np.ndarray:
    """The pixels as uint8 `[height, width, channels]`, not yet turned upright."""
    if image.mode == "F" or (image.mode == "L" and _tag(image, SAMPLE_FORMAT, 1) == 2):
        raise _no_bytes(name, "floats" if image.mode == "F" else "signed numbers")
    transparent = image.info.get("transparency")
    if image.mode.startswith("I"):
        return _from_16_bits(image, channels, transparent, name)
    if image.format == "PNG" and transparent is not None and channels == 4:
        bits = content[24]
        if image.mode == "RGB" and bits == 16:
            # Pillow drops the low bytes, so it takes similar colours for the transparent one.
            raise _no_bytes(name, "16-bit colours, one of them transparent")
        if image.mode == "L" and bits < 8 and transparent < 2**bits:
            # Pillow stretches the pixels, but not the transparent level.
            image.info["transparency"] = transparent * 255 // (2**bits - 1)
    if image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGBA")  # one path for all other modes
    if image.mode != MODES[channels]:
        image = image.convert(MODES[channels])
    pixels = np.array(image)
    return pixels[:, :, None] if channels == 1 else pixels


def _from_16_bits(image: Any, channels: int, transparent: Any, name: str) -> np.ndarray:
    """The high byte of each 16-bit pixel; Pillow itself would clip values above 255."""
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= 2**16:
        raise _no_bytes(name, f"numbers from {low} to {high}")
    bits = min(_tag(image, BITS, 16), 16)  # TIFF may have 12
    grey = (values >> (bits - 8)).astype(np.uint8)
    if _tag(image, PHOTOMETRIC, 1) == 0:
        grey = 255 - grey  # 0 is white
    alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
    return np.stack([grey] * min(channels, 3) + [alpha] * (channels == 4), axis=-1)


def _from_floats(image: Any, channels: int, name: str) -> np.ndarray:
    """The pixels of floats in `[0, 1]`, or else in `[0, 255]`."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):  # NaN, too
        raise _no_bytes(name, f"floats from {low:g} to {high:g}")
    grey = np.round(values * (255 if high <= 1 else 1)).astype(np.uint8)
    opaque = np.full_like(grey, 255)
    return np.stack([grey] * min(channels, 3) + [opaque] * (channels == 4), axis=-1)


def _tag(image: Any, tag: int, default: int) -> int:
    """The first value of a TIFF tag; for other files, the default."""
    found = getattr(image, "tag_v2", {}).get(tag, default)
    return int(found[0] if isinstance(found, tuple) else found)


def _orientation(image: Any) -> Any:
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # damaged EXIF counts as none
        return None


def _no_bytes(name: str, pixels: str) -> InputError:
    return InputError(
        f"{name} has {pixels}, which have no meaning in 8 bits. First convert it to 8 bits"
    )
