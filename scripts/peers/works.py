"""The works that the benchmark measures: their sizes, and the arithmetic that they cannot avoid.

This file needs nothing but Python, so that jaxdl and the PyTorch peers read the same figures.
"""

from itertools import pairwise
from typing import NamedTuple

CLASSES, EXAMPLES, SIDE, FILTERS = 1200, 20, 28, 64
"""Omniglot as MAML trains on it: characters, drawings of each, pixels a side; conv-4's filters."""
HIDDEN = (40, 40)
"""The hidden layers of MAML's net for sine waves."""
LR = 1e-3
"""Adam's, in all works."""


class Work(NamedTuple):
    """One training step of second-order MAML: `tasks` tasks, `inner_steps` of SGD in each."""

    title: str
    conv: bool
    tasks: int
    ways: int
    shots: int
    queries: int
    inner_steps: int
    inner_lr: float


WORKS = {
    "sinusoid": Work("sine waves, MLP 1-40-40-1, 10-shot", False, 25, 1, 10, 10, 1, 1e-3),
    "omniglot-15q": Work("conv-4, 5-way 1-shot, 15 queries a class", True, 32, 5, 1, 15, 1, 0.4),
    "omniglot-1q": Work("conv-4, 5-way 1-shot, 1 query a class", True, 32, 5, 1, 1, 1, 0.4),
    "omniglot-20way": Work("conv-4, 20-way 1-shot, 1 query a class", True, 16, 20, 1, 1, 5, 0.1),
}


def layer_flops(work: Work) -> list[int]:
    """FLOPs (two a multiply-add) of each layer's matrix product for one example, forward.

    A convolution counts as the matrix product that it is, padding included; biases, batch norm,
    ReLU, the loss and Adam are not counted: they are under a hundredth.
    """
    if not work.conv:
        widths = (1, *HIDDEN, 1)
        return [2 * a * b for a, b in pairwise(widths)]
    flops, side, channels = [], SIDE, 1
    for _ in range(4):
        side = -(-side // 2)  # stride 2, SAME: rounded up
        flops.append(2 * side * side * 9 * channels * FILTERS)
        channels = FILTERS
    return [*flops, 2 * FILTERS * work.ways]


def step_flops(work: Work) -> int:
    """FLOPs of the matrix products that one training step cannot do without.

    Let F be the forward cost of an example, and F1 the part of the first layer. Every layer is
    bilinear in its input and its weights, and the data need no gradient:

    - forward: F;
    - gradient: a product for each layer's weights and one for each input but the first, 2 F - F1;
    - Hessian-vector product: each of these three products of a layer has a derivative by each of
      its two operands, six in all; of the first layer, whose input is data, two remain of its two
      products. 6 F - 4 F1, in either mode of differentiation.

    A support example passes through all three at each inner step, a query example through the first
    two once. What an implementation computes twice to save memory does not count.
    """
    layers = layer_flops(work)
    forward, first = sum(layers), layers[0]
    query = 3 * forward - first
    support = work.inner_steps * (9 * forward - 5 * first)
    return work.tasks * work.ways * (work.shots * support + work.queries * query)
