"""SNAIL, a simple neural attentive learner (Mishra et al. 2018, arXiv:1707.03141).

The net reads the support set as a sequence of inputs with their labels, then a query with a null
label. Causal convolutions aggregate what is near, and causal attention finds what matters at any
distance.
"""

from jaxdl.meta.in_context import in_context
from jaxdl.models.context_snail import context_snail
from jaxdl.types import Embedding, LossFn, MetaLearner


def snail(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    length: int = 32,
    width: int = 128,
    inner_dropout: bool = False,
) -> MetaLearner:
    """SNAIL on the outputs of `features`, which are trained with it.

    Classification, and regression of `ways` numbers. The blocks and their widths are those of the
    paper for images. Its pseudo-code dilates convolutions by 2, 4, 8 ...; here it is by 1, 2, 4
    ..., so that they see every step of `length`. Attention has no such limit.

    Predictions depend on the order of the support set. Each query is answered as if it were the
    only one. A support example of weight 0 is as if it were left out, and the size of other weights
    has no meaning.

    Dropout in the features is on for queries in training. For the support set it is on only with
    `inner_dropout`, in training and in evaluation.

    Args:
        length: Steps that the convolutions see: support examples plus the query.
        width: Filters of each convolution. Attention has widths in proportion.
        inner_dropout: Dropout in the features of the support set, too.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> learner = jaxdl.snail(jaxdl.mlp((8,)), jaxdl.cross_entropy, ways=5, length=4, width=4)
    >>> support = jaxdl.Batch(jnp.ones((10, 4)), jnp.arange(10) % 5)
    >>> params = jax.jit(learner.init)(jax.random.key(0), support.x)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, support)
    >>> jax.jit(learner.predict)(adapted, jnp.ones((7, 4))).shape
    (7, 5)
    """
    net = context_snail(length, ways, filters=width)
    return in_context(features, net, loss, ways=ways, inner_dropout=inner_dropout)
