"""The works that the benchmark measures: their sizes, and the arithmetic that they cannot avoid.

This file needs nothing but Python, so that jaxdl and the PyTorch peers read the same figures.
"""

from itertools import pairwise
from typing import NamedTuple

EXAMPLES = 20
"""Images per class that the few-shot peers hold in memory."""
HIDDEN = (40, 40)
"""The hidden layers of MAML's net for sine waves."""
LR = 1e-3
"""Adam's, in all works of MAML."""

TARGETS, MOMENTUM = 10, 0.9
"""Classes of MNIST and CIFAR-10; of SGD, in all supervised works."""
WIDE, CELLS = 512, 128
"""The hidden layer of the MLP for MNIST; the LSTM's cells."""


class Classes(NamedTuple):
    """Images of a few-shot data set: their number of classes, sides and channels.

    `rotated` is for a turn per class, as with Omniglot.
    """

    count: int
    side: int
    channels: int
    rotated: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return self.side, self.side, self.channels


OMNIGLOT = Classes(1200, 28, 1, rotated=True)
CIFAR_FS = Classes(64, 32, 3)
MINI_IMAGENET = Classes(64, 84, 3)


class Maml(NamedTuple):
    """One training step of second-order MAML: `tasks` tasks, `inner_steps` of SGD in each.

    `net` is "mlp", "conv4" (strided), "conv4-pooled" or "resnet12". `filters` has the channels of
    the four blocks. Without `images`, the tasks are sine waves.
    """

    title: str
    net: str
    images: Classes | None
    filters: tuple[int, ...]
    tasks: int
    ways: int
    shots: int
    queries: int
    inner_steps: int
    inner_lr: float

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an input."""
        return self.images.shape if self.images else (1,)


class Images(NamedTuple):
    """A set of uint8 images, and mean and deviation of its pixels (0 to 1) as scripts write them.

    Speed does not depend on what they show: the peers fill them with random numbers.
    """

    count: int
    shape: tuple[int, ...]
    mean: float
    deviation: float


MNIST = Images(60_000, (28, 28), 0.1307, 0.3081)
CIFAR10 = Images(50_000, (32, 32, 3), 0.5, 0.5)


class Supervised(NamedTuple):
    """One training step by SGD with momentum; an epoch takes every image once, in a new order.

    `marks` are what jaxdl is to reach: the time of a peer's fastest form over its own.
    """

    title: str
    net: str
    images: Images
    batch: int
    lr: float
    marks: dict[str, float]

    @property
    def convolves(self) -> bool:
        """Whether the net has convolutions."""
        return self.net.startswith(("lenet", "resnet"))


class Tables(NamedTuple):
    """One training step of nanoTabPFN's net on `batch` tables: a token per cell, and per label.

    A table has `shots` labelled rows and `queries` others. Without `drawn`, both sides take tables
    from memory. With it, jaxdl draws them from its prior, and PyTorch reads them from a file, as
    nanoTabPFN does.
    """

    title: str
    drawn: bool
    shots: int = 100
    queries: int = 50
    columns: int = 5
    classes: int = 2
    width: int = 96
    heads: int = 4
    layers: int = 3
    batch: int = 32
    lr: float = 4e-3
    count: int = 3200

    @property
    def marks(self) -> dict[str, float]:
        """As those of `Supervised`."""
        return {"torch.tables": 1}


Work = Maml | Supervised | Tables

FOUR_64, FOUR_32 = 4 * (64,), 4 * (32,)
"""The filters of conv-4 on Omniglot, and on larger images."""

WORKS: dict[str, Work] = {
    "sinusoid": Maml("sine waves, MLP 1-40-40-1, 10-shot", "mlp", None, (), 25, 1, 10, 10, 1, 1e-3),
    "omniglot-15q": Maml(
        "conv-4, 5-way 1-shot, 15 queries a class", "conv4", OMNIGLOT, FOUR_64, 32, 5, 1, 15, 1, 0.4
    ),
    "omniglot-1q": Maml(
        "conv-4, 5-way 1-shot, 1 query a class", "conv4", OMNIGLOT, FOUR_64, 32, 5, 1, 1, 1, 0.4
    ),
    "omniglot-20way": Maml(
        "conv-4, 20-way 1-shot, 1 query a class", "conv4", OMNIGLOT, FOUR_64, 16, 20, 1, 1, 5, 0.1
    ),
    "cifar-fs": Maml(
        "pooled conv-4, 32 px, 5-way 1-shot, 15 queries a class",
        "conv4-pooled",
        CIFAR_FS,
        FOUR_32,
        4,
        5,
        1,
        15,
        5,
        0.01,
    ),
    "mini-imagenet": Maml(
        "pooled conv-4, 84 px, 5-way 1-shot, 15 queries a class",
        "conv4-pooled",
        MINI_IMAGENET,
        FOUR_32,
        4,
        5,
        1,
        15,
        5,
        0.01,
    ),
    "cifar-fs-resnet12": Maml(
        "ResNet-12, 32 px, 5-way 1-shot, 15 queries a class",
        "resnet12",
        CIFAR_FS,
        (64, 160, 320, 640),
        2,
        5,
        1,
        15,
        1,
        0.01,
    ),
    "mnist-mlp": Supervised(
        "MLP 784-512-10 on MNIST's shape",
        "mlp",
        MNIST,
        64,
        0.01,
        {"torch.DataLoader": 5, "torch.indexed": 1.5, "torch.compile": 1},
    ),
    "cifar-lenet": Supervised(
        "LeNet 6-16-120-84-10 on CIFAR-10's shape",
        "lenet",
        CIFAR10,
        64,
        0.001,
        {"torch.DataLoader": 1, "torch.indexed": 1, "torch.compile": 1},
    ),
    "resnet18-imagenet-stem": Supervised(
        "ResNet-18 with ImageNet's 7x7 stem on CIFAR-10's shape",
        "resnet18-imagenet",
        CIFAR10,
        16,
        0.01,
        {"torch.indexed": 1.5, "torch.compile": 1.5},
    ),
    "resnet18-cifar-stem": Supervised(
        "ResNet-18 with CIFAR's 3x3 stem on CIFAR-10's shape",
        "resnet18-cifar",
        CIFAR10,
        16,
        0.01,
        {"torch.indexed": 1, "torch.compile": 1},
    ),
    "lstm": Supervised(
        "LSTM 28-128-10 over the rows of MNIST's shape",
        "lstm",
        MNIST,
        64,
        0.01,
        {"torch.indexed": 1},
    ),
    "tables": Tables("nanoTabPFN's net, tables in memory", drawn=False),
    "tables-drawn": Tables("nanoTabPFN's net, tables drawn anew, or read from a file", drawn=True),
}


def conv_flops(side: int, taps: int, channels: int, filters: int) -> int:
    """FLOPs of a convolution with `side * side` positions and `taps * taps` taps."""
    return 2 * side * side * taps * taps * channels * filters


def resnet18_flops(stem: list[int], side: int, classes: int = TARGETS) -> list[int]:
    """The layers of a ResNet-18 whose first stage has maps of `side * side`."""
    flops, channels = list(stem), 64
    for filters in (64, 128, 256, 512):
        if filters != channels:
            side //= 2
            flops.append(conv_flops(side, 1, channels, filters))  # beside the block
        flops.append(conv_flops(side, 3, channels, filters))
        flops += 3 * [conv_flops(side, 3, filters, filters)]
        channels = filters
    return [*flops, 2 * 512 * classes]


def few_shot_flops(work: Maml, side: int, channels: int) -> list[int]:
    """The layers of a few-shot net. All that read the image itself are the first entry."""
    flops, strided = [], work.net == "conv4"
    for filters in work.filters:
        side = -(-side // 2) if strided else side  # SAME: rounded up
        block = [conv_flops(side, 3, channels, filters)]
        if work.net == "resnet12":
            block[0] += conv_flops(side, 1, channels, filters)  # beside the block
            block += 2 * [conv_flops(side, 3, filters, filters)]
        flops += block
        side = side if strided else side // 2
        channels = filters
    features = channels * (side * side if work.net == "conv4-pooled" else 1)
    return [*flops, 2 * features * work.ways]


def table_flops(work: Tables) -> int:
    """FLOPs of the matrix products of one table, forward: attention and dense layers.

    In the last layer, only the label's token goes on. The decoder, a hundredth, is not counted.
    """
    total, every = 0, work.columns + 1
    for layer in range(work.layers):
        asking = 1 if layer == work.layers - 1 else every
        for rows in (work.shots, work.queries):
            # Queries, results and the dense net of tokens that go on; keys and values of all.
            dense = (2 + 2 + 4) * asking + 2 * every
            total += 2 * rows * dense * work.width**2
            # Scores and sums over the columns, and over the labelled rows.
            total += 2 * 2 * rows * asking * (every + work.shots) * work.width
        total += 2 * work.shots * 2 * asking * work.width**2  # keys and values of labelled rows
    return total


def layer_flops(work: Maml | Supervised) -> list[int]:
    """FLOPs (two a multiply-add) of each layer's matrix product for one example, forward.

    A convolution counts as the matrix product that it is, padding included; biases, batch norm,
    ReLU, the loss and the optimiser are not counted: they are some hundredths.
    """
    match work:
        case Maml(images=None):
            widths = (1, *HIDDEN, 1)
            return [2 * a * b for a, b in pairwise(widths)]
        case Maml(images=images):
            return few_shot_flops(work, images.side, images.channels)
        case Supervised(net="mlp"):
            return [2 * 784 * WIDE, 2 * WIDE * TARGETS]
        case Supervised(net="lenet"):
            dense = [2 * a * b for a, b in pairwise((400, 120, 84, TARGETS))]
            return [conv_flops(28, 5, 3, 6), conv_flops(10, 5, 6, 16), *dense]
        case Supervised(net="resnet18-imagenet"):
            return resnet18_flops([conv_flops(16, 7, 3, 64)], 8)  # a pool halves the side
        case Supervised(net="resnet18-cifar"):
            return resnet18_flops([conv_flops(32, 3, 3, 64)], 32)
        case Supervised(net="lstm"):
            # Four gates; the state that the first row meets is zero.
            return [28 * 2 * 28 * 4 * CELLS, 27 * 2 * CELLS * 4 * CELLS, 2 * CELLS * TARGETS]
    raise ValueError(f"no layers are known of {work}")


def step_flops(work: Work) -> int:
    """FLOPs of the matrix products that one training step cannot do without.

    Let F be the forward cost of an example, and F1 the part of the first layer. Every layer is
    bilinear in its input and its weights, and the data need no gradient:

    - forward: F;
    - gradient: a product for each layer's weights and one for each input but the first, 2 F - F1;
    - Hessian-vector product: each of these three products of a layer has a derivative by each of
      its two operands, six in all; of the first layer, whose input is data, two remain of its two
      products. 6 F - 4 F1, in either mode of differentiation.

    A support example passes through all three at each inner step, a query example and one of
    supervised learning through the first two once. What an implementation computes twice to save
    memory does not count. The tokens of a table are parameters times data: all layers need both
    gradients.
    """
    if isinstance(work, Tables):
        return work.batch * 3 * table_flops(work)
    layers = layer_flops(work)
    forward, first = sum(layers), layers[0]
    once = 3 * forward - first
    if isinstance(work, Supervised):
        return work.batch * once
    support = work.inner_steps * (9 * forward - 5 * first)
    return work.tasks * work.ways * (work.shots * support + work.queries * once)
