"""Logistic regression on the raw inputs: a baseline that learned features must beat."""

from functools import partial

import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from jaxdl.errors import InputError
from jaxdl.losses import counted, without_void
from jaxdl.meta.base import through_adaptation
from jaxdl.meta.logistic import Linear, logistic_regression
from jaxdl.meta.vectors import full_product
from jaxdl.types import Array, Batch, Count, Key, LossFn, MetaLearner, Params, PyTree, Weight


def raw_logistic(loss: LossFn, *, ways: int, l2: float = 1.0) -> MetaLearner:
    """Logistic regression on the raw inputs. It is a baseline that learned features must beat.

    Its parameters are empty. It is `LogisticRegression(C=1 / l2)` of scikit-learn on the support
    set, for three classes or more and inputs of about 1 in size. Standardise others: from numbers
    of a hundred, its steps do not reach the minimum. A class without a support example that counts
    has the logit -inf.

    Args:
        l2: Strength of the penalty on the weights, positive.

    Raises:
        InputError: if `l2` is not positive.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> learner = jaxdl.raw_logistic(jaxdl.cross_entropy, ways=3)
    >>> support = jaxdl.Batch(jnp.eye(3), jnp.array([2, 0, 1]))
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(0), (), support)
    >>> learner.predict(adapted, jnp.eye(3)).argmax(axis=1).tolist()
    [2, 0, 1]
    """
    if not l2 > 0:
        raise InputError(f"`l2={l2}`: without a penalty there is no minimum. Choose more than 0")

    def adapt(key: Key, params: Params, support: Batch, steps: int | None = None) -> Linear:
        del key, params, steps  # the minimum needs none of them
        weight = support.weight
        x = _flat(without_void(support.x, weight))
        (rows,) = counted(weight, x)
        # The minimum is a combination of the rows. So n coordinates of a row say as much as all of
        # its pixels, and the solver multiplies matrices of the size of the support set.
        span = orthonormal(rows)
        solve = partial(logistic_regression, ways=ways, l2=l2)
        found = solve(full_product(rows, span.T), support.y, weight)
        return Linear(full_product(span.T, found.kernel), found.bias)

    def predict(
        adapted: Linear, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Float[Array, "n ways"]:
        del key, weight  # no net that has dropout or a norm
        return _flat(x) @ adapted.kernel + adapted.bias[None]

    def init(key: Key, x: PyTree) -> Params:
        del key, x
        return ()

    return MetaLearner(init, adapt, predict, through_adaptation(adapt, predict, loss))


def orthonormal(rows: Float[Array, "n width"]) -> Float[Array, "n width"]:
    """Rows of length 1 at right angles with the same span; zeros for a row that adds nothing to it.

    Gram and Schmidt's method, each row twice against rounding. It calls no LAPACK, whose batches
    can deadlock in jaxlib 0.10.2 where the cores of a CPU are devices.

    >>> orthonormal(jnp.array([[3.0, 0.0], [6.0, 0.0], [4.0, 2.0]])).tolist()
    [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    """

    def with_row(i: Count, found: Float[Array, "n width"]) -> Float[Array, "n width"]:
        row = rows[i]
        rest = row
        for _ in range(2):
            rest = rest - full_product(full_product(found, rest[:, None]).T, found)[0]
        length, whole = jnp.linalg.vector_norm(rest), jnp.linalg.vector_norm(row)
        # Below that, the rest is rounding, and its direction has no meaning.
        new = length > 1e-5 * whole
        return found.at[i].set(jnp.where(new, rest / jnp.where(new, length, 1), 0))

    return lax.fori_loop(0, len(rows), with_row, jnp.zeros_like(rows))


def _flat(x: PyTree) -> Float[Array, "n width"]:
    x = jnp.asarray(x)
    return x.reshape(len(x), -1).astype(jnp.promote_types(x.dtype, "float32"))
