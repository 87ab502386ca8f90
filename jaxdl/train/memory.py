"""What cannot fit into memory is refused before XLA asks for it.

XLA itself ends the process in C++, or the operating system kills it.
"""

from pathlib import Path

import jax
from jax.stages import Compiled

from jaxdl.errors import TooLarge
from jaxdl.types import PyTree
from jaxdl.xla import size_in_bytes

MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def memory_at_hand() -> int | None:
    """Free bytes of the first device, or of the host for a CPU; None where nobody says.

    >>> memory_at_hand() > 10**6
    True
    """
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))
    found = []
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        found.append(1024 * int(lines["MemAvailable"].split()[0]))
    except (OSError, KeyError, ValueError):
        pass
    try:  # the limit of a container
        limit, used = (int((CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        found.append(limit - used + _reclaimable())
    except (OSError, ValueError):
        pass
    return min(found, default=None)


def _reclaimable() -> int:
    """Bytes of a container that hold files which nobody reads, and that the system takes back."""
    try:
        lines = (CGROUP / "memory.stat").read_text().splitlines()
        return int(dict(line.split() for line in lines)["inactive_file"])
    except (OSError, KeyError, ValueError):
        return 0


def refuse_too_large(state: PyTree, seeds: int) -> None:
    """Refuses a state that does not fit twice: a training copies the state that it starts from.

    Args:
        state: of one seed, of arrays or their shapes.

    Raises:
        TooLarge: with what is needed and what is free.

    >>> import jax.numpy as jnp
    >>> refuse_too_large(jax.ShapeDtypeStruct((10**12,), jnp.float32), seeds=2)
    Traceback (most recent call last):
        ...
    jaxdl.errors.TooLarge: the parameters and the optimiser's state of 2 seeds need ...
    """
    of_seeds = f" of {seeds:,} seeds" * (seeds > 1)
    cure = f"{'Lower `seeds=`, or take' if seeds > 1 else 'Take'} a smaller net"
    what = f"the parameters and the optimiser's state{of_seeds} need"
    _refuse(what, 2 * seeds * size_in_bytes(state), cure)


def refuse_program(compiled: Compiled, devices: int) -> None:
    """Refuses a compiled program whose intermediate values and results do not fit into memory.

    Args:
        devices: of this process that run it. Those of a CPU share its memory.

    Raises:
        TooLarge: with what is needed and what is free.

    >>> import jax.numpy as jnp
    >>> lowered = jax.jit(lambda x: jnp.sin(jnp.outer(x, x))).lower(jnp.zeros(10**7))
    >>> refuse_program(lowered.compile(), devices=1)
    Traceback (most recent call last):
        ...
    jaxdl.errors.TooLarge: a program of the training needs ...
    """
    account = compiled.memory_analysis()
    if account is None:  # not every backend keeps one
        return
    results = account.output_size_in_bytes - account.alias_size_in_bytes
    need = account.temp_size_in_bytes + results
    shared = devices if jax.default_backend() == "cpu" else 1
    cure = "Train fewer seeds or tasks at once, on smaller inputs, or a smaller net"
    _refuse("a program of the training needs", shared * need, cure)


def _refuse(what: str, need: int, cure: str) -> None:
    free = memory_at_hand()
    if free is not None and need > free:
        raise TooLarge(f"{what} {_gib(need)}, and {_gib(free)} are free", cure)


def _gib(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"
