"""A function from a Python file that is not installed: `path/to/mine.py:my_function`.

The text of the file, and of the modules beside it that it imports, belongs to the identity of a
run. A copy of it is kept in the run's directory.
"""

import ast
import contextlib
import hashlib
import importlib
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl.errors import InputError, RunError
from jaxdl.files.atomic import write_text, writing
from jaxdl.files.paths import whole_path


class Code(NamedTuple):
    """A function by its name in a file, and the texts that it is made of, its own file first.

    `texts` are pairs of a path relative to the folder of the file, and the text.
    """

    name: str
    function: Callable[..., Any]
    texts: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """Of the texts and of the name of the function."""
        content = repr((self.name, sorted(self.texts)))
        return hashlib.sha256(content.encode()).hexdigest()

    def keep(self, folder: Path) -> None:
        """Writes the texts below a folder.

        Raises:
            RunError: if they cannot be written.
        """
        for name, text in self.texts:
            path = folder / name
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)


def is_file_name(name: str) -> bool:
    """Whether a name is that of a function in a file: `mine.py:my_learner`.

    >>> is_file_name("mine.py:my_learner"), is_file_name("maml")
    (True, False)
    """
    return ":" in name or name.endswith(".py")


def load_code(name: str) -> Code:
    """The function that `path/to/mine.py:my_function` names.

    The file is executed. It can import the modules beside it, at its top; each load executes them
    again, so two versions of them do not meet.

    Raises:
        InputError: if there is no such file or function, or the file cannot be executed.
    """
    place, _, function = name.rpartition(":")
    path = whole_path(Path(place), "learner").resolve()
    if not place or not function.isidentifier():
        raise InputError(f"{name!r} names no function. Write path/to/file.py:function")
    if not path.is_file():
        raise InputError(f"there is no file {place}. Write path/to/file.py:function")
    texts = {path.name: _read(path)}
    _collect(path.parent, texts[path.name], texts, path)
    module = _executed(path, texts)
    found = getattr(module, function, None)
    if not inspect.isfunction(found):
        others = [key for key, value in vars(module).items() if _is_own(value, module)]
        raise InputError(
            f"{place} has no function {function}. It has {', '.join(others) or 'none at all'}"
        )
    return Code(function, found, tuple(texts.items()))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path} cannot be read ({error}). Give a Python file") from error


def _collect(folder: Path, text: str, texts: dict[str, str], path: Path) -> None:
    """Adds the modules beside the file that `text` imports, and those that they import."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise InputError(f"{path}, line {error.lineno}: {error.msg}. Correct the file") from error
    for module in _imported(tree):
        package = folder / module
        files = [folder / f"{module}.py"]
        if (package / "__init__.py").is_file():
            files = sorted(package.rglob("*.py"))
        for file in files:
            name = file.relative_to(folder).as_posix()
            if file.is_file() and name not in texts:
                texts[name] = _read(file)
                _collect(folder, texts[name], texts, file)


def _imported(tree: ast.AST) -> Iterator[str]:
    """The top-level names of the modules that a file imports, without those of jaxdl."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in names:
            top = name.partition(".")[0]
            if top not in (__name__.partition(".")[0], "experiments"):
                yield top


def _executed(path: Path, texts: dict[str, str]) -> types.ModuleType:
    """The module of a file, under a name of its own."""
    beside = {name.partition("/")[0].removesuffix(".py") for name in texts} - {path.stem}
    module = types.ModuleType(
        f"{path.stem}_of_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    )
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and string annotations look there
    try:
        with _importable(path.parent, beside):
            exec(compile(texts[path.name], str(path), "exec"), vars(module))
    except (InputError, RunError):
        raise
    except Exception as error:
        raise InputError(f"{_line(path, error)}{type(error).__name__}: {error}") from error
    return module


@contextlib.contextmanager
def _importable(folder: Path, names: set[str]) -> Iterator[None]:
    """Inside, `names` are imported from `folder`; afterwards `sys.modules` is what it was."""

    def ours() -> dict[str, types.ModuleType]:
        return {key: each for key, each in sys.modules.items() if key.partition(".")[0] in names}

    before, bytecode = ours(), sys.dont_write_bytecode
    for name in before:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.dont_write_bytecode = bytecode
        sys.path.remove(str(folder))
        for name in ours():
            del sys.modules[name]
        sys.modules.update(before)


def _line(path: Path, error: BaseException) -> str:
    """`mine.py, line 3: `, of the last line of the file that the error passed."""
    trace, line = error.__traceback__, 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{path}, line {line}: " if line else f"{path}: "


def _is_own(value: Any, module: types.ModuleType) -> bool:
    return isinstance(value, types.FunctionType) and value.__module__ == module.__name__
