"""Turns Flax nnx modules into pure functions, as `jaxdl.models.linen` does for linen modules."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from jaxdl.errors import InputError
from jaxdl.models.linen import call_arguments, own_weight, switch, weighing
from jaxdl.types import Array, Key, Model, Params, PyTree

Path: TypeAlias = tuple[Any, ...]


def pure_nnx(make: Callable[..., nnx.Module], *, train_arg: str | None = None) -> Model:
    """The `Model` of an nnx module whose only variables are its parameters and random streams.

    `make(rngs=...)` makes the module. `make` is its class, a function, or a `functools.partial`. It
    is called once here and once per `init`. The parameters are a dict of dicts of arrays, by
    attribute name; positions in an `nnx.List` are names too ("0", "1"). `init` ignores its `x`,
    because nnx modules get the sizes of their inputs when they are made.

    `apply(..., key=key)` calls the module after `train()`, with new random streams made of the key.
    The same key draws the same dropout masks; another key draws others. Without a key, `apply`
    calls the module after `eval()`; any draws are then the same in each call. Training flags of
    `__call__` are set as in `pure`, by the same names or `train_arg`. An argument `rngs` gets an
    `nnx.Rngs` of the key.

    `apply(..., weight=weight)` reaches `__call__` if it has an argument `weight`, and the norms of
    linen that `nnx.bridge.ToNNX` wraps. `nnx.BatchNorm` keeps running averages, and is refused.

        >>> import jax, jaxdl
        >>> from flax import nnx
        >>> class Net(nnx.Module):
        ...     def __init__(self, rngs):
        ...         self.hidden = nnx.Linear(1, 40, rngs=rngs)
        ...         self.dropout = nnx.Dropout(0.1, rngs=rngs)
        ...         self.out = nnx.Linear(40, 1, rngs=rngs)
        ...
        ...     def __call__(self, x):
        ...         return self.out(self.dropout(nnx.relu(self.hidden(x))))
        >>> model = jaxdl.pure_nnx(Net)
        >>> x = jax.numpy.ones((5, 1))
        >>> params = model.init(jax.random.key(0), x)
        >>> model.apply(params, x, key=jax.random.key(1)).shape
        (5, 1)

    Raises:
        InputError: if `make` is itself a module, or makes no module; if the module keeps other
            variables (running averages, caches, counters) or JAX arrays; if `__call__` has no
            argument `train_arg`.
    """
    module: Any = _made(make, jax.random.key(0))
    switched, weighed = switch(module, train_arg), own_weight(module)
    takes_rngs = "rngs" in call_arguments(type(module))
    module.eval()
    quiet, state = nnx.split(module)
    module.train()
    drops = nnx.graphdef(module)
    leaves = dict(nnx.to_flat_state(state))
    _refuse_other_state(module, leaves)
    params_at = [path for path, leaf in leaves.items() if isinstance(leaf, nnx.Param)]
    rngs_at = {path: leaf for path, leaf in leaves.items() if isinstance(leaf, nnx.RngState)}
    constants = {path: leaf for path, leaf in leaves.items() if isinstance(leaf, np.ndarray)}

    def init(key: Key, x: PyTree) -> Params:
        del x
        state = nnx.state(_made(make, key), nnx.Param)
        return _nested((path, leaf.get_value()) for path, leaf in nnx.to_flat_state(state))

    def apply(
        params: Params, x: PyTree, *, key: Key | None = None, weight: Array | None = None
    ) -> PyTree:
        seed = jax.random.key(0) if key is None else key
        told = {**switched(key is not None), **weighed(weight)}
        if takes_rngs:
            told["rngs"] = nnx.Rngs(seed)
        values = {**constants, **dict(_streams(rngs_at, seed))}
        values |= {path: _at(params, path) for path in params_at}
        # `merge` makes new variables, which belong to the trace of this call: a nested gradient
        # must not write variables from outside. Copies of the outside variables would not do,
        # because their counters start equal in each call, and so draw the same masks.
        net: Any = nnx.merge(quiet if key is None else drops, nnx.from_flat_state(values))
        with weighing(weight):
            return net(x, **told)

    return Model(init, apply)


def _made(make: Callable[..., nnx.Module], key: Key) -> nnx.Module:
    if isinstance(make, nnx.Module | linen.Module) or not callable(make):
        raise InputError(
            f"pure_nnx takes a function that makes an nnx module, and got {type(make).__name__}."
            " Give it the class, or say pure_nnx(lambda rngs: Net(rngs)); modules of linen go to"
            " jaxdl.pure."
        )
    module = make(rngs=nnx.Rngs(key))
    if not isinstance(module, nnx.Module):
        raise InputError(
            f"pure_nnx got a function that made {type(module).__name__}, which is no nnx module."
            " Let it return an nnx.Module; modules of linen go to jaxdl.pure."
        )
    return module


def _refuse_other_state(module: nnx.Module, leaves: Mapping[Path, Any]) -> None:
    """Refuses state, besides parameters, that a call could change or that a key may have made."""
    name = type(module).__name__
    kept = (nnx.Param, nnx.RngState, np.ndarray)
    others = {path: leaf for path, leaf in leaves.items() if not isinstance(leaf, kept)}
    variables = [path for path, leaf in others.items() if isinstance(leaf, nnx.Variable)]
    if variables:
        kinds = sorted({type(others[path]).__name__ for path in variables})
        advice = "The variables of a Model must be nnx.Params alone."
        if any(isinstance(inner, nnx.BatchNorm) for _, inner in nnx.iter_modules(module)):
            advice = (
                "Use nnx.GroupNorm or nnx.LayerNorm in place of nnx.BatchNorm, or wrap"
                " jaxdl.BatchNorm in nnx.bridge.ToNNX."
            )
        raise InputError(
            f"{name} keeps state in {kinds} ({_text(variables)}), so it is no pure function of its"
            f" parameters. {advice}"
        )
    if others:
        raise InputError(
            f"{name} keeps arrays of JAX outside of nnx.Param: {_text(others)}. Make a constant a"
            " NumPy array, and make a trained array an nnx.Param."
        )


def _text(paths: Iterable[Path]) -> str:
    return ", ".join(".".join(map(str, path)) for path in paths)


def _streams(at: Mapping[Path, nnx.RngState], key: Key) -> Iterator[tuple[Path, Array]]:
    """New random streams for the places `at`: each has its own key, and a counter of 0."""
    for number, (path, leaf) in enumerate(at.items()):
        shape = leaf.get_value().shape  # [copies] in a module that nnx.vmap made
        if isinstance(leaf, nnx.RngKey):
            own = jax.random.fold_in(key, number)
            yield path, jax.random.split(own, shape) if shape else own
        else:
            yield path, jnp.zeros(shape, jnp.uint32)


def _nested(flat: Iterable[tuple[Path, Any]]) -> Params:
    """A dict of dicts by path, with text keys: {("layers", 0): x} -> {"layers": {"0": x}}."""
    tree: dict[str, Any] = {}
    for path, value in flat:
        inside = tree
        for part in path[:-1]:
            inside = inside.setdefault(str(part), {})
        inside[str(path[-1])] = value
    return tree


def _at(params: Params, path: Path) -> PyTree:
    return functools.reduce(lambda inside, part: inside[str(part)], path, params)
