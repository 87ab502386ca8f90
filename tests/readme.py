"""The Python of README.md, so that what people copy is what the tests run."""

import re
from functools import cache
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    """The fenced code blocks of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)


@cache
def example() -> dict[str, Any]:
    """The names that the README's new algorithm defines."""
    code = next(block for block in blocks("python") if "def meta_sgd(" in block)
    names: dict[str, Any] = {}
    exec(compile(code, str(README), "exec"), names)
    return names
