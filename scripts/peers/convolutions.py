"""Each contraction of a convolution by im2col and by XLA's own form, on one core.

    scripts/benchmark --convolutions

It prints the table by which jaxdl/models/layers/cpu.py chooses. The forms take turns; a time is the
median of seven calls. The kernels are shared by all images, and have 3 x 3 taps.
"""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ["NPROC"] = "1"  # before JAX starts

import jax

from jaxdl.models.layers.contractions import Geometry
from jaxdl.models.layers.cpu import library_is_faster
from jaxdl.models.layers.groups import conv_in_groups, grad_w_in_groups, grad_x_in_groups
from jaxdl.models.layers.library import conv_library, grad_w_library, grad_x_by_conv

ROUNDS = 7
SHAPES = [
    (75, 84, 3, 32),
    (75, 42, 32, 32),
    (75, 21, 32, 32),
    (75, 10, 32, 32),
    (75, 32, 3, 32),
    (75, 16, 32, 32),
    (75, 8, 32, 32),
    (5, 42, 32, 32),
    (5, 16, 32, 32),
    (75, 32, 64, 64),
    (75, 16, 160, 160),
    (75, 8, 320, 320),
    (75, 4, 640, 640),
    (5, 16, 160, 160),
    (5, 4, 640, 640),
]
"""Images, side, channels of input and output: of conv-4 with a pool, and of ResNet-12."""


def in_turn(forms: list[Callable[..., Any]], *operands: Any) -> list[float]:
    """Milliseconds of each form."""
    compiled = [jax.jit(form) for form in forms]
    times: list[list[float]] = [[] for _ in forms]
    for turn in range(ROUNDS + 1):
        for form, found in zip(compiled, times, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(form(*operands))
            if turn:  # the first one compiles
                found.append(1e3 * (time.perf_counter() - began))
    return [statistics.median(found) for found in times]


def row(n: int, side: int, c: int, o: int) -> str:
    """The line of a shape: im2col, XLA's own, for value and both gradients."""
    geometry = Geometry((side, side), (3, 3), (1, 1), ((1, 1), (1, 1)))
    keys = jax.random.split(jax.random.key(0), 3)
    x, w, y = (
        jax.random.normal(key, (1, *shape))
        for key, shape in zip(
            keys, [(n, side, side, c), (3, 3, c, o), (n, side, side, o)], strict=True
        )
    )
    cells = []
    for product, library, operands in (
        (conv_in_groups, conv_library, (x, w)),
        (grad_x_in_groups, grad_x_by_conv, (y, w)),
        (grad_w_in_groups, grad_w_library, (x, y)),
    ):
        forms = [lambda a, b, f=form: f(a, b, geometry) for form in (product, library)]
        cells += [f"{ms:.3g}" for ms in in_turn(forms, *operands)]
    chosen = "XLA" if library_is_faster(x, w, geometry) else "im2col"
    return " | ".join([f"| {n} | {side} | {c} to {o}", *cells, f"{chosen} |"])


def main() -> None:
    print("ms: im2col, then XLA's own. The last column is the form of value and input gradient.\n")
    print("| images | side | channels | value | XLA | input | XLA | weights | XLA | chosen |")
    print("| -: | -: | -: " + "| -: " * 6 + "| :- |")
    for shape in SHAPES:
        print(row(*shape), flush=True)


if __name__ == "__main__":
    main()
