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


def warmup_cosine(lr: float, warmup: int, decay_steps: int) -> optax.Schedule:
    """A schedule that rises from 0 to `lr` in `warmup` steps, and then falls to 0 as `cosine`.

    It is 0 from `decay_steps` on. The warm-up takes at most half of them.

    >>> rate = warmup_cosine(0.2, 2, 6)
    >>> [round(float(rate(step)), 4) for step in (0, 1, 2, 4, 6, 9)]
    [0.0, 0.1, 0.2, 0.1, 0.0, 0.0]
    """
    warmup = min(warmup, decay_steps // 2)
    return optax.warmup_cosine_decay_schedule(0.0, lr, warmup, decay_steps)
