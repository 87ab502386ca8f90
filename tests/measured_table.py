"""A table of a document that a program measures and writes, a row per thing that was tried."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class MeasuredTable(NamedTuple):
    """The table of `document` whose first column is headed `what`.

    Rows have a `name` and a `cure`. The cells between the two are in the order of `columns`.
    """

    document: Path
    what: str
    columns: Sequence[str]

    def lines(self, rows: Sequence[Any], found: dict[str, tuple[str, ...]]) -> Iterator[str]:
        """The lines of the table, from the cells of each row."""
        yield " | ".join((f"| {self.what}", *self.columns, "instead |"))
        yield "| :-- " * (len(self.columns) + 2) + "|"
        for row in rows:
            yield f"| {row.name} | " + " | ".join(found[row.name]) + f" | {row.cure} |"

    def written(self) -> dict[str, tuple[str, ...]]:
        """The cells that the document holds, by row."""
        text = self.document.read_text("utf-8")
        lines = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
        return {line[0]: tuple(line[1 : 1 + len(self.columns)]) for line in lines[2:]}

    def write(self, rows: Sequence[Any], cells: Callable[[Any], tuple[str, ...]]) -> None:
        """Measures all rows, and puts the table in the place of the one that the document holds."""
        found = {}
        for row in rows:
            found[row.name] = cells(row)
            print(row.name, *found[row.name], sep=" | ", flush=True)
        before, _, rest = self.document.read_text("utf-8").partition(f"| {self.what}")
        after = rest[rest.index("\n\n") :]
        self.document.write_text(before + "\n".join(self.lines(rows, found)) + after, "utf-8")
