"""The Python of README.md and of the guide, so that what people copy is what the tests run."""

import re
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
README, GUIDE = ROOT / "README.md", ROOT / "docs" / "guide.md"


def blocks(language: str) -> list[str]:
    """The fenced code blocks of a language, in order."""
    text = README.read_text("utf-8") + GUIDE.read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@cache
def example() -> dict[str, Any]:
    """The names that the guide's new algorithm defines."""
    code = next(block for block in blocks("python") if "def maml_with_rates(" in block)
    names: dict[str, Any] = {}
    exec(compile(code, str(GUIDE), "exec"), names)
    return names
