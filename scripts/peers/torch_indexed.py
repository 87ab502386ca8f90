"""All images as one tensor: an epoch is a permutation, a batch is an index. No DataLoader.

Form: the layout of images and kernels in memory, which matters to convolutions.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_nets import net
from torch_process import Step, main
from works import MOMENTUM, TARGETS, Images, Supervised

LAYOUTS = {"channels-last": torch.channels_last}


def data(images: Images, device: str) -> tuple[Tensor, Tensor]:
    """Images `[n, channels, h, w]` uint8 and labels `[n]`, random."""
    height, width, bands = (*images.shape, 1)[:3]
    size = (images.count, bands, height, width)
    pixels = torch.randint(0, 256, size, dtype=torch.uint8, device=device)
    return pixels, torch.randint(0, TARGETS, (images.count,), device=device)


def orders(work: Supervised, device: str) -> Iterator[Tensor]:
    """The indices of batch after batch, all full."""
    full = work.images.count // work.batch * work.batch
    while True:
        yield from torch.randperm(work.images.count, device=device)[:full].split(work.batch)


def loss_of(work: Supervised, model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of uint8 images and their labels."""

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        x = images.float().div_(255).sub_(work.images.mean).div_(work.images.deviation)
        return F.cross_entropy(model(x), labels)

    return loss


def build(
    work: Supervised, form: str, device: str, through: Callable[[Callable], Callable]
) -> Step:
    """The training step; `through` (a compiler, or nothing) takes the loss."""
    layout = LAYOUTS.get(form, torch.contiguous_format)
    pixels, labels = data(work.images, device)
    pixels = pixels.to(memory_format=layout)
    model = net(work).to(device, memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=work.lr, momentum=MOMENTUM, fused=True)
    loss_at, batches = through(loss_of(work, model)), orders(work, device)

    def step() -> Tensor:
        rows = next(batches)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_at(pixels[rows], labels[rows])
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def make(work: Supervised, form: str, device: str) -> Step:
    return build(work, form, device, lambda function: function)


if __name__ == "__main__":
    main(make)
