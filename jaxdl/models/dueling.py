"""Dueling nets (Wang et al. 2016, arXiv:1511.06581): a state value, and an advantage per action.

The paper also scales the gradient that enters the shared layers by 1 / sqrt(2), and clips
gradients. Both belong to the optimiser and are not here.
"""

from collections.abc import Sequence

from flax import linen as nn

from jaxdl.errors import InputError
from jaxdl.models.layers.dense import Dense
from jaxdl.models.linen import pure
from jaxdl.types import Array, Model


class Dueling(nn.Module):
    """Shared dense layers and two streams with a hidden layer each; see `dueling`."""

    shared: Sequence[int]
    stream: int
    actions: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x.reshape(x.shape[0], -1)
        for features in self.shared:
            x = nn.relu(Dense(features)(x))

        def stream(name: str, outputs: int) -> Array:
            hidden = nn.relu(Dense(self.stream, name=f"{name}_hidden")(x))
            return Dense(outputs, name=name)(hidden)

        value, advantage = stream("value", 1), stream("advantage", self.actions)
        return value + advantage - advantage.mean(axis=1, keepdims=True)


def dueling(hidden: Sequence[int], actions: int) -> Model:
    """A net from `[n, ...]` (flattened) to action values `[n, actions]`, equation 9 of the paper.

    The last width of `hidden` is for one layer in each of the two streams, value and advantage. The
    other layers come before, and are shared. The mean over actions is the value of the state.

    Raises:
        InputError: if there is no layer, or a width or the number of actions is below 1.
    """
    if not hidden or min(*hidden, actions) < 1:
        raise InputError(
            f"dueling cannot have hidden={tuple(hidden)!r} and actions={actions}. Give widths and"
            f" actions of at least 1"
        )
    *shared, stream = hidden
    return pure(Dueling(tuple(shared), stream, actions))
