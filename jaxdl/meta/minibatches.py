"""Gradient descent in a task by minibatches, for learners that do not differentiate through it."""

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Bool, Int

from jaxdl.grads import leading_axis
from jaxdl.meta.estimators import InnerLoss
from jaxdl.meta.inner import descend
from jaxdl.types import Array, Batch, Key, Params, PyTree, Weight


def descend_by_minibatches(
    loss: InnerLoss,
    params: Params,
    tx: optax.GradientTransformation,
    batch: Batch,
    *,
    size: int | None,
    steps: int,
    key: Key,
    dropout: bool = False,
) -> Params:
    """Takes `steps` steps of `tx`, each on `size` examples of the batch: see `minibatch_rows`.

    Args:
        size: None takes the whole batch at each step. So does a size that is not below its length.
        dropout: whether `loss` gets a key, a new one at each step.

    >>> import jax, jax.numpy as jnp, optax, jaxdl
    >>> def loss(w, key, batch):
    ...     return jaxdl.mean_squared_error(w * batch.x, batch.y, batch.weight)
    >>> batch = jaxdl.Batch(jnp.ones(4), jnp.array([1.0, 1.0, 5.0, 5.0]))
    >>> options = {"size": 1, "steps": 4, "key": jax.random.key(0)}
    >>> found = descend_by_minibatches(loss, jnp.float32(0), optax.sgd(0.5), batch, **options)
    >>> float(found) in (1.0, 5.0)  # a step of rate 1/2 goes to the target that it has seen
    True
    """
    if size is None or size >= leading_axis(batch):
        return descend(loss, params, tx, batch, steps=steps, key=key if dropout else None)[0]
    rows_key, masks_key = jax.random.split(key)
    weight = jnp.ones(leading_axis(batch)) if batch.weight is None else batch.weight
    rows, counts = minibatch_rows(rows_key, weight, size=size, steps=steps)
    masks = jax.random.split(masks_key, steps) if dropout else None

    def step(carry: PyTree, inputs: PyTree) -> tuple[PyTree, None]:
        (params, opt_state), (rows, counts, mask) = carry, inputs
        part = jax.tree.map(lambda leaf: leaf[rows], batch._replace(weight=weight))
        part = part._replace(weight=jnp.where(counts, part.weight, 0))
        grads, _ = jax.grad(loss, has_aux=True)(params, mask, part)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    return lax.scan(step, (params, tx.init(params)), (rows, counts, masks), length=steps)[0][0]


def minibatch_rows(
    key: Key, weight: Weight, *, size: int, steps: int
) -> tuple[Int[Array, "steps size"], Bool[Array, "steps size"]]:
    """The rows of each minibatch, and whether they count.

    An epoch takes each example once, in a new order. A minibatch may end an epoch and begin the
    next one. Examples of weight 0 are not drawn, and do not change the draw of the others. If fewer
    than `size` examples are left, a minibatch has all of them, and its last rows do not count.

    Args:
        weight: of `n >= size` examples.

    >>> import jax, jax.numpy as jnp
    >>> weight = jnp.array([1.0, 0.0, 1.0, 1.0, 1.0])
    >>> rows, _ = minibatch_rows(jax.random.key(0), weight, size=2, steps=4)
    >>> [sorted(epoch) for epoch in rows.reshape(2, 4).tolist()]
    [[0, 2, 3, 4], [0, 2, 3, 4]]
    """
    n = weight.shape[0]
    total = jnp.maximum(jnp.sum(weight > 0), 1)
    those_that_count_first = jnp.argsort(weight == 0, stable=True)

    def order(epoch: Array) -> Int[Array, " n"]:
        """The places below `total`, shuffled. The first numbers drawn do not depend on `n`."""
        draws = jax.random.uniform(jax.random.fold_in(key, epoch), (n,))
        return jnp.argsort(jnp.where(jnp.arange(n) < total, draws, 2.0))

    taken = jnp.minimum(size, total)

    def of_step(step: Array) -> tuple[Int[Array, " size"], Bool[Array, " size"]]:
        counts = jnp.arange(size) < taken
        drawn = step * taken + jnp.arange(size)
        epoch, place = drawn // total, drawn % total
        two = jax.vmap(order)(epoch[0] + jnp.arange(2))
        return those_that_count_first[two[jnp.minimum(epoch - epoch[0], 1), place]], counts

    return jax.vmap(of_step)(jnp.arange(steps))
