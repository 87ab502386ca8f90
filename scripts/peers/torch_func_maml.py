"""MAML by torch.func: `grad` inside `grad`, over tasks by `vmap` or one after another (`loop`)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, vmap
from torch_side import NETS, Params, Sample, Step, adam, init_params, loss_of, main
from works import Maml


def task_loss(work: Maml) -> Callable[..., Tensor]:
    """`(params, support x, support y, query x, query y)` -> the query loss after adaptation."""
    net, loss = NETS[work.net], loss_of(work)

    def inner(params: Params, x: Tensor, y: Tensor) -> Tensor:
        return loss(net(params, x), y)

    def outer(
        params: Params, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor
    ) -> Tensor:
        for _ in range(work.inner_steps):
            grads = grad(inner)(params, support_x, support_y)
            params = {name: params[name] - work.inner_lr * grads[name] for name in params}
        return inner(params, query_x, query_y)

    return outer


def mean_loss(work: Maml) -> Callable[..., Tensor]:
    """`(params, *episodes)` -> the mean over tasks, all at once."""
    of_task = vmap(task_loss(work), (None, 0, 0, 0, 0))
    return lambda params, *tasks: of_task(params, *tasks).mean()


def build(work: Maml, form: str, device: str, sample: Sample, through: Callable[..., Any]) -> Step:
    """The training step of either form; `through` is the compiler, or the identity."""
    params = {name: value.to(device) for name, value in init_params(work).items()}
    optimizer = adam(params.values())

    if form == "vmap":
        gradient = through(grad_and_value(mean_loss(work)))
    else:
        of_task = through(grad_and_value(task_loss(work)))

        def gradient(params: Params, *tasks: Tensor) -> tuple[Params, Tensor]:
            sums: list[Tensor] = []
            total: Any = 0.0
            for task in zip(*tasks, strict=True):
                grads, loss = of_task(params, *task)
                if sums:
                    torch._foreach_add_(sums, list(grads.values()))
                else:
                    sums = [value.clone() for value in grads.values()]
                total = total + loss
            torch._foreach_div_(sums, work.tasks)
            return dict(zip(params, sums, strict=True)), total / work.tasks

    def step() -> Tensor:
        grads, loss = gradient(params, *sample())
        for name, value in params.items():
            value.grad = grads[name]
        optimizer.step()
        return loss

    return step


def make(work: Maml, form: str, device: str, sample: Sample) -> Step:
    return build(work, form, device, sample, lambda function: function)


if __name__ == "__main__":
    main(make)
