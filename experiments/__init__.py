"""The experiments: `python -m experiments.NAME`, or `scripts/run NAME`."""

import sys

from jaxdl.runs.signals import end_at_ctrl_c

if sys.argv[0] == "-m":  # Python is about to run one of them, and to import JAX
    end_at_ctrl_c()
