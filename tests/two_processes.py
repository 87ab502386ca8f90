"""Run by test_parallel.py, once for each process: two processes of two devices train together."""

import sys

import jax
import numpy as np

from jaxdl import parallel
from tests.train.test_loop import run, start

coordinator, process, path = sys.argv[1:]
parallel.start(coordinator, 2, int(process))
assert jax.process_count() == 2
assert jax.device_count() == 4
# Chunks adapt to the clock, which differs between processes: they must agree all the same.
state, losses = run(
    *start((0, 1)), 6, devices=parallel.count_devices(), seconds=0.001 * int(process)
)
assert parallel.anyone(process == "1")
assert not parallel.anyone(False)
assert parallel.is_first() == (process == "0")
local = parallel.local(state)
np.savez(path, losses=losses, a=local.params["a"], step=local.step)
