"""A learner of tables in context (Hollmann et al. 2025, doi:10.1038/s41586-024-08328-6: TabPFN v2).

A net with attention over columns and over rows reads labelled rows and classifies others. All
learning in a table is in the activations. Trained on tables drawn from a prior
(`jaxdl.data.sets.tables`), it approximates the Bayesian posterior. The size is that of nanoTabPFN
(Pfefferle et al. 2025, arXiv:2511.03634).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxdl.errors import InputError
from jaxdl.losses import without_void
from jaxdl.meta.base import through_adaptation
from jaxdl.models.tabular import Labelled, Read, tabular_transformer
from jaxdl.types import Array, Batch, Cells, Key, LossFn, MetaLearner, Params, PyTree, Weight


class Fitted(NamedTuple):
    """The adapted state: the parameters, and what the net has read of the support set."""

    params: Params
    read: Read


def tabular(
    loss: LossFn,
    *,
    ways: int = 10,
    features: int = 20,
    width: int = 64,
    heads: int = 2,
    layers: int = 3,
    group: int = 4,
) -> MetaLearner:
    """A transformer over the cells of a table, which classifies rows.

    Inputs are `Cells`, or numbers `[n, features]` of which those that are not finite are missing.
    There may be fewer columns than `features`, and fewer classes in the support set than `ways`. A
    class that is not in the support set has a very low logit.

    Predictions do not depend on the order of the support set, and each query is answered as if it
    were the only one. A support row of weight 0 counts for nothing, and one of weight 2 twice. The
    net has parameters for each column and class, so predictions depend a little on their order.
    `TabularClassifier` takes the mean over several orders.

    Args:
        ways: The most classes.
        features: The most columns.
        width: Width of tokens, a multiple of the heads.
        heads: Heads of attention.
        layers: Layers of attention.
        group: Columns per token, as in TabPFN v2. 1: a token per cell.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> learner = jaxdl.tabular(jaxdl.cross_entropy, ways=3, features=4, width=8, layers=1)
    >>> support = jaxdl.Batch(jnp.ones((10, 4)), jnp.arange(10) % 3)
    >>> params = jax.jit(learner.init)(jax.random.key(0), support.x)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, support)
    >>> jax.jit(learner.predict)(adapted, jnp.ones((7, 4))).shape
    (7, 3)
    """
    net = tabular_transformer(
        ways, features=features, width=width, heads=heads, layers=layers, group=group
    )

    def init(key: Key, x: PyTree) -> Params:
        cells = as_cells(x, features)
        labels = jnp.zeros((len(cells.values), ways))
        return net.init(key, Labelled(cells, labels, jnp.ones(len(labels))))

    def adapt(key: Key, params: Params, support: Batch, steps: int | None = None) -> Fitted:
        del key, steps  # the net reads the support set once, and nothing is drawn
        cells = as_cells(without_void(support.x, support.weight), features)
        labels = jax.nn.one_hot(support.y, ways)
        weight = jnp.ones(len(labels)) if support.weight is None else support.weight
        table = Labelled(cells, labels, weight.astype(labels.dtype))
        return Fitted(params, net.encode(params, table))

    def predict(
        adapted: Fitted, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Float[Array, "m ways"]:
        del key, weight  # there is no dropout, and rows do not see each other
        return net.decode(adapted.params, adapted.read, as_cells(x, features))

    return MetaLearner(init, adapt, predict, through_adaptation(adapt, predict, loss))


def as_cells(x: PyTree, features: int) -> Cells:
    """Inputs as cells; numbers that are not finite are missing.

    >>> as_cells(jnp.array([[1.0, jnp.nan]]), features=2).known.tolist()
    [[True, False]]

    Raises:
        InputError: if they are no table, or one of too many columns.
    """
    cells = x if isinstance(x, Cells) else Cells(x, jnp.isfinite(x))
    shape = cells.values.shape
    if len(shape) != 2 or not 1 <= shape[1] <= features:
        raise InputError(
            f"inputs are {list(shape)}, and the learner takes `[rows, columns]` of 1 to {features}"
            " columns. Choose some of the columns, or make it with more `features`"
        )
    return cells
