"""MAML by TorchOpt 0.7.3: a differentiable SGD, and the module put back after each task."""

import torchopt
from torch import Tensor
from torch_side import Net, Sample, Step, adam, loss_of, main
from works import Maml


def make(work: Maml, form: str, device: str, sample: Sample) -> Step:
    loss = loss_of(work)
    net = Net(work).to(device)
    inner = torchopt.MetaSGD(net, lr=work.inner_lr)
    optimizer = adam(net.parameters())

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        start = torchopt.extract_state_dict(net, by="reference")
        inner_start = torchopt.extract_state_dict(inner, by="reference")
        for support_x, support_y, query_x, query_y in zip(*sample(), strict=True):
            for _ in range(work.inner_steps):
                inner.step(loss(net(support_x), support_y))
            task_loss = loss(net(query_x), query_y) / work.tasks
            task_loss.backward()
            total = total + task_loss.detach()
            torchopt.recover_state_dict(net, start)
            torchopt.recover_state_dict(inner, inner_start)
        optimizer.step()
        return total

    return step


if __name__ == "__main__":
    main(make)
