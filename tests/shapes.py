"""The type checker of the tests: it reads the shapes and dtypes in annotations, and nothing else.

pyproject.toml gives it to the import hook of jaxtyping, which puts `checked` around each function
of jaxdl. `Float[Array, "n features"]` then asks for two axes, and for as many rows as every other
`n` of the same call. Types without a shape are left to mypy.
"""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import AbstractArray, jaxtyped


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which refuses arguments and a result of other shapes than it says."""
    signature = inspect.signature(function)
    hints = {name: _hint_of(parameter) for name, parameter in signature.parameters.items()}
    hints = {name: hint for name, hint in hints.items() if _says_shape(hint)}
    of_result = signature.return_annotation
    if not hints and not _says_shape(of_result):
        return function

    @functools.wraps(function)
    def check(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        for name, hint in hints.items():
            if name in given:
                _require(given[name], hint)
        result = function(*args, **kwargs)
        _require(result, of_result)
        return result

    return check


def fits(value: Any, hint: Any) -> bool:
    """Whether the arrays in a value have the shapes and dtypes of a hint.

    NumPy arrays and Python numbers count as arrays. The fields of a NamedTuple agree with one
    another and not with the arguments of the call, and may hold placeholders, as in `jax.tree.map`.
    """
    if not _says_shape(hint):
        return True
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if _is_array(hint):
        value = np.asarray(value) if isinstance(value, bool | int | float) else value
        return isinstance(value, _of_any(hint.dtype, hint.dim_str))
    if origin in (types.UnionType, typing.Union):
        arrays = [part for part in parts if _says_shape(part)]
        return not _has_shape(value) or any(fits(value, part) for part in arrays)
    if fields := _fields(hint):
        if not all(hasattr(value, name) for name in fields):
            return True  # a test's stand-in
        with jaxtyped("context"):
            held = [(getattr(value, name), of_field) for name, of_field in fields.items()]
            return all(fits(field, of_field) for field, of_field in held if _has_shape(field))
    if origin is tuple and parts[-1] is not Ellipsis:
        return len(value) == len(parts) and all(map(fits, value, parts))
    return all(fits(part, parts[0]) for part in value)  # tuple[X, ...], list[X], Sequence[X]


def _require(value: Any, hint: Any) -> None:
    if not fits(value, hint):
        raise TypeError(f"not {hint}")


def _hint_of(parameter: inspect.Parameter) -> Any:
    hint, every = parameter.annotation, parameter.kind is inspect.Parameter.VAR_POSITIONAL
    return types.GenericAlias(tuple, (hint, ...)) if every else hint


def _is_array(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, AbstractArray)


@functools.cache
def _of_any(dtype: Any, dim_str: str) -> Any:
    return dtype[Any, dim_str]


def _has_shape(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


@functools.cache
def _fields(hint: Any) -> Mapping[str, Any]:
    """The fields of a NamedTuple that say a shape."""
    if not (isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields")):
        return {}
    hints = inspect.get_annotations(hint)
    return {name: hints[name] for name in hint._fields if _says_shape(hints.get(name))}


def _says_shape(hint: Any) -> bool:
    if _is_array(hint):
        return True
    if typing.get_origin(hint) in (types.UnionType, typing.Union, tuple, list, Sequence):
        return any(map(_says_shape, typing.get_args(hint)))
    return bool(_fields(hint)) if isinstance(hint, type) else False
