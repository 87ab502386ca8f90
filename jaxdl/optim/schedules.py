"""Learning rates by step."""

import optax


def cosine(lr: float, decay_steps: int) -> optax.ScalarOrSchedule:
    """A schedule from `lr` to 0 along half a cosine (Loshchilov, Hutter 2017, arXiv:1608.03983).

    After `decay_steps` it stays 0. With `decay_steps=0` it is `lr` at every step.

    >>> rate = cosine(0.2, 4)
    >>> [round(float(rate(step)), 4) for step in (0, 2, 4, 9)]
    [0.2, 0.1, 0.0, 0.0]
    >>> cosine(0.2, 0)
    0.2
    """
    return optax.cosine_decay_schedule(lr, decay_steps) if decay_steps else lr
