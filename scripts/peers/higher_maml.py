"""MAML by higher 0.2.1: a differentiable copy of the module and of its optimiser for each task."""

import higher
import torch
from torch import Tensor
from torch_side import Net, Sample, Step, adam, loss_of, main
from works import Maml


def make(work: Maml, form: str, device: str, sample: Sample) -> Step:
    loss = loss_of(work)
    net = Net(work).to(device)
    inner = torch.optim.SGD(net.parameters(), lr=work.inner_lr)
    optimizer = adam(net.parameters())

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for support_x, support_y, query_x, query_y in zip(*sample(), strict=True):
            with higher.innerloop_ctx(net, inner, copy_initial_weights=False) as (copy, descent):
                for _ in range(work.inner_steps):
                    descent.step(loss(copy(support_x), support_y))
                task_loss = loss(copy(query_x), query_y) / work.tasks
                task_loss.backward()
            total = total + task_loss.detach()
        optimizer.step()
        return total

    return step


if __name__ == "__main__":
    main(make)
