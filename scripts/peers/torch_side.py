"""What the PyTorch peers of MAML share: nets and episodes."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
import torch_process
from torch import Tensor, nn
from works import EXAMPLES, HIDDEN, LR, Maml

Params = dict[str, Tensor]
Episodes = tuple[Tensor, Tensor, Tensor, Tensor]
"""Support x and y, query x and y, each with a leading task axis."""
Sample = Callable[[], Episodes]
Step = torch_process.Step


def init_params(work: Maml) -> Params:
    """Weights as the papers draw them, near enough: speed does not depend on them."""
    if not work.images:
        widths = (1, *HIDDEN, 1)
        params = {}
        for i, (a, b) in enumerate(pairwise(widths)):
            params[f"w{i}"] = torch.randn(b, a) * (2 / a) ** 0.5
            params[f"b{i}"] = torch.zeros(b)
        return params
    params, channels = {}, work.images.channels
    for i, filters in enumerate(work.filters):
        shapes = {f"w{i}": (filters, channels, 3, 3)}
        if work.net == "resnet12":
            more = {f"w{i}{part}": (filters, filters, 3, 3) for part in "bc"}
            shapes |= more | {f"w{i}d": (filters, channels, 1, 1)}
        for name, shape in shapes.items():
            params[name] = nn.init.xavier_uniform_(torch.empty(shape))
            params["b" + name[1:]] = torch.zeros(filters)
            if work.net == "resnet12":
                params["s" + name[1:]] = torch.ones(filters)
        channels = filters
    if work.net == "conv4-pooled":
        channels *= (work.images.side // 16) ** 2
    return params | {"head": torch.randn(work.ways, channels), "bias": torch.zeros(work.ways)}


def mlp(params: Params, x: Tensor) -> Tensor:
    """1-40-40-1 with ReLU."""
    for i in range(2):
        x = F.relu(F.linear(x, params[f"w{i}"], params[f"b{i}"]))
    return F.linear(x, params["w2"], params["b2"])


def normalised(params: Params, name: str, x: Tensor, stride: int = 1) -> Tensor:
    """A convolution and batch norm by the batch's own statistics."""
    w = params["w" + name]
    x = F.conv2d(x, w, stride=stride, padding=w.shape[-1] // 2)
    scale = params.get("s" + name)
    if scale is None:
        # A scale of one: the derivative of batch_norm's derivative is not defined without a scale.
        scale = torch.ones(len(w), device=x.device)
    return F.batch_norm(x, None, None, scale, params["b" + name], training=True)


def conv4(params: Params, x: Tensor) -> Tensor:
    """Four convolutions of stride 2, shift only, and the mean over space."""
    for i in range(4):
        x = F.relu(normalised(params, str(i), x, stride=2))
    return F.linear(x.mean((2, 3)), params["head"], params["bias"])


def conv4_pooled(params: Params, x: Tensor) -> Tensor:
    """Four convolutions, shift only, each with a 2x2 max-pool."""
    for i in range(4):
        # relu commutes with the pool; after the pool, it costs a quarter.
        x = F.relu(F.max_pool2d(normalised(params, str(i), x), 2))
    return F.linear(x.flatten(1), params["head"], params["bias"])


def resnet12(params: Params, x: Tensor) -> Tensor:
    """Four blocks of three convolutions with a way past them, each with a 2x2 max-pool."""
    for i in range(4):
        y = x
        for part in ("", "b"):
            y = F.leaky_relu(normalised(params, f"{i}{part}", y), 0.1)
        y = normalised(params, f"{i}c", y) + normalised(params, f"{i}d", x)
        x = F.leaky_relu(F.max_pool2d(y, 2), 0.1)
    return F.linear(x.mean((2, 3)), params["head"], params["bias"])


NETS = {"mlp": mlp, "conv4": conv4, "conv4-pooled": conv4_pooled, "resnet12": resnet12}


class Net(nn.Module):
    """The same nets for the libraries that want a module. Flat, since they walk over submodules."""

    def __init__(self, work: Maml) -> None:
        super().__init__()
        self.net = NETS[work.net]
        params = init_params(work)
        self.names = tuple(params)
        for name, value in params.items():
            self.register_parameter(name, nn.Parameter(value))

    def forward(self, x: Tensor) -> Tensor:
        return self.net({name: getattr(self, name) for name in self.names}, x)


def sinusoids(work: Maml, device: str) -> Sample:
    """Sine waves of MAML section 5.1, all tasks of a step at once."""
    points = work.shots + work.queries

    def sample() -> Episodes:
        amplitude = torch.empty(work.tasks, 1, 1, device=device).uniform_(0.1, 5.0)
        phase = torch.empty(work.tasks, 1, 1, device=device).uniform_(0.0, torch.pi)
        x = torch.empty(work.tasks, points, 1, device=device).uniform_(-5.0, 5.0)
        y = amplitude * torch.sin(x - phase)
        return x[:, : work.shots], y[:, : work.shots], x[:, work.shots :], y[:, work.shots :]

    return sample


def episodes(work: Maml, device: str) -> Sample:
    """Episodes from images in memory, all tasks of a step by one gather.

    Rotations are laid out beforehand, which no data loader of the peers does; without
    replacement, and with a random turn for each class.
    """
    of, turns = work.images, 4 if work.images.rotated else 1
    shape = (of.channels, of.side, of.side)
    images = torch.randint(0, 256, (of.count, EXAMPLES, *shape), dtype=torch.uint8)
    turned = torch.stack([torch.rot90(images, turn, (3, 4)) for turn in range(turns)]).to(device)
    each = work.shots + work.queries
    labels = torch.arange(work.ways, device=device)
    support_y = labels.repeat_interleave(work.shots).expand(work.tasks, -1)
    query_y = labels.repeat_interleave(work.queries).expand(work.tasks, -1)

    def sample() -> Episodes:
        size = (work.tasks, work.ways)
        classes = torch.rand(work.tasks, of.count, device=device).topk(work.ways).indices
        drawn = torch.rand(*size, EXAMPLES, device=device).topk(each).indices
        turn = torch.randint(0, turns, size, device=device)
        pixels = turned[turn[..., None], classes[..., None], drawn]
        pixels = pixels.float().div_(255)
        flat = (work.tasks, -1, *shape)
        support = pixels[:, :, : work.shots].reshape(flat)
        query = pixels[:, :, work.shots :].reshape(flat)
        return support, support_y, query, query_y

    return sample


def loss_of(work: Maml) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss, inner and outer."""
    return F.cross_entropy if work.images else F.mse_loss


def adam(params: Any) -> torch.optim.Optimizer:
    """Adam in one fused kernel."""
    return torch.optim.Adam(params, lr=LR, fused=True)


Make = Callable[[Maml, str, str, Sample], Step]
"""`(work, form, device, sample) -> step`."""


def main(make: Make) -> None:
    """Serves the peer whose training step `make` builds."""

    def of_work(work: Maml, form: str, device: str) -> Step:
        return make(work, form, device, (episodes if work.images else sinusoids)(work, device))

    torch_process.main(of_work)
