"""What the PyTorch peers of MAML share: nets and episodes."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
import torch_process
from torch import Tensor, nn
from works import CLASSES, EXAMPLES, FILTERS, HIDDEN, LR, SIDE, Maml

Params = dict[str, Tensor]
Episodes = tuple[Tensor, Tensor, Tensor, Tensor]
"""Support x and y, query x and y, each with a leading task axis."""
Sample = Callable[[], Episodes]
Step = torch_process.Step


def init_params(work: Maml) -> Params:
    """Weights as the papers draw them, near enough: speed does not depend on them."""
    if not work.conv:
        widths = (1, *HIDDEN, 1)
        params = {}
        for i, (a, b) in enumerate(pairwise(widths)):
            params[f"w{i}"] = torch.randn(b, a) * (2 / a) ** 0.5
            params[f"b{i}"] = torch.zeros(b)
        return params
    params, channels = {}, 1
    for i in range(4):
        params[f"w{i}"] = nn.init.xavier_uniform_(torch.empty(FILTERS, channels, 3, 3))
        params[f"b{i}"] = torch.zeros(FILTERS)
        channels = FILTERS
    return params | {"w4": torch.randn(work.ways, FILTERS), "b4": torch.zeros(work.ways)}


def mlp(params: Params, x: Tensor) -> Tensor:
    """1-40-40-1 with ReLU."""
    for i in range(2):
        x = F.relu(F.linear(x, params[f"w{i}"], params[f"b{i}"]))
    return F.linear(x, params["w2"], params["b2"])


def conv4(params: Params, x: Tensor) -> Tensor:
    """Four convolutions of stride 2 with batch norm (own statistics, shift only), spatial mean."""
    for i in range(4):
        x = F.conv2d(x, params[f"w{i}"], stride=2, padding=1)
        # A scale of one: the derivative of batch_norm's derivative is not defined without a scale.
        one = torch.ones(FILTERS, device=x.device)
        x = F.relu(F.batch_norm(x, None, None, one, params[f"b{i}"], training=True))
    return F.linear(x.mean((2, 3)), params["w4"], params["b4"])


class Net(nn.Module):
    """The same nets for the libraries that want a module. Flat, since they walk over submodules."""

    def __init__(self, work: Maml) -> None:
        super().__init__()
        self.net = conv4 if work.conv else mlp
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

    The four rotations are laid out beforehand, which no data loader of the peers does; without
    replacement, and with a random turn for each class.
    """
    images = torch.randint(0, 256, (CLASSES, EXAMPLES, SIDE, SIDE), dtype=torch.uint8)
    turned = torch.stack([torch.rot90(images, turns, (2, 3)) for turns in range(4)]).to(device)
    each = work.shots + work.queries
    labels = torch.arange(work.ways, device=device)
    support_y = labels.repeat_interleave(work.shots).expand(work.tasks, -1)
    query_y = labels.repeat_interleave(work.queries).expand(work.tasks, -1)

    def sample() -> Episodes:
        size = (work.tasks, work.ways)
        classes = torch.rand(work.tasks, CLASSES, device=device).topk(work.ways).indices
        drawn = torch.rand(*size, EXAMPLES, device=device).topk(each).indices
        turns = torch.randint(0, 4, size, device=device)
        pixels = turned[turns[..., None], classes[..., None], drawn]
        pixels = pixels.float().div_(255)
        flat = (work.tasks, -1, 1, SIDE, SIDE)
        support = pixels[:, :, : work.shots].reshape(flat)
        query = pixels[:, :, work.shots :].reshape(flat)
        return support, support_y, query, query_y

    return sample


def loss_of(work: Maml) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss, inner and outer."""
    return F.cross_entropy if work.conv else F.mse_loss


def adam(params: Any) -> torch.optim.Optimizer:
    """Adam in one fused kernel."""
    return torch.optim.Adam(params, lr=LR, fused=True)


Make = Callable[[Maml, str, str, Sample], Step]
"""`(work, form, device, sample) -> step`."""


def main(make: Make) -> None:
    """Serves the peer whose training step `make` builds."""

    def of_work(work: Maml, form: str, device: str) -> Step:
        return make(work, form, device, (episodes if work.conv else sinusoids)(work, device))

    torch_process.main(of_work)
