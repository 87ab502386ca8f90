"""The nets of CNP, CANP, NP and ANP: two paths from the points to a decoder.

They are those of the benchmark of TNP (Nguyen, Grover 2022, arXiv:2207.04179).
"""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax.nn import sigmoid
from jaxtyping import Float

from jaxdl.errors import InputError
from jaxdl.losses import Normal
from jaxdl.models.process import (
    Everywhere,
    Lookup,
    Points,
    Pooling,
    ProcessNet,
    Rows,
    Stack,
    process_net,
)
from jaxdl.types import Array, PyTree


class Paths(NamedTuple):
    """The code of a set. `local` is what the first path gives: one vector, or keys and values for
    attention. `whole` is that of the second path: a vector, or the distribution of a latent one.
    """

    local: PyTree
    whole: Float[Array, " width"] | Normal


class TwoPaths(nn.Module):
    """Encoders of both paths, and the decoder, which sees their vectors beside the input."""

    out: int
    width: int
    heads: int
    latent: bool

    def setup(self) -> None:
        """The layers."""
        width, heads = self.width, self.heads
        self.first = Lookup(width, heads) if heads else Everywhere(width)
        self.second = Pooling(width, width * (1 + self.latent), heads)
        self.decoder = Stack((width, width, self.out))

    def encode(self, points: Points) -> Paths:
        """The code of a set of points."""
        local, whole = self.first.read(points), self.second(points)
        if not self.latent:
            return Paths(local, whole)
        mean, raw = jnp.split(whole, 2)
        return Paths(local, Normal(mean, 0.1 + 0.9 * sigmoid(raw)))

    def decode(self, code: Paths, x: Rows) -> Rows:
        """An answer per input."""
        whole = code.whole.mean if isinstance(code.whole, Normal) else code.whole
        everywhere = jnp.broadcast_to(whole[None], (len(x), self.width))
        rows = [self.first(code.local, x), everywhere, x]
        return self.decoder(jnp.concatenate(rows, axis=1))


def process_paths(
    out: int, *, width: int = 128, heads: int = 0, latent: bool = False
) -> ProcessNet:
    """Dense nets from points to a code, and from a code and inputs to answers `[m, out]`.

    A code is a `Paths`. Points have no order, and one of weight 2 is as the point twice.

    Args:
        heads: of attention, for the first path to look up each input, and for self-attention in
            both paths. 0: both paths have one vector of the whole set, without attention.
        latent: the second path gives a distribution. `decode` takes its mean, or a vector in place
            of it.

    Raises:
        InputError: for a width that does not divide among the heads.

    >>> import jax, jax.numpy as jnp
    >>> from jaxdl.models.process import Points
    >>> net, points = process_paths(2, width=4), Points(*jnp.ones((2, 5, 1)), jnp.ones(5))
    >>> params = jax.jit(net.init)(jax.random.key(0), points)
    >>> net.decode(params, net.encode(params, points), jnp.zeros((3, 1))).shape
    (3, 2)
    """
    if min(width, out) < 1 or heads < 0 or (heads and width % heads):
        raise InputError(
            f"a neural process cannot have {width=}, {heads=} and {out=}. Give a width that is a"
            " multiple of the heads"
        )
    return process_net(TwoPaths(out, width, heads, latent))
