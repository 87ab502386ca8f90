"""LSTM learner (Hochreiter et al. 2001; Santoro et al. 2016, arXiv:1605.06065).

The net reads the support set as a sequence of inputs with their labels, then a query with a null
label. All learning in a task is in the state of the LSTM: its weights are the learned algorithm.
"""

from jaxdl.meta.in_context import in_context
from jaxdl.models.context_lstm import context_lstm
from jaxdl.types import Embedding, LossFn, MetaLearner


def lstm_learner(
    features: Embedding, loss: LossFn, *, ways: int, units: int = 200, inner_dropout: bool = False
) -> MetaLearner:
    """An LSTM of `units` units on the outputs of `features`, which are trained with it.

    Classification, and regression of `ways` numbers. It is the LSTM of Santoro et al., without the
    external memory of their MANN. Three things are those of SNAIL (arXiv:1707.03141): features of a
    convolutional net, a label beside its own input, and a loss of the queries alone. The paper
    gives a label with the next input, and has a loss at each step.

    Predictions depend on the order of the support set. Each query is answered as if it were the
    only one. A support example of weight 0 does not change the state, and the size of other weights
    has no meaning.

    Dropout in the features is on for queries in training. For the support set it is on only with
    `inner_dropout`, in training and in evaluation.

    Args:
        units: Width of the LSTM's state.
        inner_dropout: Dropout in the features of the support set, too.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> learner = jaxdl.lstm_learner(jaxdl.mlp((8,)), jaxdl.cross_entropy, ways=5, units=16)
    >>> support = jaxdl.Batch(jnp.ones((10, 4)), jnp.arange(10) % 5)
    >>> params = jax.jit(learner.init)(jax.random.key(0), support.x)
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, support)
    >>> jax.jit(learner.predict)(adapted, jnp.ones((7, 4))).shape
    (7, 5)
    """
    net = context_lstm(units, ways)
    return in_context(features, net, loss, ways=ways, inner_dropout=inner_dropout)
