"""One program for trainings that are alike: tracing a step takes longer than a tiny training."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import pytest

from jaxdl import parallel


@contextlib.contextmanager
def traced_once() -> Iterator[None]:
    """Here `loop` takes, for a state and keys that look alike, the program and stream it had first.

    For runs that are resumed or repeated: nothing else may tell their steps apart.
    """
    programs: dict[Any, Any] = {}
    compile_on = parallel.compile_on

    def once(run: Any, devices: int, args: Any, **options: Any) -> Callable[..., Any]:
        state, stream, keys, _ = args
        leaves, tree = jax.tree.flatten((state, keys))
        looks = devices, tree, *((leaf.shape, leaf.dtype) for leaf in leaves)
        if looks not in programs:
            programs[looks] = compile_on(run, devices, args, **options), stream
        program, first = programs[looks]
        return lambda state, stream, keys, count: program(state, first, keys, count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "compile_on", once)
        yield
