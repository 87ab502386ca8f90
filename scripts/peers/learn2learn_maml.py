"""MAML by learn2learn 0.2.0: `clone` the module, `adapt` the clone, go back through both."""

import sys
import types
from pathlib import Path

from torch import Tensor
from torch_side import Net, Sample, Step, adam, loss_of, main
from works import Maml

SOURCE = Path(sys.prefix) / "learn2learn-0.2.0"


def make(work: Maml, form: str, device: str, sample: Sample) -> Step:
    # The packages' own __init__ import compiled parts that MAML does not need: walk past them.
    for package in ("learn2learn", "learn2learn.algorithms"):
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = [str(SOURCE / package.replace(".", "/"))]
    from learn2learn.algorithms.maml import MAML

    loss = loss_of(work)
    learner = MAML(Net(work).to(device), lr=work.inner_lr, first_order=False)
    optimizer = adam(learner.parameters())

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for support_x, support_y, query_x, query_y in zip(*sample(), strict=True):
            clone = learner.clone()
            for _ in range(work.inner_steps):
                clone.adapt(loss(clone(support_x), support_y))
            task_loss = loss(clone(query_x), query_y) / work.tasks
            task_loss.backward()
            total = total + task_loss.detach()
        optimizer.step()
        return total

    return step


if __name__ == "__main__":
    main(make)
