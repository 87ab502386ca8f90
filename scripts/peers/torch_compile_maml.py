"""MAML by torch.func under torch.compile: a task's gradient compiled (`loop`), or all (`vmap`)."""

import torch
from torch_func_maml import build
from torch_side import Sample, Step, main
from works import Work


def make(work: Work, form: str, device: str, sample: Sample) -> Step:
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
