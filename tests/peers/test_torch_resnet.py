"""Residual nets against PyTorch, through a file of weights in torchvision's layout.

The PyTorch side is written here, for torchvision need not be installed; its state dict has the
names and shapes that torchvision's has.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from jaxdl.losses import cross_entropy
from jaxdl.models.resnet import resnet
from jaxdl.models.torch_weights import load_torch_weights

CLASSES = 7


class Block(nn.Module):
    """torchvision's BasicBlock and Bottleneck (v1.5) in one."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        plan = [(inputs, width, 3, stride), (width, outputs, 3, 1)]
        if bottleneck:
            plan = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        self.count = len(plan)
        for i, (before, after, kernel, step) in enumerate(plan, start=1):
            conv = nn.Conv2d(before, after, kernel, step, padding=kernel // 2, bias=False)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(after))
        self.downsample = None
        if stride > 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Any) -> Any:
        y = x
        for i in range(1, self.count + 1):
            y = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(y))
            y = torch.relu(y) if i < self.count else y
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, depths: Any, *, bottleneck: bool, stem: str, width: int) -> None:
        super().__init__()
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
            self.pool: Any = nn.MaxPool2d(3, 2, padding=1)
        else:
            self.conv1 = nn.Conv2d(3, width, 3, 1, padding=1, bias=False)
            self.pool = nn.Identity()
        self.bn1 = nn.BatchNorm2d(width)
        self.stages = len(depths)
        inputs = width
        for stage, depth in enumerate(depths):
            blocks = []
            for i in range(depth):
                stride = 2 if stage and not i else 1
                blocks.append(Block(inputs, width << stage, stride, bottleneck))
                inputs = (width << stage) * (4 if bottleneck else 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, CLASSES)

    def forward(self, x: Any) -> Any:
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return self.fc(x.mean((2, 3)))


NETS: dict[str, Any] = {
    "18-imagenet": {"depths": (2, 2, 2, 2), "bottleneck": False, "stem": "imagenet"},
    "18-cifar": {"depths": (2, 2, 2, 2), "bottleneck": False, "stem": "cifar"},
    "50-imagenet": {"depths": (3, 4, 6, 3), "bottleneck": True, "stem": "imagenet"},
}


def pair(name: str, folder: Path, *, width: int, dtype: Any) -> tuple[Any, Any, Any, Any]:
    """The PyTorch net with random weights and statistics, and ours filled from its file."""
    theirs = ResNet(**NETS[name], width=width).to(getattr(torch, np.dtype(dtype).name))
    rng = np.random.default_rng(0)
    state = theirs.state_dict()
    for key, tensor in state.items():
        if key.endswith("num_batches_tracked"):
            continue
        noise = torch.from_numpy(rng.standard_normal(tuple(tensor.shape)))
        if key.endswith("running_var"):
            tensor.copy_(torch.exp(0.3 * noise))
        elif tensor.ndim == 1:  # scales, offsets, means, the bias of the head
            tensor.copy_(float("bn" in key and key.endswith("weight")) + 0.2 * noise)
        else:
            tensor.copy_(noise / tensor[0].numel() ** 0.5)
    file = folder / "net.npz"
    np.savez(file, **{key: tensor.numpy() for key, tensor in state.items()})
    options = {k: v for k, v in NETS[name].items() if k != "depths"}
    model = resnet(CLASSES, NETS[name]["depths"], width=width, **options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3), dtype))
    template = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dtype), shapes)
    params, stats, left_out = load_torch_weights(file, *template)
    assert left_out == ()
    return theirs, model, params, stats


def images(size: int, dtype: Any) -> np.ndarray:
    # An odd number of pixels somewhere on the way: padding is seen on both sides.
    return np.random.default_rng(1).standard_normal((4, size, size, 3)).astype(dtype)


def to_torch(x: np.ndarray) -> Any:
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def error(found: Any, expected: Any) -> float:
    """The largest difference, in units of the largest value."""
    expected = np.asarray(expected)
    scale = np.abs(expected).max()
    assert scale > 0, "nothing would be compared"
    return float(np.abs(np.asarray(found) - expected).max() / scale)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_outputs_by_the_running_averages(name: str, dtype: Any, tmp_path: Path) -> None:
    with jax.enable_x64(dtype is np.float64):
        width = 64 if name == "18-imagenet" else 16
        theirs, model, params, stats = pair(name, tmp_path, width=width, dtype=dtype)
        x = images(74 if "imagenet" in name else 18, dtype)
        with torch.no_grad():
            expected = theirs.eval()(to_torch(x)).numpy()
        apply = jax.jit(lambda params, stats, x: model.apply(params, stats, x, mode="eval")[0])
        found = apply(params, stats, jnp.asarray(x))
        assert found.dtype == dtype
        assert error(found, expected) < (1e-4 if dtype is np.float32 else 1e-9)


@pytest.mark.parametrize("name", NETS)
def test_same_gradients_and_running_averages_after_training_on_a_batch(
    name: str, tmp_path: Path
) -> None:
    with jax.enable_x64(True):
        theirs, model, params, stats = pair(name, tmp_path, width=8, dtype=np.float64)
        x, y = images(50 if "imagenet" in name else 18, np.float64), np.array([0, 3, 6, 3])
        value = nn.functional.cross_entropy(theirs.train()(to_torch(x)), torch.from_numpy(y))
        value.backward()

        @jax.jit
        def ours(params: Any) -> Any:
            def loss(params: Any) -> Any:
                logits, after = model.apply(params, stats, jnp.asarray(x), mode="train")
                return cross_entropy(logits, jnp.asarray(y))[0], after

            return jax.value_and_grad(loss, has_aux=True)(params)

        (loss, after), grads = ours(params)
        assert error(loss, value.item()) < 1e-10
        # The gradients and the new averages make a state dict, which our reader turns around.
        state = {key: tensor.numpy() for key, tensor in theirs.state_dict().items()}
        state |= {key: tensor.grad.numpy() for key, tensor in theirs.named_parameters()}
        file = tmp_path / "after.npz"
        np.savez(file, **state)
        expected_grads, expected_after, _ = load_torch_weights(file, grads, after)
        for found, expected in ((grads, expected_grads), (after, expected_after)):
            for (path, leaf), wanted in zip(
                jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True
            ):
                assert error(leaf, wanted) < 1e-8, jax.tree_util.keystr(path)
