"""Evaluations in blocks of episodes. Between two, a signal is answered, and the time left shown."""

from collections.abc import Callable, Sequence
from itertools import product

import jax.numpy as jnp
import numpy as np

from jaxdl.runs.progress import timed
from jaxdl.types import Key, Metrics, Params

BLOCK = 500
"""Episodes between two looks at the clock."""

Measure = Callable[[Key, Sequence[Params]], dict[str, np.ndarray]]
"""`(key, nets) -> metrics`, arrays `[nets, depths, episodes]`."""


def in_blocks(
    make: Callable[..., Callable[..., Metrics]], episodes: int, what: str, most: int = BLOCK
) -> Measure:
    """An evaluation of several nets on the same `episodes`.

    The values are those of `make(episodes=episodes)`, because episode e depends on its number and
    the key alone.

    Args:
        make: `jaxdl.evaluate` with all its arguments but `episodes`.
        what: the beginning of the line with the time left: "testing".
        most: about so many episodes are in one block. Up to twice as many are one block.

    >>> import functools, jax, jaxdl, optax
    >>> loss = jaxdl.mean_squared_error
    >>> learner = jaxdl.maml(jaxdl.mlp((4, 1)), loss, tx=optax.sgd(0.01), steps=1)
    >>> make = functools.partial(jaxdl.evaluate, learner, loss, jaxdl.sinusoid(shots=5, queries=5))
    >>> params = learner.init(jax.random.key(0), jax.numpy.zeros((1, 1)))
    >>> found = in_blocks(make, 5, "testing", most=2)(jax.random.key(1), [params])
    >>> found["loss"].shape
    (1, 1, 5)
    """
    blocks = max(1, episodes // most)
    size = -(-episodes // blocks)  # equal blocks, because each size would be another program
    run = make(episodes=size)

    def measure(key: Key, nets: Sequence[Params]) -> dict[str, np.ndarray]:
        rows: list[dict[str, np.ndarray]] = []
        for net, block in timed(list(product(range(len(nets)), range(blocks))), what):
            found = run(key, nets[net], jnp.int32(block * size))
            rows.append({name: np.asarray(values) for name, values in found.items()})
        return {
            name: np.stack(
                [
                    np.concatenate([row[name] for row in rows[first : first + blocks]], axis=1)
                    for first in range(0, len(rows), blocks)
                ]
            )[..., :episodes]
            for name in rows[0]
        }

    return measure
