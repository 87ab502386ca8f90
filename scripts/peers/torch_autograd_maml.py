"""MAML by hand: `torch.autograd.grad(create_graph=True)`, the loop over tasks that people write."""

from typing import Any

import torch
from torch import Tensor
from torch_side import NETS, Sample, Step, adam, init_params, loss_of, main
from works import Maml


def make(work: Maml, form: str, device: str, sample: Sample) -> Step:
    net, loss = NETS[work.net], loss_of(work)
    start = {name: value.to(device).requires_grad_() for name, value in init_params(work).items()}
    optimizer = adam(start.values())

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        total: Any = 0.0
        for support_x, support_y, query_x, query_y in zip(*sample(), strict=True):
            params = start
            for _ in range(work.inner_steps):
                support_loss = loss(net(params, support_x), support_y)
                grads = torch.autograd.grad(support_loss, list(params.values()), create_graph=True)
                params = {
                    name: value - work.inner_lr * by
                    for (name, value), by in zip(params.items(), grads, strict=True)
                }
            task_loss = loss(net(params, query_x), query_y) / work.tasks
            task_loss.backward()
            total = total + task_loss.detach()
        optimizer.step()
        return total

    return step


if __name__ == "__main__":
    main(make)
