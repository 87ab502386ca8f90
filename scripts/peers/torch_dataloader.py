"""The tutorials' way: a Dataset of images, transforms one by one, and PyTorch's DataLoader.

The Dataset and the two transforms do what torchvision's MNIST, CIFAR10, ToTensor and Normalize do,
by way of a PIL image as they do. Form: the number of worker processes.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch_nets import net
from torch_process import Step, main
from works import MOMENTUM, TARGETS, Images, Supervised


def to_tensor(image: Image.Image) -> Tensor:
    """`[channels, height, width]` in [0, 1]."""
    pixels = torch.from_numpy(np.array(image, copy=True))
    pixels = pixels.view(image.size[1], image.size[0], len(image.getbands()))
    return pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255)


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images and labels in memory, and what is done to each when it is asked for."""

    def __init__(self, images: Images) -> None:
        rng = np.random.default_rng(0)
        self.data = rng.integers(0, 256, (images.count, *images.shape), dtype=np.uint8)
        self.targets = rng.integers(0, TARGETS, images.count).tolist()
        bands = 3 if len(images.shape) == 3 else 1
        self.mean, self.deviation = [images.mean] * bands, [images.deviation] * bands

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = to_tensor(Image.fromarray(self.data[index]))
        mean = torch.as_tensor(self.mean).view(-1, 1, 1)
        deviation = torch.as_tensor(self.deviation).view(-1, 1, 1)
        if (deviation == 0).any():  # torchvision asks each time
            raise ValueError("a deviation of zero")
        return pixels.clone().sub_(mean).div_(deviation), self.targets[index]


def make(work: Supervised, form: str, device: str) -> Step:
    loader = DataLoader(
        Pictures(work.images),
        batch_size=work.batch,
        shuffle=True,
        num_workers=int(form.split()[0]),
        pin_memory=device == "cuda",
    )
    model = net(work).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=work.lr, momentum=MOMENTUM)

    def epochs() -> Iterator[list[Tensor]]:
        while True:
            yield from loader

    batches = epochs()

    def step() -> Tensor:
        images, labels = next(batches)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images.to(device)), labels.to(device))
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


if __name__ == "__main__":
    main(make)
