"""MAML by policy gradients (Finn, Abbeel, Levine 2017, arXiv:1703.03400, algorithm 3).

The support of an episode is no batch but a task, which is an environment. Before every inner step
the current policy plays new trajectories in it, and the step learns from them. For the outer step,
`trpo_step` is the paper's TRPO. The learner's `grad` is the same meta-gradient for an optimiser of
Optax.

The estimator takes trajectories as constant data, as the authors' code does. An inner step follows
the gradient of the mean of log-probability times advantage. The meta-gradient differentiates that
step. It ignores that other initial parameters would draw other trajectories. So two terms are
missing: the credit of the trajectories before a step for the return after it (E-MAML,
arXiv:1803.01118), and half of the Hessian of the expected return (DiCE, arXiv:1802.05098; ProMP,
arXiv:1810.06784). The estimator is biased, but has less variance.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from jaxdl.errors import InputError
from jaxdl.grads import leading_axis
from jaxdl.losses import weighted_mean
from jaxdl.meta.estimators import Estimator, exact
from jaxdl.meta.inner import descend, scale_by_rates
from jaxdl.parallel import task_keys
from jaxdl.rl.advantage import advantages
from jaxdl.rl.environment import Reset, Step
from jaxdl.rl.gaussian import Gaussian, kl_divergence
from jaxdl.rl.rollout import rollout
from jaxdl.rl.trpo import Compare, trust_region
from jaxdl.types import (
    Array,
    Count,
    Episode,
    Grads,
    Key,
    MetaLearner,
    Metrics,
    Model,
    Params,
    PyTree,
    Scalar,
    StepFn,
    TrainState,
    Weight,
)


class Samples(NamedTuple):
    """The data of a policy gradient: steps `[horizon, trajectories, ...]`, time first.

    `mask` and `reward` are 0 after the end of an episode.
    """

    obs: Array
    action: Array
    reward: Float[Array, "*steps horizon trajectories"]
    mask: Float[Array, "*steps horizon trajectories"]
    advantage: Float[Array, "*steps horizon trajectories"]


class Recorded(NamedTuple):
    """All trajectories of a task, from before, during and after the adaptation of a policy to it.

    `support`: the data of the inner steps, `Samples` with a leading axis `[steps]`. Each is played
        before its step.
    `query`: the `Samples` of the adapted policy, played after the last step.
    """

    support: Samples
    query: Samples


Draw = Callable[[Key, Params, PyTree], Samples]
"""`(key, params, task) -> samples`: trajectories of the policy in the task."""

Rates = Callable[[int], Float[Array, " steps"]]
"""`steps -> [steps]`: one learning rate per inner step."""


def samples_of(
    policy: Model,
    environment: Callable[[PyTree], tuple[Reset, Step]],
    *,
    trajectories: int,
    horizon: int,
    discount: float = 0.99,
    gae_lambda: float = 1.0,
) -> Draw:
    """A function that draws trajectories of a policy, with advantages over a baseline.

    The baseline is fitted to these trajectories alone. `policy` maps observations to a `Gaussian`.
    `environment` maps a task to reset and step.
    """

    def draw(key: Key, params: Params, task: PyTree) -> Samples:
        params = lax.stop_gradient(params)  # see the module's docstring
        played = rollout(
            key,
            lambda key, obs: policy.apply(params, obs).sample(key),
            *environment(task),
            trajectories=trajectories,
            horizon=horizon,
        )
        better = advantages(played, discount=discount, gae_lambda=gae_lambda)
        return Samples(*played, better)

    return draw


def policy_loss(policy: Model, params: Params, samples: Samples) -> Scalar:
    """Minus the mean of log-probability times advantage. Its gradient is that of REINFORCE."""
    log_prob = policy.apply(params, samples.obs).log_prob(samples.action)
    return -_mean(log_prob * samples.advantage, samples.mask)


def halved(rate: float) -> Rates:
    """The paper's inner rates: `rate` in the first step, half of it after that (appendix A.2)."""
    return lambda steps: jnp.where(jnp.arange(steps) == 0, rate, rate / 2)


def rates_of(rates: Rates, steps: int) -> Float[Array, " {steps}"]:
    """The learning rates `[steps]` of the inner steps.

    Raises:
        InputError: if `rates` returns another shape.
    """
    found = jnp.asarray(rates(steps))
    if found.shape != (steps,):
        raise InputError(
            f"rates({steps}) gives {list(found.shape)}: return [{steps}], one rate per inner step"
        )
    return found


def play(
    policy: Model, draw: Draw, rates: Float[Array, " steps"], key: Key, params: Params, task: PyTree
) -> tuple[Params, Recorded]:
    """`len(rates)` inner steps in a task, each on new trajectories.

    Returns:
        The adapted parameters, and all trajectories.
    """

    def loss(params: Params, key: Key, task: PyTree) -> tuple[Scalar, Samples]:
        samples = draw(key, params, task)
        return policy_loss(policy, params, samples), samples

    inner_key, query_key = jax.random.split(key)
    adapted, (support, _) = descend(
        loss, params, scale_by_rates(), task, steps=len(rates), key=inner_key, rates=rates
    )
    return adapted, Recorded(support, draw(query_key, adapted, task))


def retrace(
    policy: Model, rates: Array, params: Params, support: Samples, *, estimator: Estimator = exact
) -> Params:
    """The inner steps on recorded trajectories, from any initial parameters.

    From the parameters that `play` started at, the result is that of `play`. It is differentiable,
    because the trajectories are constant. A line search can try other parameters without new
    trajectories.

    Raises:
        InputError: if there are not as many rates as steps in `support`.
    """
    if len(rates) != (recorded := leading_axis(support)):
        raise InputError(f"{len(rates)} rates for {recorded} recorded steps: give one per step")

    def loss(params: Params, key: None, samples: Samples) -> tuple[Scalar, Metrics]:
        del key  # the trajectories are recorded, so nothing is drawn
        return policy_loss(policy, params, samples), {}

    for i in range(len(rates)):
        samples = jax.tree.map(lambda leaf, i=i: leaf[i], support)
        params, _ = descend(
            loss,
            params,
            scale_by_rates(),
            samples,
            steps=1,
            estimator=estimator,
            rates=rates[i : i + 1],
        )
    return params


def maml(
    policy: Model, draw: Draw, *, rates: Rates, steps: int, estimator: Estimator = exact
) -> MetaLearner:
    """The learner. The `support` of an episode is a task, and its `query` is not used.

    `adapt` plays the task. `predict` returns the distribution of actions. `grad` is the gradient of
    `policy_loss` of the adapted policy, on trajectories of that policy. `steps=0` learns one policy
    for all tasks.
    """
    trained_steps = steps

    def adapt(key: Key, params: Params, support: PyTree, steps: int | None = None) -> Params:
        depth = rates_of(rates, trained_steps if steps is None else steps)
        return play(policy, draw, depth, key, params, support)[0]

    def predict(
        adapted: Params, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Gaussian:
        return policy.apply(adapted, x, key=key, weight=weight)

    def grad(key: Key, step: Count, params: Params, episode: Episode) -> tuple[Grads, Metrics]:
        del step  # the objective does not change with training time
        depth = rates_of(rates, trained_steps)
        _, played = play(policy, draw, depth, key, params, episode.support)

        def query_loss(params: Params) -> Scalar:
            adapted = retrace(policy, depth, params, played.support, estimator=estimator)
            return policy_loss(policy, adapted, played.query)

        return jax.grad(query_loss)(params), _ends(played)

    return MetaLearner(policy.init, adapt, predict, grad)


def trpo_step(
    policy: Model,
    draw: Draw,
    *,
    rates: Rates,
    steps: int,
    estimator: Estimator = exact,
    thin: int = 5,
    axis_name: str | None = None,
    **region: Any,
) -> StepFn:
    """A meta-iteration on tasks along the leading axis of a batch. It uses no optimiser state.

    It plays all tasks before and after the inner steps. Then `trust_region` moves the initial
    parameters: the adapted policies improve, and their divergence from the old ones stays small.
    All tasks have equal weight. `steps=0` is TRPO on all tasks jointly.

    Args:
        thin: the Hessian of the divergence uses every `thin`-th step of the trajectories, of both
            the support and the query. Gradient and line search use all steps.
        region: more arguments of `trust_region`.

    Metrics: the mean returns `before` and `after` the inner steps, and those of `trust_region`.
    """

    def adapted(params: Params, played: Recorded) -> Gaussian:
        support, query = played
        end = retrace(policy, rates_of(rates, steps), params, support, estimator=estimator)
        return policy.apply(end, query.obs)

    def step(key: Key, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        keys = task_keys(key, leading_axis(batch), axis_name)
        played = jax.vmap(
            lambda key, task: play(policy, draw, rates_of(rates, steps), key, state.params, task)[1]
        )(keys, batch)
        query = played.query
        # Axes: [tasks, inner steps, time, ...] in the support, and [tasks, time, ...] in the query.
        thinned = Recorded(
            jax.tree.map(lambda leaf: leaf[:, :, ::thin], played.support),
            jax.tree.map(lambda leaf: leaf[:, ::thin], query),
        )

        def surrogate(old: Gaussian, new: Gaussian) -> Scalar:
            ratio = jnp.exp(new.log_prob(query.action) - old.log_prob(query.action))
            return -_mean_over_tasks(ratio * query.advantage, query.mask)

        def on(some: Recorded) -> tuple[Callable[[Params], Gaussian], Compare]:
            def divergence(old: Gaussian, new: Gaussian) -> Scalar:
                return _mean_over_tasks(kl_divergence(old, new), some.query.mask)

            return lambda params: jax.vmap(adapted, (None, 0))(params, some), divergence

        predict, divergence = on(played)
        params, metrics = trust_region(
            predict,
            surrogate,
            divergence,
            state.params,
            curvature=on(thinned),
            axis_name=axis_name,
            **region,
        )
        ends = jax.tree.map(jnp.mean, jax.vmap(_ends)(played))
        if axis_name is not None:
            ends = lax.pmean(ends, axis_name)
        return state._replace(step=state.step + 1, params=params), ends | metrics

    return step


def returns(played: Recorded) -> Float[Array, " depths"]:
    """The mean return in a task `[steps + 1]`: before the first inner step, and after each."""
    before = jnp.mean(jnp.sum(played.support.reward, axis=1), axis=1)
    return jnp.append(before, jnp.mean(jnp.sum(played.query.reward, axis=0)))


def _ends(played: Recorded) -> Metrics:
    along = returns(played)
    return {"before": along[0], "after": along[-1]}


def _mean(values: Float[Array, "*shape"], mask: Float[Array, "*shape"]) -> Scalar:
    """The mean over the steps of mask 1."""
    return weighted_mean(values.ravel(), mask.ravel())


def _mean_over_tasks(
    values: Float[Array, " tasks *shape"], mask: Float[Array, " tasks *shape"]
) -> Scalar:
    return jnp.mean(jax.vmap(_mean)(values, mask))
