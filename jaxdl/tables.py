"""Results as a table that reads well in a terminal and pastes into a README."""

from collections.abc import Sequence


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned Markdown table; the first column is set left, the others right.

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
