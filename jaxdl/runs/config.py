"""What every experiment's configuration holds of its run."""

import dataclasses
import os
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class RunFlags:
    """Where a run lives, how it reports and on what it runs: all of it may change on resume.

    Example:
        >>> import dataclasses, jaxdl
        >>> @dataclasses.dataclass(frozen=True)
        ... class Config:  # of an experiment; command_line makes flags of all fields
        ...     steps: int = 1000
        ...     run: jaxdl.RunFlags = jaxdl.RunFlags(log_every=10)
        >>> Config().run.log_every, Config().run.save_minutes
        (10, 2.0)
    """

    name: str = ""
    """Name of the run directory; by default made of the configuration, so that the same command
    finds the same run."""
    runs_dir: Path = Path(os.environ.get("JAXDL_RUNS", "runs"))
    """Where run directories live; the environment variable JAXDL_RUNS changes the default."""
    log_every: int = 100
    """Steps between lines of metrics.jsonl."""
    save_minutes: float = 2.0
    """Minutes between checkpoints."""
    tensorboard: bool = False
    """Also write TensorBoard events (needs the tensorboard extra)."""
    devices: int = 0
    """Devices that share the tasks of a step; 0 takes all."""
    coordinator: str = ""
    """host:port of the first process of a run of several processes."""
    processes: int = 0
    """Number of processes of such a run."""
    process: int = -1
    """Index of this process, from 0."""
