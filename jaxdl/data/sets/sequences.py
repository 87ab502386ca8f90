"""Tasks that need a long memory, drawn on the device: the adding problem, and copying.

Both are from Hochreiter and Schmidhuber's LSTM paper (1997) and its successors. They have no data
set: each example is a function of its key, so training never sees an example twice.
"""

import math

import jax
import jax.numpy as jnp

from jaxdl.errors import InputError
from jaxdl.types import Batch, Key, Sampler

ADDING_BASELINE = 1 / 6
"""Mean squared error of the constant answer 1: the variance of a sum of two uniform numbers."""


def adding(*, length: int) -> Sampler:
    """Sampler of one example of the adding problem (LSTM paper, section 5.4).

    x `[length, 2]`: numbers uniform in [0, 1), and a mark. The mark is 1 at two steps, one in each
    half, and 0 elsewhere. y `[1]`: the sum of the two marked numbers. The constant answer 1, the
    mean, has an error of 1/6. Memory must last for three quarters of the length on average.

    Raises:
        InputError: if `length` is below 2.
    """
    if length < 2:
        raise InputError(
            f"the adding problem of length {length} has no two places to mark. Choose 2 or more"
        )
    half = length // 2

    def draw(key: Key) -> Batch:
        number_key, first_key, second_key = jax.random.split(key, 3)
        numbers = jax.random.uniform(number_key, (length,))
        first = jax.random.randint(first_key, (), 0, half)
        second = jax.random.randint(second_key, (), half, length)
        places = jnp.arange(length)
        marked = (places == first) | (places == second)
        y = jnp.sum(jnp.where(marked, numbers, 0))
        return Batch(jnp.stack([numbers, marked.astype(numbers.dtype)], axis=1), y[None])

    return draw


def copying(*, delay: int, symbols: int = 8, count: int = 10) -> Sampler:
    """Sampler of one example of the copy task (Arjovsky et al. 2016, arXiv:1511.06464).

    The input shows `count` symbols, then nothing for `delay` steps, the last of which has a signal.
    Then the net must repeat the symbols while the input shows nothing.

    x `[delay + 2 * count, symbols + 2]`: one-hot; the last two are "nothing" and the signal.
    y int32 `[delay + 2 * count]`: "nothing" (`symbols`) up to the signal, then the symbols in
    `[0, symbols)`. A net that knows only the time has a cross-entropy of `copying_baseline`.

    Raises:
        InputError: if a number is below 1.
    """
    if min(delay, symbols, count) < 1:
        raise InputError(
            f"delay={delay}, symbols={symbols} and count={count} must be at least 1. Choose more"
        )

    def draw(key: Key) -> Batch:
        shown = jax.random.randint(key, (count,), 0, symbols, jnp.int32)
        nothing = jnp.full((delay + count,), symbols, jnp.int32)
        stream = jnp.concatenate([shown, nothing.at[delay - 1].set(symbols + 1)])
        return Batch(jax.nn.one_hot(stream, symbols + 2), jnp.concatenate([nothing, shown]))

    return draw


def copying_baseline(*, delay: int, symbols: int = 8, count: int = 10) -> float:
    """Mean cross-entropy per step, in nats, of a uniform guess of the symbols at the right time."""
    return count * math.log(symbols) / (delay + 2 * count)
