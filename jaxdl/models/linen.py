"""Turns Flax linen modules into pure functions, which the rest of jaxdl uses."""

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
"""The collection for running averages, by Flax's own convention."""


TRAIN_ARGS = ("train", "training", "is_training", "deterministic")
"""Flags of Flax modules for training; the last means the opposite."""


def pure(module: nn.Module, *, train_arg: str | None = None) -> Model:
    """The `Model` of a Flax module whose only variables are its parameters.

    `apply(..., key=key)` gives the key to the module's "dropout" stream. If `__call__` has an
    argument `train`, `training`, `is_training` or `deterministic`, it says training with a key, and
    not training without one. `train_arg` names another such argument. It must be given, because
    otherwise that argument keeps its default.

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
                " parameters. Use jaxdl.BatchNorm in place of flax's BatchNorm"
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

    Its variables are parameters, and statistics in the collection "batch_stats". The mode "train"
    may update the statistics; "eval" cannot. In "train", the "dropout" stream gets `key`. A module
    without an argument `mode` gets the training flag as in `pure`. Weights also work as in `pure`;
    in Flax's own `BatchNorm`, they mask the examples of weight 0.

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
            f"{type(module).__name__} cannot be told of training. Give its __call__ an argument"
            f" mode ('train' or 'eval') or train, or name its own flag by train_arg"
        )

    def arguments(mode: NormMode) -> dict[str, Any]:
        return {"mode": mode} if by_mode else switched(mode == "train")

    def init(key: Key, x: PyTree) -> tuple[Params, PyTree]:
        variables = module.init({"params": key, "dropout": key}, x, **arguments("eval"))
        extra = sorted(set(variables) - {"params", STATISTICS})
        if extra:
            raise InputError(
                f"{type(module).__name__} keeps state in {extra}. A StatefulModel may have only"
                f' parameters and statistics ("{STATISTICS}"), so remove the other state'
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
            raise InputError(f"mode must be 'train' or 'eval', not {mode!r}. Choose one of them")
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
    """A `StatefulModel` with empty statistics, from a `Model`.

    The model gets the key only in the mode "train", so there is no dropout in "eval".

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
    call = getattr(kind, "__call__", None)  # noqa: B004  # we need the function
    return {} if call is None else inspect.signature(call).parameters


def switch(module: Any, train_arg: str | None) -> Callable[[bool], dict[str, Any]]:
    """`training -> arguments` for the training flag of a module of linen or nnx.

    There are no arguments if `__call__` has none of `TRAIN_ARGS`.

    Raises:
        InputError: if `__call__` has no argument `train_arg`.
    """
    names = call_arguments(type(module))
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in names.values())
    if train_arg is not None and train_arg not in names and not takes_any:
        raise InputError(
            f"{type(module).__name__}.__call__ has no argument {train_arg!r} (train_arg). Choose"
            f" one of {[name for name in names if name != 'self']}"
        )
    told = TRAIN_ARGS if train_arg is None else (train_arg,)
    defaults = {name: p.default for name, p in names.items()}
    # Flax refuses a flag that the constructor has set already. nnx has a *method* `train`.
    fixed = {name: getattr(module, name, None) for name in told}
    free = [name for name, value in fixed.items() if value is None or callable(value)]
    found = {name: defaults.get(name) for name in free if name in names or train_arg}

    def switched(training: bool) -> dict[str, Any]:
        values = {name: training != (name == "deterministic") for name in found}
        # A flag with its default value is left out: nn.remat and nn.jit would trace a given flag,
        # and Python code cannot branch on a traced flag.
        return {name: value for name, value in values.items() if value is not found[name]}

    return switched


def own_weight(module: Any) -> Callable[[Array | None], dict[str, Any]]:
    """`weight -> arguments`, for a net whose `__call__` has an argument `weight`."""
    takes = "weight" in call_arguments(type(module))
    return lambda weight: {"weight": weight} if takes and weight is not None else {}


@contextlib.contextmanager
def weighing(weight: Array | None) -> Iterator[None]:
    """During a call of a net, gives `weight` `[n]` to all modules that use batch statistics.

    These are modules with `takes_weight = True`, such as the norms of `jaxdl.models.layers`, and
    Flax's `BatchNorm`, which gets a mask. So a net does not have to pass `weight` through all its
    layers, and cannot forget it.
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
        # A subclass may call `super` without a mask; that call also comes here.
        elif "mask" in given.signature.parameters and "mask" not in given.arguments:
            x = args[0]
            check_rows(x, weight)
            kwargs = {**kwargs, "mask": (weight > 0).reshape((-1,) + (1,) * (x.ndim - 1))}
        return call(*args, **kwargs)

    with nn.intercept_methods(hand_down):
        yield


def _check_module(module: Any, function: str) -> None:
    if not isinstance(module, nn.Module):
        raise InputError(
            f"{function} takes a Flax module, not {module!r}. Give an instance, say"
            f" {function}(Net())"
        )


def check_images(x: Array, net: str, *, least: int = 1) -> None:
    """Refuses all but batches of floating-point images with at least `least` pixels per side.

    Integers are refused and not cast, because images of 0..255 would train badly without any error.

    Raises:
        InputError: naming the net, and the type and shape that it got.
    """
    if x.ndim != 4 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(
            f"{net} needs floating-point images [n, height, width, channels], not"
            f" {x.dtype} of shape {x.shape}. Convert uint8 images by x.astype('float32') / 255"
        )
    if min(x.shape[1:3]) < least:
        raise InputError(
            f"{net} needs images of {least}x{least} pixels at least, not {x.shape[1]}x{x.shape[2]}."
            " Give larger images"
        )
