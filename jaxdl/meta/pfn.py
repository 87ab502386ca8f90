"""PFN, a transformer that learns in context (Müller et al. 2022, arXiv:2112.10510).

The net reads the support set as a set of tokens, each an input with its label. A query attends to
the support set alone. All learning in a task is in the activations. Trained on tasks drawn from a
prior, the answers approximate the Bayesian posterior.
"""

from jaxdl.meta.in_context import in_context
from jaxdl.models.context_transformer import context_transformer
from jaxdl.types import Embedding, LossFn, MetaLearner


def pfn(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    width: int = 96,
    heads: int = 4,
    layers: int = 3,
    inner_dropout: bool = False,
) -> MetaLearner:
    """A transformer on the outputs of `features`, which are trained with it.

    Classification, and regression of `ways` numbers. The attention is that of the paper. Four
    things differ: the norms stand before each block and not after it; a regression predicts numbers
    by `loss`, where the paper predicts a histogram; inputs pass through `features` first; and the
    net is small. The paper has width 512 and 6 layers.

    Predictions do not depend on the order of the support set. Each query is answered as if it were
    the only one. A support example of weight 0 counts for nothing, and one of weight 2 twice.

    Dropout in the features is on for queries in training. For the support set it is on only with
    `inner_dropout`, in training and in evaluation.

    Args:
        width: Width of tokens, a multiple of the heads.
        heads: Heads of attention.
        layers: Layers of attention.
        inner_dropout: Dropout in the features of the support set, too.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> learner = jaxdl.pfn(jaxdl.mlp((8,)), jaxdl.cross_entropy, ways=5, width=8, layers=1)
    >>> support = jaxdl.Batch(jnp.ones((10, 4)), jnp.arange(10) % 5)
    >>> params = jax.jit(learner.init)(jax.random.key(0), support.x)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, support)
    >>> jax.jit(learner.predict)(adapted, jnp.ones((7, 4))).shape
    (7, 5)
    """
    net = context_transformer(ways, width=width, heads=heads, layers=layers)
    return in_context(features, net, loss, ways=ways, inner_dropout=inner_dropout)
