"""Inner steps in segments, whose insides are computed again in the backward pass.

A meta-gradient keeps what each inner step leaves behind, so its memory grows with the steps.
Segments of them keep their first parameters alone (Chen et al. 2016, arXiv:1604.06174). The
backward pass then holds the insides of one segment at a time.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.types import PyTree
from jaxdl.xla import size_in_bytes

Step = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
"""`(carry, inputs) -> (carry, outputs)`, as of `jax.lax.scan`."""


class Cost(NamedTuple):
    """Bytes that a backward pass through inner steps needs, per step."""

    carried: int
    """Of the parameters and the optimiser's state, which each segment keeps."""
    kept: int
    """Of what a step leaves for its backward pass."""


def cost(step: Step, carry: PyTree, inputs: PyTree) -> Cost:
    """The cost of `step`, found by shapes: nothing is computed.

    Args:
        inputs: of all steps, with leading axis `[steps]`.

    >>> import jax.numpy as jnp
    >>> cost(lambda w, x: (jnp.sin(w) * x, None), jnp.zeros(1000), jnp.zeros((50, 1000)))
    Cost(carried=4000, kept=8000)
    """

    def backward(carry: PyTree, inputs: PyTree) -> PyTree:
        return jax.vjp(lambda carry: step(carry, inputs)[0], carry)[1]

    first = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), inputs)
    return Cost(size_in_bytes(carry), size_in_bytes(jax.eval_shape(backward, carry, first)))


def memory(steps: int, length: int, cost: Cost) -> int:
    """Bytes that the backward pass holds, with segments of `length` steps.

    >>> memory(100, 10, Cost(carried=1, kept=5)), memory(100, 100, Cost(carried=1, kept=5))
    (60, 501)
    """
    return math.ceil(steps / length) * cost.carried + length * cost.kept


def segment_length(steps: int, cost: Cost) -> int:
    """The length of the segments that need the least memory, from 1 to `steps`.

    `steps / n` segments keep their first parameters, and one keeps the insides of `n` steps. So
    the memory grows with the root of the steps. A divisor of `steps` may cost a quarter more,
    because then all segments are one program.

    >>> segment_length(100, Cost(carried=1, kept=1)), segment_length(100, Cost(1, kept=25))
    (10, 2)
    """

    def need(length: int) -> int:
        return memory(steps, length, cost)

    lengths = range(1, steps + 1)
    best = min(lengths, key=need)
    divisor = min((length for length in lengths if steps % length == 0), key=need)
    return divisor if need(divisor) <= 1.25 * need(best) else best


def in_segments(
    step: Step, carry: PyTree, inputs: PyTree, *, steps: int, length: int
) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan` of `steps` steps, with a checkpoint before each `length` of them.

    With one segment there is no checkpoint.

    >>> import jax.numpy as jnp
    >>> end, path = in_segments(
    ...     lambda total, x: (total + x, total), 0, jnp.arange(7), steps=7, length=3
    ... )
    >>> int(end), path.tolist()
    (21, [0, 0, 1, 3, 6, 10, 15])
    """
    if length >= steps:
        return lax.scan(step, carry, inputs, length=steps)
    segments, rest = divmod(steps, length)

    def part(first: int, last: int) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[first:last], inputs)

    def segment(carry: PyTree, inputs: PyTree, length: int) -> tuple[PyTree, PyTree]:
        def walk(carry: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
            return lax.scan(step, carry, inputs, length=length)

        # The body of a scan is safe from the elimination that would undo a checkpoint.
        return jax.checkpoint(walk, prevent_cse=False)(carry, inputs)

    cut = jax.tree.map(
        lambda leaf: leaf.reshape(segments, length, *leaf.shape[1:]), part(0, segments * length)
    )
    carry, path = lax.scan(
        lambda carry, inputs: segment(carry, inputs, length), carry, cut, length=segments
    )
    path = jax.tree.map(lambda leaf: leaf.reshape(segments * length, *leaf.shape[2:]), path)
    if not rest:
        return carry, path
    carry, last = segment(carry, part(segments * length, steps), rest)
    return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), path, last)
