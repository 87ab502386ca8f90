"""MGDA, the multiple-gradient descent algorithm (Sener, Koltun 2018, arXiv:1810.04650)."""

from jaxdl.multitask.combine import TaskMethod, weigh_gram
from jaxdl.optim.qp import min_norm


def mgda() -> TaskMethod:
    """The shortest vector in the convex hull of the task gradients.

    Its inner product with every task's gradient is at least its own square. So no loss increases to
    first order. If the vector is zero, the point is Pareto stationary. If the gradient of a task is
    zero, so is the vector. The paper computes it by Frank-Wolfe; here it is exact. Identical tasks
    give the gradient of one.
    """
    return weigh_gram(min_norm)
