"""Flax modules as pure functions: the border between Flax and the rest of jaxdl."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast, get_args

import jax.numpy as jnp
from flax import linen as nn

from jaxdl.errors import InputError
from jaxdl.models.layers.norm import check_rows
from jaxdl.types import Array, Key, Model, NormMode, Params, PyTree, StatefulModel

STATISTICS = "batch_stats"
"""The collection in which Flax modules keep running averages, by Flax's own convention."""


TRAIN_ARGS = ("train", "training", "is_training", "deterministic")
"""Arguments by which Flax modules are told that they train, or with the last that they do not."""


def pure(module: nn.Module, *, train_arg: str | None = None) -> Model:
    """The `Model` of a Flax module whose only variables are its parameters.

    `apply(..., key=key)` feeds the key to the module's "dropout" stream. If `__call__` has one of
    the arguments `TRAIN_ARGS`, then that says training where there is a key, and not training where
    there is none. `train_arg` names another such argument.

    `apply(..., weight=weight)` reaches every `BatchNorm` in the net, and `__call__` if it has an
    argument `weight`.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> from flax import linen as nn
    >>> class Net(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x, train=False):
    ...         return nn.Dropout(0.5, deterministic=not train)(nn.Dense(10)(x))
    >>> model, x = jaxdl.pure(Net()), jnp.ones((2, 4))
    >>> params, apply = jax.jit(model.init)(jax.random.key(0), x), jax.jit(model.apply)
    >>> y, dropped = apply(params, x), apply(params, x, key=jax.random.key(1))
    >>> sorted(set(abs(dropped / y).ravel().tolist()))  # about half become 0, the others double
    [0.0, 2.0]

    Raises:
        InputError: if `__call__` has no argument `train_arg`; at `init`, if the module keeps other
            collections (running averages, caches).
    """
    _check_module(module, "pure")
    switched, weighed = switch(module, train_arg), own_weight(module)

    def init(key: Key, x: PyTree) -> Params:
        variables = module.init({"params": key, "dropout": key}, x, **switched(False))
        extra = sorted(set(variables) - {"params"})
        if extra:
            raise InputError(
                f"{type(module).__name__} keeps state in {extra}, so it is no pure function of its"
                " parameters; use jaxdl.models.layers.norm.BatchNorm in place of flax's BatchNorm"
            )
        return variables.get("params", {})

    def apply(
        params: Params, x: PyTree, *, key: Key | None = None, weight: Array | None = None
    ) -> PyTree:
        rngs = None if key is None else {"dropout": key}
        told = {**switched(key is not None), **weighed(weight)}
        with weighing(weight):
            return cast(Any, module.apply({"params": params}, x, rngs=rngs, **told))

    return Model(init, apply)


def stateful(module: nn.Module, *, train_arg: str | None = None) -> StatefulModel:
    """The `StatefulModel` of a Flax module that is called as `module(x, mode=mode)`.

    Its variables are parameters, and statistics in the collection "batch_stats". In the mode
    "train" it may update them; in "eval" it cannot. `key` feeds its "dropout" stream in "train".
    A module without an argument `mode` is told of training as in `pure`, and weights reach it as
    there; of Flax's own `BatchNorm` they mask the examples of weight 0.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> from flax import linen as nn
    >>> class Net(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x, train):
    ...         return nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
    >>> model, x = jaxdl.stateful(Net()), jnp.array([[1.0], [3.0]])
    >>> params, stats = model.init(jax.random.key(0), x)
    >>> y, stats = model.apply(params, stats, x, mode="train")
    >>> stats["BatchNorm_0"]["mean"].tolist()  # half way from 0 to 2
    [1.0]
    >>> y, same = model.apply(params, stats, x, mode="eval")
    >>> y.round(2).tolist()  # the running variance is 1, as in the beginning
    [[0.0], [2.0]]

    Raises:
        InputError: if `__call__` has none of these arguments; at `init`, if the module keeps any
            other collection.
    """
    _check_module(module, "stateful")
    by_mode = train_arg is None and "mode" in call_arguments(type(module))
    switched, weighed = switch(module, train_arg), own_weight(module)
    if not by_mode and switched(False) == switched(True):
        raise InputError(
            f"{type(module).__name__} cannot be told of training: give its __call__ an argument"
            f" mode ('train' or 'eval') or train, or name the one that it has by train_arg"
        )

    def arguments(mode: NormMode) -> dict[str, Any]:
        return {"mode": mode} if by_mode else switched(mode == "train")

    def init(key: Key, x: PyTree) -> tuple[Params, PyTree]:
        variables = module.init({"params": key, "dropout": key}, x, **arguments("eval"))
        extra = sorted(set(variables) - {"params", STATISTICS})
        if extra:
            raise InputError(
                f"{type(module).__name__} keeps state in {extra}; a StatefulModel has parameters"
                f' and statistics ("{STATISTICS}") alone'
            )
        return variables.get("params", {}), variables.get(STATISTICS, {})

    def apply(
        params: Params,
        stats: PyTree,
        x: PyTree,
        *,
        key: Key | None = None,
        weight: Array | None = None,
        mode: NormMode,
    ) -> tuple[Any, PyTree]:
        if mode not in get_args(NormMode):
            raise InputError(f"the mode of a StatefulModel is 'train' or 'eval', not {mode!r}")
        variables = {"params": params, STATISTICS: stats}
        told = {**arguments(mode), **weighed(weight)}
        with weighing(weight):
            if mode == "eval":
                return cast(Any, module.apply(variables, x, **told)), stats
            rngs = None if key is None else {"dropout": key}
            y, new = cast(Any, module.apply(variables, x, **told, rngs=rngs, mutable=[STATISTICS]))
            return y, new.get(STATISTICS, {})

    return StatefulModel(init, apply)


def without_stats(model: Model) -> StatefulModel:
    """A `Model` where a `StatefulModel` is wanted: its statistics are empty.

    Its key reaches the model in the mode "train" alone: there is no dropout in "eval".

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> model, x = jaxdl.without_stats(jaxdl.mlp([3])), jnp.zeros((2, 4))
    >>> params, stats = model.init(jax.random.key(0), x)
    >>> y, stats = model.apply(params, stats, x, mode="train")
    >>> y.shape, stats
    ((2, 3), {})
    """

    def init(key: Key, x: PyTree) -> tuple[Params, PyTree]:
        return model.init(key, x), {}

    def apply(
        params: Params,
        stats: PyTree,
        x: PyTree,
        *,
        key: Key | None = None,
        weight: Array | None = None,
        mode: NormMode,
    ) -> tuple[Any, PyTree]:
        key = key if mode == "train" else None
        return model.apply(params, x, key=key, weight=weight), stats

    return StatefulModel(init, apply)


def call_arguments(kind: type[Any]) -> Mapping[str, inspect.Parameter]:
    """The arguments of a module's `__call__`, by name."""
    call = getattr(kind, "__call__", None)  # noqa: B004  # the function is wanted
    return {} if call is None else inspect.signature(call).parameters


def switch(module: Any, train_arg: str | None) -> Callable[[bool], dict[str, Any]]:
    """`training -> arguments` that tell a module, of linen or nnx, whether it trains.

    There are none if its `__call__` has none of `TRAIN_ARGS`.

    Raises:
        InputError: if `__call__` has no argument `train_arg`.
    """
    names = call_arguments(type(module))
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in names.values())
    if train_arg is not None and train_arg not in names and not takes_any:
        raise InputError(
            f"{type(module).__name__}.__call__ has no argument {train_arg!r} (train_arg): it has"
            f" {[name for name in names if name != 'self']}"
        )
    told = TRAIN_ARGS if train_arg is None else (train_arg,)
    defaults = {name: p.default for name, p in names.items()}
    # What the constructor has fixed, Flax does not take a second time; nnx has a *method* `train`.
    fixed = {name: getattr(module, name, None) for name in told}
    free = [name for name, value in fixed.items() if value is None or callable(value)]
    found = {name: defaults.get(name) for name in free if name in names or train_arg}

    def switched(training: bool) -> dict[str, Any]:
        values = {name: training != (name == "deterministic") for name in found}
        # nn.remat and nn.jit trace what they are given, and a traced flag cannot be asked.
        return {name: value for name, value in values.items() if value is not found[name]}

    return switched


def own_weight(module: Any) -> Callable[[Array | None], dict[str, Any]]:
    """`weight -> arguments` for a net whose own `__call__` has an argument `weight`."""
    takes = "weight" in call_arguments(type(module))
    return lambda weight: {"weight": weight} if takes and weight is not None else {}


@contextlib.contextmanager
def weighing(weight: Array | None) -> Iterator[None]:
    """While a net is applied, gives `weight` `[n]` to whatever in it takes statistics of a batch.

    That is each module with `takes_weight = True`, as the norms of `jaxdl.models.layers` have it,
    and Flax's `BatchNorm`, whose mask it sets. So nets need not hand it down through all their
    layers, and cannot forget to.
    """
    if weight is None:
        yield
        return

    def hand_down(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        ours = context.method_name == "__call__" and getattr(context.module, "takes_weight", False)
        if not ours and not isinstance(context.module, nn.BatchNorm):
            return call(*args, **kwargs)
        given = inspect.signature(call).bind_partial(*args, **kwargs)
        if ours and "weight" not in given.arguments:
            kwargs = {**kwargs, "weight": weight}
        # A subclass may call it without a mask, and then the call to `super` comes by here.
        elif "mask" in given.signature.parameters and "mask" not in given.arguments:
            x = args[0]
            check_rows(x, weight)
            kwargs = {**kwargs, "mask": (weight > 0).reshape((-1,) + (1,) * (x.ndim - 1))}
        return call(*args, **kwargs)

    with nn.intercept_methods(hand_down):
        yield


def _check_module(module: Any, function: str) -> None:
    if not isinstance(module, nn.Module):
        raise InputError(f"{function} takes a Flax module, say {function}(Net()), not {module!r}")


def check_images(x: Array, net: str, *, least: int = 1) -> None:
    """Refuses what is no batch of floating-point images of `least` pixels a side.

    Integers are refused rather than cast, for 0..255 unscaled trains badly and silently.

    Raises:
        InputError: naming the net, and what it got.
    """
    if x.ndim != 4 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(
            f"{net} needs floating-point images [n, height, width, channels], not"
            f" {x.dtype} of shape {x.shape}; uint8 images: x.astype('float32') / 255"
        )
    if min(x.shape[1:3]) < least:
        raise InputError(
            f"{net} needs images of {least}x{least} pixels at least, not {x.shape[1]}x{x.shape[2]}"
        )
