"""MAML by torch.func under torch.compile: a task's gradient compiled (`loop`), or all (`vmap`)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch_func_maml import build
from torch_side import Episodes, main
from works import Work


def make(work: Work, form: str, device: str, sample: Callable[[], Episodes]) -> Callable[[], Tensor]:
    # CUDA graphs pay on a GPU, where launching the kernels of so small a net is most of the time.
    mode = "reduce-overhead" if device == "cuda" else "default"
    return build(
        work,
        form,
        device,
        sample,
        lambda function: torch.compile(function, fullgraph=True, dynamic=False, mode=mode),
    )


if __name__ == "__main__":
    main(make)
