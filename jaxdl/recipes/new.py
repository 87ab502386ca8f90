"""`jaxdl new learner NAME`: a learner that works, to be changed, with a test to be filled in."""

import dataclasses
import keyword
from pathlib import Path
from typing import Literal

from jaxdl.errors import InputError, RunError
from jaxdl.files.atomic import write_text
from jaxdl.recipes.learners import LEARNERS
from jaxdl.recipes.templates import LEARNER, PROGRAM, ROW, TEST, TYPED

LONGEST = 26
"""Letters of a name. With more, the lines of the templates would have to be broken."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Write a learner that works, to be changed, and a test of it to be filled in."""

    what: Literal["learner"]
    """What to write."""
    name: str
    """Name of its function and file, such as my_maml."""
    folder: Path = Path()
    """Where to write. A clone of jaxdl gets files in its rooms, another folder gets two files."""


def main(arguments: Arguments) -> None:
    """Writes the files and says what to do next."""
    for line in new_learner(arguments.name, arguments.folder):
        print(line)


def new_learner(name: str, folder: Path) -> list[str]:
    """Writes a learner and its test; returns what was written and what to do next.

    In a clone of jaxdl the learner goes to `jaxdl/meta`, is one of `LEARNERS`, and has a row in the
    contract suite.

    Raises:
        InputError: if the name is no name of a function, or is taken, or a file is there already.
        RunError: if a file cannot be written.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name.lower() != name:
        raise InputError(f"{name!r} is no name of a function. Choose lower-case letters and _")
    if len(name) > LONGEST:
        raise InputError(f"{name} is too long. Choose at most {LONGEST} letters")
    if name in LEARNERS:
        raise InputError(f"there is a learner {name} already. Choose another name")
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}. Choose another `folder=`")
    house = (folder / "jaxdl" / "meta" / "maml.py").is_file()
    files = _in_the_house(name, folder) if house else _outside(name, folder)
    new = [path for path in files if path.name.removeprefix("test_") == f"{name}.py"]
    if there := [path for path in new if path.exists()]:
        raise InputError(f"{there[0]} is there already. Choose another name")
    for path, text in files.items():
        write_text(path, text)
    changed = [f"{'wrote' if path in new else 'changed'} {path}" for path in files]
    if house:
        return [
            *changed,
            f"Change {new[0].name}. Then fill in the test: scripts/test -k {name}",
            f"Train it: scripts/run few_shot --learner {name}",
        ]
    return [
        *changed,
        f"Change {new[0].name}. Then fill in the test: pip install pytest,"
        f" python -m pytest {new[1].name}",
        f"Train it in a clone of jaxdl: scripts/run few_shot --learner {new[0].resolve()}:{name}",
        "Or in a program of your own:",
        PROGRAM.format(name=name),
    ]


def _outside(name: str, folder: Path) -> dict[Path, str]:
    title = _title(name)
    return {
        folder / f"{name}.py": LEARNER.format(
            name=name,
            title=title,
            nouns="jaxdl.",
            imports="import jaxdl",
            signature=_signature(name, "jaxdl."),
        ),
        folder / f"test_{name}.py": TEST.format(
            name=name, title=title, imports=f"from {name} import {name}"
        ),
    }


def _in_the_house(name: str, folder: Path) -> dict[Path, str]:
    """The learner in its room, its row in the contract suite, and its name on the command line."""
    title = _title(name)
    imports = (
        "from jaxdl.grads import objective\n"
        "from jaxdl.meta.base import through_adaptation\n"
        "from jaxdl.types import Key, LossFn, MetaLearner, Model, Params, PyTree, Weight"
    )
    signature = _signature(name, "")
    learner = LEARNER.format(name=name, title=title, nouns="", imports=imports, signature=signature)
    for bare, typed in TYPED:
        learner = learner.replace(bare, typed)
    module = f"from jaxdl.meta.{name} import {name}"
    suite = folder / "tests" / "meta" / "test_contract.py"
    table = folder / "jaxdl" / "recipes" / "learners.py"
    row = ROW.format(name=name)
    return {
        folder / "jaxdl" / "meta" / f"{name}.py": learner,
        folder / "tests" / "meta" / f"test_{name}.py": TEST.format(
            name=name, title=title, imports=module
        ),
        suite: _with_import(_after(suite, "META = [\n", row), module),
        table: _with_import(
            _after(table, "LEARNERS: dict[str, Make] = {\n", f'    "{name}": {name},\n'), module
        ),
    }


def _signature(name: str, nouns: str) -> str:
    """The first line of the learner, or the first three if it is long, as ruff formats it."""
    arguments = (
        f"model: {nouns}Model, loss: {nouns}LossFn, *, ways: int, inner_lr: float = 0.1,"
        " inner_steps: int = 2"
    )
    line = f"def {name}({arguments}) -> {nouns}MetaLearner:"
    if len(line) <= 100:
        return line
    return f"def {name}(\n    {arguments}\n) -> {nouns}MetaLearner:"


def _after(path: Path, mark: str, text: str) -> str:
    """The text of a file with `text` after `mark`."""
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    if mark not in old:
        raise RunError(f"{path} has no line {mark.strip()!r}. Add the learner there by hand")
    return old.replace(mark, mark + text, 1)


def _with_import(text: str, line: str) -> str:
    """A file with one more import, before the first one that comes later in the alphabet."""
    lines = text.splitlines(keepends=True)
    later = (i for i, each in enumerate(lines) if each.startswith("from jaxdl.") and each > line)
    lines.insert(next(later), f"{line}\n")
    return "".join(lines)


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()
