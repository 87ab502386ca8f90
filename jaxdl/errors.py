"""Mistakes that deserve one clear sentence and no traceback.

The command line (`jaxdl.runs.cli.command_line`) prints the sentence and exits with `exit_code`.
"""


class InputError(ValueError):
    """The request is wrong: a flag, a shape, more ways than classes, data that is not there."""

    exit_code = 2


class RunError(RuntimeError):
    """The request is right but the run cannot go on: full disk, corrupt file, divergence."""

    exit_code = 1
