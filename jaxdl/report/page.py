"""One self-contained web page of a report: text, tables, curves, pictures, settings."""

import base64
import html
from collections.abc import Iterator, Mapping
from typing import Any

STYLE = """
:root { color-scheme: light dark; --line: #ccc; --pale: #f5f5f5; }
@media (prefers-color-scheme: dark) {
  :root { --line: #555; --pale: #262626; }
  svg { filter: invert(1) hue-rotate(180deg); }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin-top: 2rem; }
p { margin: .3rem 0; max-width: 64rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .7rem; text-align: right; }
.wide td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.settings td { text-align: left; overflow-wrap: anywhere; vertical-align: top; }
.settings td:first-child { overflow-wrap: normal; }
thead th { background: var(--pale); }
figure { margin: 1rem 0; }
img, svg { max-width: 100%; height: auto; }
img { background: white; }
"""


def page(
    title: str,
    report: str,
    *,
    curves: Mapping[str, str],
    pictures: Mapping[str, bytes],
    settings: Mapping[str, Mapping[str, Any]],
) -> str:
    """The page as HTML. It loads nothing from elsewhere, and has no script.

    Args:
        report: lines of text, and tables of `tables.markdown`.
        curves: SVG pictures by heading.
        pictures: PNG files by caption.
        settings: tables of names and values, by heading.

    >>> shown = page("A & B", "| a |\\n| :- |\\n| 1 |\\nso", curves={}, pictures={}, settings={})
    >>> "<h1>A &amp; B</h1>" in shown, "<td>1</td>" in shown, "<p>so</p>" in shown
    (True, True, True)
    """
    parts = [f"<h1>{html.escape(title)}</h1>", _text(report)]
    for heading, svg in curves.items():
        parts += [f"<h2>{html.escape(heading)}</h2>", f"<figure>{svg}</figure>"]
    parts += ["<h2>Pictures</h2>"] * bool(pictures)
    for caption, png in pictures.items():
        source, caption = base64.b64encode(png).decode(), html.escape(caption)
        image = f'<img alt="{caption}" src="data:image/png;base64,{source}">'
        parts.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    for heading, values in settings.items():
        rows = [[name, str(value)] for name, value in _flat(values)]
        parts += [f"<h2>{html.escape(heading)}</h2>", _table([], rows, of="settings")]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>"
    )
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _text(report: str) -> str:
    """Tables as tables, and each other line as a paragraph."""
    parts: list[str] = []
    table: list[str] = []

    def end() -> None:
        if len(table) > 1 and _is_rule(table[1]):
            header, _, *rows = map(_cells, table)
            parts.append(_table(header, rows))
        else:
            parts.extend(f"<p>{html.escape(each)}</p>" for each in table)
        table.clear()

    for line in report.splitlines():
        if line.startswith("|"):
            if len(table) > 1 and _is_rule(line):  # the line before it begins another table
                header = table.pop()
                end()
                table.append(header)
            table.append(line)
            continue
        end()
        if line.strip():
            parts.append(f"<p>{html.escape(line)}</p>")
    end()
    return "\n".join(parts)


def _is_rule(line: str) -> bool:
    """Whether this is the line between the header of a table and its rows."""
    return set(line) <= set("|:- ") and "-" in line


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values, those of a mapping inside under `outer.inner`."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _table(header: list[str], rows: list[list[str]], of: str = "wide") -> str:
    def line(cells: list[str], tag: str) -> str:
        shown = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
        return f"<tr>{shown}</tr>"

    head = f"<thead>{line(header, 'th')}</thead>" if header else ""
    body = "\n".join(line(row, "td") for row in rows)
    return f'<div class="{of}"><table>{head}<tbody>\n{body}\n</tbody></table></div>'
