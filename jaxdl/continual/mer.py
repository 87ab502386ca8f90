"""MER, meta-experience replay (Riemer et al. 2019, https://arxiv.org/abs/1810.11910).

Reptile on old examples: descent on one example after another makes their gradients agree, and going
back a part of the way keeps that more than what the last of them taught. `mer` is the paper's
algorithm 1, `mer_one_batch` its algorithm 6, each as in the authors' code.
"""

from collections.abc import Callable

import jax
import optax
from jax import lax

from jaxdl.continual.base import Continual, alone, gradient
from jaxdl.continual.er import Rule, beside, replaying
from jaxdl.types import Batch, Example, Grads, LossFn, Model, Params, PyTree

Way = Callable[[Params, Batch, Example], Params]
"""`(params, past, example) -> params`: where learning goes, of which Reptile keeps a part."""


def mer(
    model: Model,
    loss: LossFn,
    *,
    lr: float,
    gamma: float,
    beta: float,
    capacity: int,
    replay_batch_size: int,
    batches: int,
) -> Continual:
    """Algorithm 1: each example `batches` times, each time followed by a batch of old ones.

    Such a batch is of `replay_batch_size` examples, drawn from a reservoir of `capacity`. Every
    example is an update of its own, by `lr` times the gradient of its loss. From the end of each
    batch the parameters go back to `beta` of the way, from the end of all to `gamma` of it.
    """
    walk = walker(model, loss, lr)

    def way(params: Params, past: Batch, example: Example) -> Params:
        def one(params: Params, batch: Batch) -> tuple[Params, None]:
            end = walk(walk(params, alone(example)), batch)
            return jax.tree.map(lambda a, b: a + beta * (b - a), params, end), None

        apart = jax.tree.map(
            lambda leaf: leaf.reshape(batches, replay_batch_size, *leaf.shape[1:]), past
        )
        return lax.scan(one, params, apart)[0]

    rule, tx = _backwards(way), optax.sgd(gamma)
    return replaying(
        model,
        loss,
        tx,
        rule,
        capacity=capacity,
        replay_batch_size=replay_batch_size,
        batches=batches,
    )


def mer_one_batch(
    model: Model, loss: LossFn, *, lr: float, gamma: float, capacity: int, replay_batch_size: int
) -> Continual:
    """Algorithm 6: `replay_batch_size` old examples one after another, then the new one; see `mer`.

    A part `gamma` of that way is kept. (In the paper the batch is as large as all of algorithm 1's
    together; the published settings have a batch as large as one of them.)
    """
    walk = walker(model, loss, lr)

    def way(params: Params, past: Batch, example: Example) -> Params:
        return walk(params, beside(past, example))

    rule, tx = _backwards(way), optax.sgd(gamma)
    return replaying(model, loss, tx, rule, capacity=capacity, replay_batch_size=replay_batch_size)


def walker(model: Model, loss: LossFn, lr: float) -> Callable[[Params, Batch], Params]:
    """Descent by `lr` on the rows of a batch, one after another; a row of weight 0 does nothing."""
    grad_of = gradient(model, loss)

    def walk(params: Params, batch: Batch) -> Params:
        def one(params: Params, row: PyTree) -> tuple[Params, None]:
            grads, _ = grad_of(params, jax.tree.map(lambda leaf: leaf[None], row))
            return jax.tree.map(lambda leaf, grad: leaf - lr * grad, params, grads), None

        return lax.scan(one, params, batch)[0]

    return walk


def _backwards(way: Way) -> Rule:
    """Reptile's gradient: how far the way went, backwards. Descent by 1 would go all of it."""

    def rule(params: Params, past: Batch, example: Example) -> Grads:
        return jax.tree.map(lambda a, b: a - b, params, way(params, past, example))

    return rule
