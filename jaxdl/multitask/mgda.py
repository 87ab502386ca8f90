"""MGDA, the multiple-gradient descent algorithm (Sener, Koltun 2018, arXiv:1810.04650)."""

from jaxdl.multitask.combine import TaskMethod, weigh_gram
from jaxdl.optim.qp import min_norm


def mgda() -> TaskMethod:
    """The shortest vector in the convex hull of the task gradients.

    Its inner product with every task's gradient is at least its own square: no loss increases to
    first order, and where it is zero the point is Pareto stationary. It is zero beside a task
    without a gradient. The paper finds it by Frank-Wolfe, here it is exact. Identical tasks give
    the gradient of one.
    """
    return weigh_gram(min_norm)
