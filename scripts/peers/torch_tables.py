"""nanoTabPFN's net and training step (arXiv:2511.03634), rebuilt in eager PyTorch.

A token per cell and one per label. A layer has attention over the columns of a row, attention over
the labelled rows of a column, and a dense net; each is added to its input and normalised after.
Form: attention as nanoTabPFN calls it, which returns the attention weights as well, or PyTorch's
fused attention, which does not.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_process import Step, main
from works import Tables

CLIP = 100.0
"""Of standardised numbers."""


class Layer(nn.Module):
    def __init__(self, work: Tables, *, fused: bool) -> None:
        super().__init__()
        self.shots, self.fused = work.shots, fused
        self.over_columns, self.over_rows = (
            nn.MultiheadAttention(work.width, work.heads, batch_first=True) for _ in range(2)
        )
        self.dense = nn.Sequential(
            nn.Linear(work.width, 2 * work.width), nn.GELU(), nn.Linear(2 * work.width, work.width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(work.width) for _ in range(3))

    def attend(self, attention: nn.Module, asking: Tensor, known: Tensor) -> Tensor:
        found: Tensor = attention(asking, known, known, need_weights=not self.fused)[0]
        return found

    def forward(self, tokens: Tensor) -> Tensor:
        """`[tables, rows, columns, width]`."""
        tables, rows, columns, width = tokens.shape
        flat = tokens.reshape(tables * rows, columns, width)
        flat = self.norms[0](flat + self.attend(self.over_columns, flat, flat))
        turned = flat.view(tables, rows, columns, width).transpose(1, 2)
        turned = turned.reshape(tables * columns, rows, width)
        known, asked = turned[:, : self.shots], turned[:, self.shots :]
        parts = [self.attend(self.over_rows, part, known) for part in (known, asked)]
        turned = turned + torch.cat(parts, dim=1)
        tokens = turned.view(tables, columns, rows, width).transpose(1, 2)
        tokens = self.norms[1](tokens)
        return self.norms[2](tokens + self.dense(tokens))


class Net(nn.Module):
    def __init__(self, work: Tables, *, fused: bool) -> None:
        super().__init__()
        self.shots = work.shots
        self.cell, self.label = nn.Linear(1, work.width), nn.Linear(1, work.width)
        self.layers = nn.Sequential(*(Layer(work, fused=fused) for _ in range(work.layers)))
        self.answer = nn.Sequential(
            nn.Linear(work.width, 2 * work.width),
            nn.GELU(),
            nn.Linear(2 * work.width, work.classes),
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Cells `[tables, rows, columns]` and labels of the first rows; logits of the others."""
        given = x[:, : self.shots]
        deviation, mean = torch.std_mean(given, dim=1, correction=0, keepdim=True)
        cells = self.cell(((x - mean) / (deviation + 1e-5)).clamp(-CLIP, CLIP)[..., None])
        unknown = y.mean(dim=1, keepdim=True).expand(-1, x.shape[1] - self.shots)
        labels = self.label(torch.cat([y, unknown], dim=1)[..., None])
        tokens = self.layers(torch.cat([cells, labels[:, :, None]], dim=2))
        logits: Tensor = self.answer(tokens[:, self.shots :, -1])
        return logits


def stored(work: Tables) -> tuple[np.ndarray, np.ndarray]:
    """Random tables; with `drawn` in files, whose pages come into memory as they are read."""
    rng = np.random.default_rng(0)
    shape = work.count, work.shots + work.queries
    x = rng.normal(size=(*shape, work.columns)).astype(np.float32)
    y = rng.integers(0, work.classes, shape).astype(np.float32)
    if not work.drawn:
        return x, y
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, array in (("x", x), ("y", y)):
            np.save(path := Path(folder) / f"{name}.npy", array)
            files.append(np.load(path, mmap_mode="r"))  # open files outlive their folder
        return files[0], files[1]


def batches(work: Tables, device: str) -> Iterator[tuple[Tensor, Tensor]]:
    """One batch after another, in the order of the set."""
    x, y = stored(work)
    if not work.drawn:
        x, y = (torch.from_numpy(each).to(device) for each in (x, y))
    while True:
        for at in range(0, work.count, work.batch):
            rows = slice(at, at + work.batch)
            if work.drawn:
                copies = (torch.from_numpy(np.array(each[rows])) for each in (x, y))
                yield tuple(each.to(device) for each in copies)
            else:
                yield x[rows], y[rows]


def make(work: Tables, form: str, device: str) -> Step:
    net = Net(work, fused=form == "fused attention").to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=work.lr, fused=True)
    source = batches(work, device)

    def step() -> Tensor:
        x, y = next(source)
        optimizer.zero_grad(set_to_none=True)
        logits = net(x, y[:, : work.shots])
        loss = F.cross_entropy(logits.flatten(0, 1), y[:, work.shots :].flatten().long())
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        return loss.detach()

    return step


if __name__ == "__main__":
    main(make)
