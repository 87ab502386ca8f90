"""Online learning: descent on each new example, without a memory of earlier ones."""

import optax

from jaxdl.continual.base import Continual, alone, descending, gradient
from jaxdl.types import Example, Grads, Key, LossFn, Metrics, Model, Params


def online(model: Model, loss: LossFn, tx: optax.GradientTransformation) -> Continual:
    """The baseline of all other methods; it forgets as fast as tasks change."""
    of_batch = gradient(model, loss)

    def grad(
        key: Key, params: Params, memory: tuple[()], example: Example
    ) -> tuple[Grads, Metrics, tuple[()]]:
        del key  # nothing is drawn
        grads, metrics = of_batch(params, alone(example))
        return grads, metrics, memory

    return descending(model, tx, grad)
