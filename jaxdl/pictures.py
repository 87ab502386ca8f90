"""Pictures that several experiments draw, on a Matplotlib figure that the caller saves."""

from typing import Any

import numpy as np

from jaxdl.types import Array, Episode


def episode(shown: Episode, logits: Array, figure: Any) -> None:
    """One few-shot task: a row a class, its support images, then its queries with predictions.

    Args:
        shown: images `[n, height, width, channels]` in `[0, 1]`, labels in `[0, ways)`.
        logits: predictions for the query set, `[n, ways]`.
    """
    support, query = shown.support, shown.query
    predicted = np.argmax(np.asarray(logits), axis=1)
    ways = logits.shape[1]
    rows = [
        (np.flatnonzero(np.asarray(support.y) == way), np.flatnonzero(np.asarray(query.y) == way))
        for way in range(ways)
    ]
    shots = max(len(given) for given, _ in rows)
    columns = shots + min(8, max(len(asked) for _, asked in rows))
    axes = figure.subplots(ways, columns, squeeze=False)
    for way, (given, asked) in enumerate(rows):
        for axis in axes[way]:
            axis.set_axis_off()
        for axis, index in zip(axes[way], given, strict=False):
            _image(axis, support.x[index])
            axis.set_title(f"class {way}", fontsize="small", color="0.4")
        for axis, index in zip(axes[way, shots:], asked, strict=False):
            _image(axis, query.x[index])
            right = predicted[index] == way
            axis.set_title(f"{predicted[index]}", fontsize="small", color="C2" if right else "C3")
    accuracy = np.mean(predicted == np.asarray(query.y))
    figure.suptitle(
        f"support (left) and queries with predicted class, red where wrong; {accuracy:.0%} right",
        fontsize="medium",
    )


def _image(axis: Any, image: Array) -> None:
    gray = image.shape[-1] == 1
    axis.imshow(image[..., 0] if gray else image, cmap="gray_r" if gray else None, vmin=0, vmax=1)
