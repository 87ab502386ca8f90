"""MAML++ (Antoniou, Edwards, Storkey 2019, arXiv:1810.09502).

It is MAML with query losses after every inner step, learned rates, norms per step, and first
derivatives alone in the beginning of training. Each of them can be switched off. The cosine for the
outer learning rate, its last part, belongs to the outer optimiser.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl.errors import InputError
from jaxdl.grads import objective
from jaxdl.meta.base import Ask, QueryGrad, predict_of
from jaxdl.meta.estimators import Estimator, first_order
from jaxdl.meta.memory import auto
from jaxdl.meta.multi_step import Visit, multi_step_weights, through_every_step
from jaxdl.meta.per_step import PerStep, Select, descend_per_step, divide, is_norm
from jaxdl.meta.phases import by_phase
from jaxdl.meta.rates import at_each_step
from jaxdl.types import Batch, GradFn, Key, LossFn, MetaLearner, Model, Params, PyTree


def maml_pp(
    model: Model,
    loss: LossFn,
    *,
    steps: int = 5,
    inner_lr: float = 0.1,
    multi_step_until: int = 500,
    learn_rates: bool = True,
    per_step: Select | None = is_norm,
    second_order_from: int = 0,
    estimator: Estimator = auto,
    inner_dropout: bool = False,
) -> MetaLearner:
    """MAML++ with `steps` inner steps of gradient descent, whose rates begin as `inner_lr`.

    `params` are a `PerStep`, and `adapted` are parameters of `model`. More steps than in training
    use the rates and norms of the last one again. As in the paper's code, the query loss after a
    step has the norms of this step, and norms use the statistics of the batch at hand. So running
    averages would change nothing, and there are none. The loss, dropout, the estimator, and tasks
    with fewer classes are as in `maml`.

    Args:
        multi_step_until: training step from which the last query loss counts alone; before, see
            `multi_step_weights`. In the paper it is a tenth of the training. 0: it always does.
        learn_rates: whether to learn a rate for each inner step and each array of parameters.
        per_step: which parameters have a value for each inner step and are not adapted, by names
            such as `BatchNorm_0/bias`. None adapts all.
        second_order_from: training step before which the meta-gradient is of first order.

    Raises:
        InputError: if a number is below 0, `per_step` chooses all parameters, or
            `second_order_from` is given with the estimator `first_order`.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> net = jaxdl.mlp((8, 3), norm="batch")
    >>> learner = jaxdl.maml_pp(net, jaxdl.cross_entropy, steps=2, inner_lr=0.5)
    >>> support = jaxdl.Batch(jnp.eye(6), jnp.arange(6) % 3)
    >>> params = jax.jit(learner.init)(jax.random.key(0), support.x)
    >>> params.each["BatchNorm_0"]["bias"].shape, params.rates["Dense_1"]["bias"].tolist()
    ((2, 8), [0.5, 0.5])
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, support)
    >>> learner.predict(adapted, support.x).shape
    (6, 3)
    """
    numbers = {"steps": steps, "multi_step_until": multi_step_until}
    for name, number in {**numbers, "second_order_from": second_order_from}.items():
        if number < 0:
            raise InputError(f"`{name}={number}`: choose 0 or more")
    if second_order_from and estimator is first_order:
        raise InputError(
            "the first-order estimator has no second order to begin with: leave out"
            " `second_order_from=`, or choose another `estimator=`"
        )
    value, trained_steps = objective(model, loss), steps

    def init(key: Key, x: PyTree) -> PerStep:
        start, each = divide(model.init(key, x), per_step)
        rates = jax.tree.map(lambda leaf: jnp.full(max(1, steps), inner_lr, leaf.dtype), start)
        return PerStep(start, at_each_step(each, max(1, steps)), rates if learn_rates else ())

    def walk(
        by: Estimator, key: Key, params: PerStep, support: Batch, visit: Visit | None, steps: int
    ) -> tuple[Params, PyTree]:
        fixed = jnp.full(max(1, trained_steps), inner_lr)
        params = params if learn_rates else params._replace(rates=fixed)
        options: dict[str, Any] = {"key": key if inner_dropout else None, "estimator": by}
        return descend_per_step(value, params, support, steps=steps, visit=visit, **options)

    def adapt(key: Key, params: PerStep, support: Batch, steps: int | None = None) -> Params:
        depth = trained_steps if steps is None else steps
        return walk(estimator, key, params, support, None, depth)[0]

    predict = predict_of(model)

    def asking(ask: Ask, loss: LossFn) -> GradFn:
        def grad_from(start: int) -> GradFn:
            by = estimator if start >= second_order_from else first_order
            all_steps = partial(multi_step_weights, steps=steps, until=multi_step_until)
            weights = all_steps if start < multi_step_until and steps > 1 else None
            return through_every_step(partial(walk, by, steps=steps), ask, loss, weights)

        starts = sorted({0, multi_step_until if steps > 1 else 0, second_order_from})
        return QueryGrad(by_phase({start: grad_from(start) for start in starts}), asking)

    def ask(adapted: Params, support: Batch, x: PyTree, **options: Any) -> PyTree:
        del support  # as in `maml`
        return predict(adapted, x, **options)

    return MetaLearner(init, adapt, predict, asking(ask, loss))
