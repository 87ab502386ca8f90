"""Flax modules as pure functions: the border between Flax and the rest of jaxdl."""

from typing import Any, cast

import jax.numpy as jnp
from flax import linen as nn

from jaxdl.errors import InputError
from jaxdl.types import Array, Key, Model, NormMode, Params, PyTree, StatefulModel

STATISTICS = "batch_stats"
"""The collection in which Flax modules keep running averages, by Flax's own convention."""


def pure(module: nn.Module) -> Model:
    """The `Model` of a Flax module whose only variables are its parameters.

    `apply(..., key=key)` feeds the key to the module's "dropout" stream.

    Raises:
        InputError: at `init`, if the module keeps other collections (running averages, caches).
    """

    def init(key: Key, x: Any) -> Params:
        variables = module.init({"params": key, "dropout": key}, x)
        extra = sorted(set(variables) - {"params"})
        if extra:
            raise InputError(
                f"{type(module).__name__} keeps state in {extra}, so it is no pure function of its"
                " parameters; use jaxdl.models.norm.BatchNorm in place of flax's BatchNorm"
            )
        return variables.get("params", {})

    def apply(params: Params, x: Any, *, key: Key | None = None) -> Any:
        rngs = None if key is None else {"dropout": key}
        return cast(Any, module.apply({"params": params}, x, rngs=rngs))

    return Model(init, apply)


def stateful(module: nn.Module) -> StatefulModel:
    """The `StatefulModel` of a Flax module that is called as `module(x, mode)`.

    Its variables are parameters, and statistics in the collection "batch_stats". In the mode
    "train" it may update them; in "eval" it cannot. `key` feeds its "dropout" stream in "train".

    Raises:
        InputError: at `init`, if the module keeps any other collection.
    """

    def init(key: Key, x: Any) -> tuple[Params, PyTree]:
        variables = module.init({"params": key, "dropout": key}, x, "eval")
        extra = sorted(set(variables) - {"params", STATISTICS})
        if extra:
            raise InputError(
                f"{type(module).__name__} keeps state in {extra}; a StatefulModel has parameters"
                f' and statistics ("{STATISTICS}") alone'
            )
        return variables.get("params", {}), variables.get(STATISTICS, {})

    def apply(
        params: Params, stats: PyTree, x: Any, *, key: Key | None = None, mode: NormMode
    ) -> tuple[Any, PyTree]:
        variables = {"params": params, STATISTICS: stats}
        if mode == "eval":
            return cast(Any, module.apply(variables, x, mode)), stats
        rngs = None if key is None else {"dropout": key}
        y, new = cast(Any, module.apply(variables, x, mode, rngs=rngs, mutable=[STATISTICS]))
        return y, new.get(STATISTICS, {})

    return StatefulModel(init, apply)


def without_stats(model: Model) -> StatefulModel:
    """A `Model` where a `StatefulModel` is wanted: its statistics are empty."""

    def init(key: Key, x: Any) -> tuple[Params, PyTree]:
        return model.init(key, x), {}

    def apply(
        params: Params, stats: PyTree, x: Any, *, key: Key | None = None, mode: NormMode
    ) -> tuple[Any, PyTree]:
        return model.apply(params, x, key=key if mode == "train" else None), stats

    return StatefulModel(init, apply)


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
