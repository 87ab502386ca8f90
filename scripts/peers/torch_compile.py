"""The loop over one tensor under torch.compile: normalisation, net and loss as one graph."""

from functools import partial

import torch
from torch_indexed import build
from torch_process import Step, main
from works import Supervised


def make(work: Supervised, form: str, device: str) -> Step:
    mode = "reduce-overhead" if device == "cuda" else "default"
    return build(
        work, form, device, partial(torch.compile, fullgraph=True, dynamic=False, mode=mode)
    )


if __name__ == "__main__":
    main(make)
