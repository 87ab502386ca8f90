"""Flax modules as pure functions: the border between Flax and the rest of jaxdl."""

from typing import Any, cast

from flax import linen as nn

from jaxdl.errors import InputError
from jaxdl.types import Key, Model, Params


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
