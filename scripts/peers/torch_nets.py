"""The nets of the supervised works as PyTorch modules: images `[n, channels, h, w]` to logits."""

import torch.nn.functional as F
from torch import Tensor, nn
from works import CELLS, TARGETS, WIDE, Supervised


class LeNet(nn.Module):
    """The net of PyTorch's CIFAR-10 tutorial."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, TARGETS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the way past them; names as in torchvision."""

    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.downsample: nn.Module | None = None
        if inputs != filters:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """ResNet-18 laid out as torchvision's; the stem of ImageNet, or the 3x3 stem of CIFAR."""

    def __init__(self, stem: str) -> None:
        super().__init__()
        imagenet = stem == "imagenet"
        self.conv1 = (
            nn.Conv2d(3, 64, 7, 2, 3, bias=False)
            if imagenet
            else nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        )
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if imagenet else nn.Identity()
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256, 1))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512, 1))
        self.fc = nn.Linear(512, TARGETS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class Rows(nn.Module):
    """An LSTM that reads an image row by row; its last output is judged."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, CELLS, batch_first=True)
        self.fc = nn.Linear(CELLS, TARGETS)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.lstm(x.squeeze(1))
        return self.fc(outputs[:, -1])


def net(work: Supervised) -> nn.Module:
    """The net of a work."""
    match work.net:
        case "mlp":
            return nn.Sequential(
                nn.Flatten(), nn.Linear(28 * 28, WIDE), nn.ReLU(), nn.Linear(WIDE, TARGETS)
            )
        case "lenet":
            return LeNet()
        case "lstm":
            return Rows()
    return ResNet18(work.net.removeprefix("resnet18-"))
