"""MAML by policy gradients (Finn, Abbeel, Levine 2017, arXiv:1703.03400, algorithm 3).

An episode's support is no batch but a task, an environment: before every inner step the policy of
that moment plays it anew, and learns from what it met. Outside, `trpo_step` is the paper's TRPO;
the learner's `grad` is the same meta-gradient for an optimiser of Optax.

Which estimator: trajectories are data. As in the authors' code the inner step is the gradient of
the mean of log-probability times advantage over trajectories that stay as they were drawn, and the
meta-gradient differentiates that step. This leaves out that other initial parameters would have
drawn other trajectories: the credit that trajectories before the step earn for what they teach
(E-MAML, arXiv:1803.01118), and half of the Hessian of the expected return (DiCE, arXiv:1802.05098;
ProMP, arXiv:1810.06784). It is biased, and varies less.
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
from jaxdl.meta.inner import Estimator, descend, exact, scale_by_rates
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
    """What a policy gradient learns from: steps `[horizon, trajectories, ...]`, time first.

    `mask` and `reward` are 0 after the end of an episode.
    """

    obs: Array
    action: Array
    reward: Float[Array, "*steps horizon trajectories"]
    mask: Float[Array, "*steps horizon trajectories"]
    advantage: Float[Array, "*steps horizon trajectories"]


class Recorded(NamedTuple):
    """All that was played in a task while a policy adapted to it.

    `support`: what the inner steps learned from, `Samples` with a leading axis `[steps]`, each
    played before its step. `query`: the `Samples` of the adapted policy, played after the last.
    """

    support: Samples
    query: Samples


Draw = Callable[[Key, Params, PyTree], Samples]
"""`(key, params, task) -> samples`: what the policy meets in the task."""

Rates = Callable[[int], Float[Array, " steps"]]
"""`steps -> [steps]`: the sizes of so many inner steps."""


def samples_of(
    policy: Model,
    environment: Callable[[PyTree], tuple[Reset, Step]],
    *,
    trajectories: int,
    horizon: int,
    discount: float = 0.99,
    gae_lambda: float = 1.0,
) -> Draw:
    """Draws trajectories of a policy, with advantages over a baseline fitted to them alone.

    `policy` maps observations to `Gaussian`s, and `environment` a task to reset and step.
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
    """Minus the mean of log-probability times advantage: its gradient is REINFORCE's."""
    log_prob = policy.apply(params, samples.obs).log_prob(samples.action)
    return -_mean(log_prob * samples.advantage, samples.mask)


def halved(rate: float) -> Rates:
    """The paper's inner rates: after the first step half of it (appendix A.2)."""
    return lambda steps: jnp.where(jnp.arange(steps) == 0, rate, rate / 2)


def rates_of(rates: Rates, steps: int) -> Float[Array, " {steps}"]:
    """The sizes of so many inner steps.

    Raises:
        InputError: if there are more or fewer.
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
    """`len(rates)` inner steps in a task, each on trajectories drawn anew.

    Returns:
        The adapted parameters, and all that was played.
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
    """The inner steps on recorded trajectories, from other parameters perhaps.

    From those that played them it leads where `play` led, and is differentiable: the trajectories
    stay. A line search may try other parameters without playing again.

    Raises:
        InputError: not as many rates as steps in `support`.
    """
    if len(rates) != (recorded := leading_axis(support)):
        raise InputError(f"{len(rates)} rates for {recorded} recorded steps: give one per step")

    def loss(params: Params, key: None, samples: Samples) -> tuple[Scalar, Metrics]:
        del key  # everything is recorded
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
    """The learner: an episode's `support` is a task, its `query` is not looked at.

    `adapt` plays the task; `predict` gives the distribution of actions; `grad` is the gradient of
    the adapted policy's `policy_loss` on trajectories of its own. `steps=0` learns one policy for
    all tasks.
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
    """A meta-iteration on tasks along the leading axis of a batch, whose state has no optimiser's.

    All tasks are played before and after the inner steps. Then `trust_region` moves the initial
    parameters, which `region` may say more to, so that the adapted policies improve and stay near
    what they were, each task counting alike. `steps=0` is TRPO on all tasks jointly.

    Args:
        thin: the Hessian of the divergence is taken over every `thin`-th step of the trajectories,
            inside and outside; gradient and line search are over all.

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
        # Tasks, for the support steps, and then time.
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
    """The mean return in a task before the first inner step and after each, `[steps + 1]`."""
    before = jnp.mean(jnp.sum(played.support.reward, axis=1), axis=1)
    return jnp.append(before, jnp.mean(jnp.sum(played.query.reward, axis=0)))


def _ends(played: Recorded) -> Metrics:
    along = returns(played)
    return {"before": along[0], "after": along[-1]}


def _mean(values: Float[Array, "*shape"], mask: Float[Array, "*shape"]) -> Scalar:
    """Over the steps that count."""
    return weighted_mean(values.ravel(), mask.ravel())


def _mean_over_tasks(
    values: Float[Array, " tasks *shape"], mask: Float[Array, " tasks *shape"]
) -> Scalar:
    return jnp.mean(jax.vmap(_mean)(values, mask))
