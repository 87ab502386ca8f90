"""Whether cached arrays are what their folder says: a file may have been replaced by another."""

import numpy as np

from jaxdl.data.prepare.cache import Arrays
from jaxdl.data.prepare.folder import PathLike, data_folder
from jaxdl.errors import content_of

SHAPES = {
    "mnist": (28, 28, 1),
    "omniglot": (28, 28, 1),
    "cifar10": (32, 32, 3),
    "cifar100": (32, 32, 3),
}
"""Of one image."""


def of_images(arrays: Arrays, data: str, data_dir: PathLike | None) -> Arrays:
    """The arrays, if they are images with labels and the names of classes.

    Raises:
        RunError: if they are others, because a file was replaced.
    """
    place = data_folder(data_dir) / "arrays" / data
    with content_of(place, "Delete this folder, then prepare the data again"):
        images, labels, names = (arrays[key] for key in ("image", "label", "label.names"))
        if images.dtype != np.uint8 or images.shape[1:] != SHAPES[data]:
            raise ValueError(f"its images are {images.dtype} {images.shape}")
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise ValueError(f"its labels are {labels.dtype} {labels.shape}")
        if names.ndim != 1 or names.dtype.kind not in "US":
            raise ValueError(f"its names of classes are {names.dtype} {names.shape}")
        if data == "cifar100":
            coarse, _ = (arrays[key] for key in ("coarse_label", "coarse_label.names"))
            if coarse.shape != labels.shape:
                raise ValueError(f"its superclasses are {coarse.shape}")
    return arrays
