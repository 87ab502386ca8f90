"""Result tables in Markdown, readable in a terminal and in a README."""

from collections.abc import Mapping, Sequence
from typing import Any


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned Markdown table. The first column is left-aligned, the others right-aligned.

    >>> print(markdown(["shots", "MSE"], [["5", "0.67"], ["10", "0.4"]]))
    | shots |  MSE |
    | :---- | ---: |
    | 5     | 0.67 |
    | 10    |  0.4 |
    """
    widths = [max(4, *(len(row[i]) for row in [header, *rows])) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(c.rjust(w) for c, w in rest)]) + " |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (w - 1) + ":" for w in widths[1:])]
    return "\n".join([line(header), line(rule), *(line(row) for row in rows)])


LONGEST = 1e6
"""From here on a number is written with an exponent: what diverged would make a table wide."""


def number(value: float, digits: int) -> str:
    """A number with so many decimals, or with an exponent if it is very large.

    >>> number(0.12345, 3), number(12345.6, 1), number(-9.8e31, 3)
    ('0.123', '12345.6', '-9.800e+31')
    """
    return f"{value:.{digits}{'e' if LONGEST <= abs(value) < float('inf') else 'f'}}"


def interval(summary: Mapping[str, Any], *, scale: float = 1.0, digits: int = 2) -> str:
    """The mean of `intervals.seeds_summary` with its 95 % interval. A single seed has none.

    A summary from result.json may hold "nan" and "inf" as text.

    >>> interval({"mean": 0.978, "ci95": 0.002}, scale=100)
    '97.80 ± 0.20'
    """
    mean = number(scale * float(summary["mean"]), digits)
    half = summary["ci95"]
    return mean if half is None else f"{mean} ± {number(scale * float(half), digits)}"


def by_seed(summary: Mapping[str, Any], *, scale: float = 1.0, digits: int = 2) -> str:
    """The values of `intervals.seeds_summary`, one after another.

    >>> by_seed({"values": [0.977, 0.979]}, scale=100, digits=1)
    '97.7 97.9'
    """
    return " ".join(number(scale * float(value), digits) for value in summary["values"])


def seeds(first: int, count: int) -> str:
    """The seeds of a result, and the kind of its interval.

    >>> seeds(0, 3)
    "seeds 0 to 2, ± over seeds by Student's t"
    >>> seeds(7, 1)
    'seed 7 alone, which leaves no interval over seeds'
    """
    if count == 1:
        return f"seed {first} alone, which leaves no interval over seeds"
    return f"seeds {first} to {first + count - 1}, ± over seeds by Student's t"


def made_by(run: Mapping[str, Any]) -> str:
    """The last line of a report: seconds, device, machine and directory of a finished run.

    `run` is the entry "run" of result.json, which `Run.finish` writes.
    """
    return (
        f"{run['wall_seconds']:.0f} s, {run['compile_seconds']:.0f} of them compiling, on"
        f" {run['device']}, {run['machine']}; {run['directory']}"
    )
