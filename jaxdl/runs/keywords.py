"""The keyword arguments of a function as a dataclass, of which `command_line` makes flags."""

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from jaxdl.errors import InputError

Make = TypeVar("Make", bound=Callable[..., Any])
NOTHING: Mapping[str, Any] = types.MappingProxyType({})
SIMPLE = (int, float, bool, str, Path, types.NoneType)


def keywords_of(function: Callable[..., Any], *, known: Iterable[str] = ()) -> type:
    """A frozen dataclass with a field for each keyword argument of `function` that is not `known`.

    Positional arguments are left out. The help of a flag is what the docstring says below `Args:`.

    >>> def shrink(model, *, ways: int, by: float = 0.5, often: bool = False): ...
    >>> options = keywords_of(shrink, known=["ways"])
    >>> options(by=0.9)
    shrink(by=0.9, often=False)

    Raises:
        InputError: if such an argument has no annotation, no default, or a type that no flag can
            express.
    """
    return _keywords_of(function, frozenset(known))


@functools.cache  # one class for each function, so that two configurations can be equal
def _keywords_of(function: Callable[..., Any], known: frozenset[str]) -> type:
    hints = hints_of(function)
    fields: list[tuple[str, Any, Any]] = []
    for name, argument in inspect.signature(function).parameters.items():
        if argument.kind is not inspect.Parameter.KEYWORD_ONLY or name in known:
            continue
        where = f"the argument {name} of {function.__name__}"
        if name not in hints or argument.default is argument.empty:
            missing = "annotation" if name not in hints else "default"
            raise InputError(f"{where} has no {missing}. Write `{name}: float = 1.0`, say")
        if not _simple(hints[name]):
            raise InputError(
                f"{where} has the type {hints[name]}, which no flag can express. Choose int, float,"
                " bool, str, a Literal or a tuple of them"
            )
        fields.append((name, hints[name], dataclasses.field(default=argument.default)))
    made = dataclasses.make_dataclass(function.__name__, fields, frozen=True)
    made.__doc__ = _help(function)
    return made


def with_defaults(function: Make, *, fixed: Mapping[str, Any] = NOTHING, **defaults: Any) -> Make:
    """`function` with other defaults of keyword arguments.

    Args:
        fixed: values of keyword arguments that the result does not take.

    >>> def shrink(model, *, by: float = 0.5, often: bool = False): return model * by, often
    >>> gently = with_defaults(shrink, fixed={"often": True}, by=0.9)
    >>> gently(10.0), gently(10.0, by=0.8), gently.__name__
    ((9.0, True), (8.0, True), 'shrink')
    >>> keywords_of(gently)()
    shrink(by=0.9)

    Raises:
        TypeError: if `function` has no keyword argument of a name.
    """
    signature = inspect.signature(function)
    own = {name for name, each in signature.parameters.items() if each.kind is each.KEYWORD_ONLY}
    if unknown := {*fixed, *defaults} - own:
        raise TypeError(f"{function.__name__} has no keyword argument {min(unknown)}")

    narrow = signature.replace(
        parameters=[
            each.replace(default=defaults.get(name, each.default))
            for name, each in signature.parameters.items()
            if name not in fixed
        ]
    )

    @functools.wraps(function)
    def other(*given: Any, **options: Any) -> Any:
        narrow.bind(*given, **options)
        return function(*given, **{**fixed, **defaults, **options})

    other.__signature__ = narrow  # type: ignore[attr-defined]
    return other  # type: ignore[return-value]


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function by argument.

    Raises:
        InputError: if one is a text that cannot be evaluated.
    """
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # whatever the text of an annotation raises
        raise InputError(
            f"the annotations of {function.__name__} cannot be read ({error}). Correct them"
        ) from error


def fits(value: Any, hint: Any) -> bool:
    """Whether a value has the type of an annotation; an int is a float too.

    >>> fits(1, float), fits("exact", Literal["exact", "first-order"]), fits(None, int)
    (True, True, False)
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return fits(value, inner[0])
    if origin is Literal:
        return value in inner
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, each) for each in inner)
    if origin is tuple:
        return isinstance(value, tuple | list) and all(fits(each, inner[0]) for each in value)
    if hint in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if hint is float else hint)


def _simple(hint: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _simple(inner[0])
    if origin is Literal:
        return True
    if origin in (typing.Union, types.UnionType):
        return all(_simple(each) for each in inner)
    if origin is tuple:
        return all(_simple(each) for each in inner if each is not ...)
    return hint in SIMPLE


def _help(function: Callable[..., Any]) -> str:
    """The first paragraph of a docstring and its `Args:`, without examples."""
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    return "\n\n".join([paragraphs[0], *(each for each in paragraphs if each.startswith("Args:"))])
