"""The flags that the memory of a run grows with."""

from typing import Any

from jaxdl.runs.config import flat, leaves
from jaxdl.runs.flags import flag

SIZES = (
    *("seeds", "tasks", "chunk", "batch", "hidden", "filters", "ways", "shots", "queries"),
    *("length", "width", "widths", "layers", "features", "classes", "size", "sizes", "members"),
    *("points", "context", "envs", "capacity", "trajectories", "translate", "examples"),
    *("test_queries", "test_tasks", "test_trajectories", "test_episodes", "eval_episodes"),
    *("validation_tasks", "validation", "test", "episodes", "prefill", "short", "splits"),
)
"""Fields that the memory of a run grows with."""


def largest(config: Any, default: Any) -> str:
    """The flags that make the arrays of a run large, first those above their defaults."""
    usual = {} if default is None else flat(default)
    sizes = [(field, value) for _, field, value in leaves(config) if field.name in SIZES and value]
    raised = [one for one, value in sizes if _most(value) > _most(usual.get(one.name, one.default))]
    names = [one.name for one in raised or [one for one, _ in sizes]]
    return " or ".join(map(flag, names)) or "the sizes of the run"


def _most(value: Any) -> float:
    """The largest of the numbers of a field; 0 where it has none."""
    values = value if isinstance(value, tuple | list) else [value]
    return max((each for each in values if isinstance(each, int | float)), default=0)
