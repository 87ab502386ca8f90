"""MER, meta-experience replay (Riemer et al. 2019, https://arxiv.org/abs/1810.11910).

It is Reptile on past examples. Descent on one example after another makes their gradients agree.
Going back a part of the way keeps this agreement, more than it keeps the effect of the last
examples. `mer` is the paper's algorithm 1, `mer_one_batch` its algorithm 6, both as in the authors'
code.
"""

from collections.abc import Callable

import jax
import optax
from jax import lax

from jaxdl.continual.base import Continual, alone, gradient
from jaxdl.continual.er import Rule, beside, replaying
from jaxdl.types import Batch, Example, Grads, LossFn, Model, Params, PyTree

Way = Callable[[Params, Batch, Example], Params]
"""`(params, past, example) -> params`: the end of the descent; Reptile goes a part of the way."""


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
    """Algorithm 1: learns each example `batches` times, each time followed by a past batch.

    A past batch has `replay_batch_size` examples, drawn from a reservoir of `capacity`. Every
    example makes its own update, by `lr` times the gradient of its loss. After each past batch, the
    parameters keep `beta` of the way since the previous one. After all batches, they keep `gamma`
    of the whole way.
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
    """Algorithm 6: `replay_batch_size` past examples one by one, then the new example; see `mer`.

    The parameters keep `gamma` of the way. (In the paper, this batch is as large as all batches of
    algorithm 1 together. In the published settings, it is as large as one of them.)
    """
    walk = walker(model, loss, lr)

    def way(params: Params, past: Batch, example: Example) -> Params:
        return walk(params, beside(past, example))

    rule, tx = _backwards(way), optax.sgd(gamma)
    return replaying(model, loss, tx, rule, capacity=capacity, replay_batch_size=replay_batch_size)


def walker(model: Model, loss: LossFn, lr: float) -> Callable[[Params, Batch], Params]:
    """Descent by `lr` on the rows of a batch, one after another; rows of weight 0 do nothing."""
    grad_of = gradient(model, loss)

    def walk(params: Params, batch: Batch) -> Params:
        def one(params: Params, row: PyTree) -> tuple[Params, None]:
            grads, _ = grad_of(params, jax.tree.map(lambda leaf: leaf[None], row))
            return jax.tree.map(lambda leaf, grad: leaf - lr * grad, params, grads), None

        return lax.scan(one, params, batch)[0]

    return walk


def _backwards(way: Way) -> Rule:
    """Reptile's gradient: start minus end of `way`, so that descent by 1 goes the whole way."""

    def rule(params: Params, past: Batch, example: Example) -> Grads:
        return jax.tree.map(lambda a, b: a - b, params, way(params, past, example))

    return rule
