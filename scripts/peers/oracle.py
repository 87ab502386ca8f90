"""MAML's meta-gradient by torch.func in float64, for tests/peers. Shares array layouts, no code.

    python oracle.py CASE.npz ...

Each file holds a case: the weights under "param:<path>", an episode, and the settings. The answer
goes to CASE.out.npz: "loss", and "grad:<path>" for each weight.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, grad_and_value

Params = dict[str, Tensor]


def same_padding(size: int) -> tuple[int, int]:
    """What 3-tap stride-2 SAME adds in front and behind: an odd zero goes behind."""
    total = max(0, (-(-size // 2) - 1) * 2 + 3 - size)
    return total // 2, total - total // 2


def conv4(params: Params, x: Tensor) -> Tensor:
    """Images `[n, h, w, c]`, kernels `[h, w, in, out]`."""
    x = x.permute(0, 3, 1, 2)
    for i in range(4):
        x = F.pad(x, (*same_padding(x.shape[3]), *same_padding(x.shape[2])))
        x = F.conv2d(x, params[f"Conv_{i}/kernel"].permute(3, 2, 0, 1), stride=2)
        offset = params[f"BatchNorm_{i}/bias"]
        one = torch.ones_like(offset)
        x = F.relu(F.batch_norm(x, None, None, one, offset, training=True, eps=1e-3))
    return x.mean((2, 3)) @ params["Dense_0/kernel"] + params["Dense_0/bias"]


def mlp(params: Params, x: Tensor) -> Tensor:
    for i in range(2):
        x = F.relu(x @ params[f"Dense_{i}/kernel"] + params[f"Dense_{i}/bias"])
    return x @ params["Dense_2/kernel"] + params["Dense_2/bias"]


def answer(case: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The meta-gradient of one case."""
    start = {
        name.removeprefix("param:"): torch.from_numpy(value)
        for name, value in case.items()
        if name.startswith("param:")
    }
    images = case["support_x"].ndim == 4
    net, loss = (conv4, F.cross_entropy) if images else (mlp, F.mse_loss)
    support_x, query_x = torch.from_numpy(case["support_x"]), torch.from_numpy(case["query_x"])
    support_y, query_y = torch.from_numpy(case["support_y"]), torch.from_numpy(case["query_y"])
    if images:
        support_y, query_y = support_y.long(), query_y.long()

    def inner(params: Params) -> Tensor:
        return loss(net(params, support_x), support_y)

    def outer(params: Params) -> Tensor:
        for _ in range(int(case["steps"])):
            grads = grad(inner)(params)
            if case["first_order"]:
                grads = {name: value.detach() for name, value in grads.items()}
            params = {name: params[name] - float(case["lr"]) * grads[name] for name in params}
        return loss(net(params, query_x), query_y)

    grads, value = grad_and_value(outer)(start)
    return {"loss": value.numpy()} | {f"grad:{name}": g.numpy() for name, g in grads.items()}


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        with np.load(path) as case:
            np.savez(path.with_suffix(".out.npz"), **answer(dict(case)))
