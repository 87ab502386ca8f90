"""MAML by policy gradients against gradients by hand in NumPy float64, and steps made by hand."""

import inspect
import itertools
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.grads import over_tasks
from jaxdl.models.mlp import mlp
from jaxdl.rl import point
from jaxdl.rl.gaussian import gaussian_policy, kl_divergence
from jaxdl.rl.maml_trpo import (
    Recorded,
    Samples,
    halved,
    maml,
    play,
    policy_loss,
    retrace,
    returns,
    samples_of,
    trpo_step,
)
from jaxdl.types import Episode, MetaLearner, TrainState

POLICY = gaussian_policy(mlp((2,)), actions=2)
"""Its mean is linear in the observation, so that its gradients can be written down."""


def easy(goal):
    """The plane, where a goal is reached from afar, so that episodes end."""
    reset, step = point.environment(goal)

    def easy_step(key, state, action):
        outcome = step(key, state, action)
        return outcome._replace(terminated=outcome.reward > -0.07)

    return reset, easy_step


PLAIN = samples_of(POLICY, easy, trajectories=4, horizon=6, discount=0.9, gae_lambda=0.8)


def draw(key, params, task):
    """Trajectories whose rewards, which nothing reads but `returns`, tell who drew them."""
    return PLAIN(key, params, task)._replace(reward=jnp.full((6, 4), params["log_std"][0]))


GOAL = jnp.array([0.12, -0.06])
KEY = jax.random.key(3)


@cache
def start():
    params = POLICY.init(jax.random.key(0), jnp.zeros((1, 2)))
    return params | {"log_std": jnp.array([-0.5, 0.2])}


LEARNER = maml(POLICY, draw, rates=halved(0.3), steps=1)


@pytest.fixture(scope="module")
def made():
    """Two inner steps and what they were made of, and what the learner makes of the same keys."""

    @jax.jit
    def make(params):
        grads = LEARNER.grad(KEY, jnp.int32(0), params, Episode(GOAL, GOAL))
        once, twice = (
            play(POLICY, draw, halved(0.3)(steps), KEY, params, GOAL) for steps in (1, 2)
        )
        again = retrace(POLICY, halved(0.3)(2), params, twice[1].support)
        adapted = LEARNER.adapt(KEY, params, GOAL), LEARNER.adapt(KEY, params, GOAL, 2)
        return once, twice, again, adapted, grads

    return make(start())


def loss_and_grads(params, samples):
    """Minus mean log-probability times advantage, and its gradient, by the formulas."""
    (layer,) = params["net"].values()
    w, b, log_std = (
        np.float64(leaf) for leaf in (layer["kernel"], layer["bias"], params["log_std"])
    )
    obs, action, _, mask, advantage = (np.float64(leaf) for leaf in samples)
    share = mask * advantage / mask.sum()
    away = action - obs @ w - b
    scaled = away / np.exp(log_std)
    log_prob = (-(scaled**2) / 2 - log_std - np.log(2 * np.pi) / 2).sum(-1)
    by_mean = -share[..., None] * away / np.exp(2 * log_std)
    grads = {
        "kernel": np.einsum("tnf,tna->fa", obs, by_mean),
        "bias": by_mean.sum((0, 1)),
        "log_std": -(share[..., None] * (scaled**2 - 1)).sum((0, 1)),
    }
    return -(share * log_prob).sum(), grads


def flat(params):
    (layer,) = params["net"].values()
    return {"kernel": layer["kernel"], "bias": layer["bias"], "log_std": params["log_std"]}


def nested(params, like):
    (name,) = like["net"]
    layer = {"kernel": params["kernel"], "bias": params["bias"]}
    return {"net": {name: layer}, "log_std": params["log_std"]}


def stepped(params, grads, rate):
    return jax.tree.map(lambda p, g: np.float64(p) - rate * g, flat(params), grads)


def first(samples, i=0):
    return jax.tree.map(lambda leaf: leaf[i], samples)


def test_policy_gradient_is_that_of_the_formula_and_blind_after_the_end(made):
    samples = first(made[1][1].support)
    assert 0 < samples.mask.mean() < 1
    both = jax.jit(jax.value_and_grad(partial(policy_loss, POLICY)))
    value, grads = both(start(), samples)
    expected, by_hand = loss_and_grads(start(), samples)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), flat(grads), by_hand)
    after = samples.mask == 0
    dirty = samples._replace(
        obs=jnp.where(after[..., None], 9.0, samples.obs),
        action=jnp.where(after[..., None], -7.0, samples.action),
        advantage=jnp.where(after, 5.0, samples.advantage),
    )
    _, same = both(start(), dirty)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), grads, same)


def test_each_inner_step_learns_from_trajectories_of_the_policy_it_has_made(made):
    (once, _), (adapted, (support, query)), again, (by_default, by_learner), _ = made
    params, noises = start(), []
    for i, rate in enumerate([0.3, 0.15]):
        drawn_by(params, first(support, i))
        noises.append(noise(params, first(support, i)))
        params = nested(stepped(params, loss_and_grads(params, first(support, i))[1], rate), params)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), adapted, params)
    drawn_by(adapted, query)
    for same in (again, by_learner):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), adapted, same)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), once, by_default)
    noises.append(noise(adapted, query))
    for one, other in itertools.combinations(noises, 2):
        assert np.abs(one - other).mean() > 0.5  # of independent draws: 1.13


def noise(params, samples):
    """The standard normal draws that the actions were made of."""
    w, b, log_std = (np.float64(flat(params)[name]) for name in ("kernel", "bias", "log_std"))
    return (np.float64(samples.action) - np.float64(samples.obs) @ w - b) / np.exp(log_std)


def drawn_by(params, samples):
    np.testing.assert_allclose(samples.reward, np.full((6, 4), params["log_std"][0]), rtol=1e-4)


def test_meta_gradient_is_that_of_finite_differences_with_the_trajectories_held(made):
    """Algorithm 3 in NumPy: a step by the formula's gradient, then the loss on later paths."""
    (adapted, episode), *_, (found, metrics) = made

    def meta_loss(params):
        grads = loss_and_grads(nested(params, start()), first(episode.support))[1]
        moved = {name: params[name] - 0.3 * grads[name] for name in params}
        return loss_and_grads(nested(moved, start()), episode.query)[0]

    params = {name: np.float64(leaf) for name, leaf in flat(start()).items()}
    for name, leaf in params.items():
        for place in np.ndindex(leaf.shape):
            moved = [dict(params, **{name: leaf.copy()}) for _ in range(2)]
            for sign, each in zip((1, -1), moved, strict=True):
                each[name][place] += sign * 1e-5
            slope = (meta_loss(moved[0]) - meta_loss(moved[1])) / 2e-5
            np.testing.assert_allclose(flat(found)[name][place], slope, rtol=5e-3, atol=1e-4)
    np.testing.assert_allclose([metrics["before"], metrics["after"]], returns(episode), rtol=1e-5)
    # Not that of the loss after the step alone, which first-order MAML would have.
    first_order = loss_and_grads(adapted, episode.query)[1]
    assert np.abs(flat(found)["log_std"] - first_order["log_std"]).max() > 0.01


def test_no_steps_leave_the_parameters_and_predictions_are_distributions():
    same = jax.jit(lambda params: LEARNER.adapt(KEY, params, GOAL, 0))(start())
    jax.tree.map(np.testing.assert_array_equal, same, start())
    out = LEARNER.predict(same, jnp.ones((7, 2)))
    assert out.mean.shape == out.log_std.shape == (7, 2)


# ---- what `tests/meta/test_contract.py` asks of learners whose episodes are batches


def test_is_four_functions_whose_gradients_look_like_params(made):
    assert isinstance(LEARNER, MetaLearner)
    names = [list(inspect.signature(f).parameters) for f in LEARNER]
    assert names[1] == ["key", "params", "support", "steps"]
    assert names[2] == ["adapted", "x", "key", "weight"]
    assert names[3][:3] == ["key", "step", "params"]
    inspect.signature(LEARNER.grad).bind(*range(4))
    *_, (grads, metrics) = made
    same = lambda g, p: np.testing.assert_equal((g.shape, g.dtype), (p.shape, p.dtype))  # noqa: E731
    jax.tree.map(same, grads, start())
    assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in jax.tree.leaves(grads))
    assert set(metrics) == {"before", "after"}
    assert all(np.shape(value) == () and np.isfinite(value) for value in metrics.values())


def test_chunks_of_tasks_do_not_change_the_gradient_and_nobody_looks_at_the_query():
    grad = maml(POLICY, PLAIN, rates=halved(0.3), steps=1).grad
    goals = jax.vmap(point.draw_goal)(jax.random.split(KEY, 4))
    episodes = Episode(goals, jnp.full(4, jnp.nan))

    @jax.jit
    def both(params):
        return [over_tasks(grad, chunk=n)(KEY, jnp.int32(0), params, episodes) for n in (None, 2)]

    whole, chunks = both(start())
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), chunks, whole)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1)])
def test_more_or_fewer_rates_than_inner_steps_are_refused(shape):
    """The number of rates, and not `steps`, used to say how often the policy learns."""
    rates, says = lambda steps: jnp.full(shape, 0.3), r"rates\(2\) gives \[.*\]: return \[2\]"
    learner, state = maml(POLICY, PLAIN, rates=rates, steps=2), TrainState(0, start(), ())
    with pytest.raises(InputError, match=says):
        learner.grad(KEY, jnp.int32(0), start(), Episode(GOAL, GOAL))
    with pytest.raises(InputError, match=says):
        maml(POLICY, PLAIN, rates=rates, steps=1).adapt(KEY, start(), GOAL, 2)
    with pytest.raises(InputError, match=says):
        trpo_step(POLICY, PLAIN, rates=rates, steps=2)(KEY, state, GOAL[None])


def test_more_rates_than_recorded_steps_are_refused():
    support = Samples(*[jnp.zeros((2, 6, 4))] * 5)
    with pytest.raises(InputError, match="3 rates for 2 recorded steps"):
        retrace(POLICY, jnp.full(3, 0.3), start(), support)


def test_returns_are_undiscounted_sums_by_depth():
    reward = -jnp.arange(24.0).reshape(2, 3, 4)
    support = Samples(*[None] * 2, reward, None, None)
    query = Samples(*[None] * 2, jnp.full((3, 4), -1.0), None, None)
    np.testing.assert_allclose(returns(Recorded(support, query)), [-16.5, -52.5, -3])


def test_tasks_shared_among_devices_make_the_same_step(monkeypatch):
    """vmap names an axis as pmap does. The step keeps what the line search promises."""
    lengths, compared = set(), set()

    def watched(policy, rates, params, support, **options):
        lengths.add(support.mask.shape)
        return retrace(policy, rates, params, support, **options)

    def compare(old, new):
        compared.add(old.mean.shape[1:])
        return kl_divergence(old, new)

    monkeypatch.setattr("jaxdl.rl.maml_trpo.retrace", watched)
    monkeypatch.setattr("jaxdl.rl.maml_trpo.kl_divergence", compare)

    def step(axis_name):
        # Few and damped products: the last ones of a tiny problem are made of rounding errors.
        return trpo_step(
            POLICY,
            draw,
            rates=halved(0.3),
            steps=0,
            thin=2,
            axis_name=axis_name,
            cg_steps=4,
            damping=1e-2,
        )

    goals = jax.vmap(point.draw_goal)(jax.random.split(jax.random.key(1), 4))
    state = TrainState(jnp.int32(0), start(), ())
    alone, told = jax.jit(step(None))(KEY, state, goals)
    shared = jax.vmap(step("devices"), (None, None, 0), axis_name="devices")
    both = jax.jit(shared)(KEY, state, goals.reshape(2, 2, 2))
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    for i in range(2):
        jax.tree.map(close, first(both, i), (alone, told))
    # All steps, and every second for the Hessian.
    assert lengths == {(0, 6, 4), (0, 3, 4)}
    assert compared == {(6, 4, 2), (3, 4, 2)}
    assert int(alone.step) == 1
    assert 0 < told["kl"] <= 0.01
    assert told["improvement"] > 0
