"""Whether cached arrays are what their folder says: a file may have been replaced by another."""

import numpy as np

from jaxdl.data.prepare.cache import Arrays
from jaxdl.data.prepare.folder import PathLike, data_folder
from jaxdl.errors import content_of


def of_images(arrays: Arrays, data: str, data_dir: PathLike | None) -> Arrays:
    """The arrays, if they are images with labels and the names of classes.

    Raises:
        RunError: if they are others, because a file was replaced.
    """
    place = data_folder(data_dir) / "arrays" / data
    with content_of(place, "Delete this folder, then prepare the data again"):
        images, labels, names = (arrays[key] for key in ("image", "label", "label.names"))
        right = images.dtype == np.uint8 and (images.ndim, labels.ndim, names.ndim) == (4, 1, 1)
        if not right or names.dtype.kind not in "US":
            raise ValueError(f"its images are {images.dtype} {images.shape}")
    return arrays
