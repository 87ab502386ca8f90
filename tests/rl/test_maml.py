"""MAML by policy gradients against gradients by hand in NumPy float64, and steps made by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.models.mlp import mlp
from jaxdl.rl import point
from jaxdl.rl.gaussian import gaussian_policy
from jaxdl.rl.maml import (
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
from jaxdl.train import init_states, loop, per_seed, run_keys, task_stream
from jaxdl.types import Episode

POLICY = gaussian_policy(mlp((2,)), actions=2)
"""Its mean is linear in the observation, so that its gradients can be written down."""

DRAW = samples_of(POLICY, point.environment, trajectories=4, horizon=6, discount=0.9, trace=0.8)
GOAL = jnp.array([0.1, 0.0])  # a step away, and met now and then
KEY = jax.random.key(3)


def start(seed=0):
    params = POLICY.init(jax.random.key(seed), jnp.zeros((1, 2)))
    return params | {"log_std": jnp.array([-0.5, 0.2])}


@pytest.fixture(scope="module")
def played():
    """Two inner steps, and what they were made of."""
    return jax.jit(partial(play, POLICY, DRAW, halved(0.3)(2)))(KEY, start(), GOAL)


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


def test_policy_gradient_is_that_of_the_formula_and_blind_after_the_end(played):
    samples = first(played[1].support)
    assert 0 < samples.mask.mean() < 1
    value, grads = jax.value_and_grad(policy_loss, argnums=1)(POLICY, start(), samples)
    expected, by_hand = loss_and_grads(start(), samples)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), flat(grads), by_hand)
    after = samples.mask == 0
    dirty = samples._replace(
        obs=jnp.where(after[..., None], 9.0, samples.obs),
        action=jnp.where(after[..., None], -7.0, samples.action),
        advantage=jnp.where(after, 5.0, samples.advantage),
    )
    same = jax.grad(policy_loss, argnums=1)(POLICY, start(), dirty)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), grads, same)


def test_each_inner_step_learns_from_trajectories_of_the_policy_it_has_made(played):
    """Every action is the policy's mean plus its deviation times noise that hardly varies."""
    adapted, (support, query) = played
    params = start()
    for i, rate in enumerate([0.3, 0.15]):
        check_noise(params, first(support, i))
        params = nested(stepped(params, loss_and_grads(params, first(support, i))[1], rate), params)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), adapted, params)
    check_noise(adapted, query)
    again = retrace(POLICY, halved(0.3)(2), start(), support)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), adapted, again)
    assert len({leaf.tobytes() for leaf in map(np.asarray, (*support.action, query.action))}) == 3


def check_noise(params, samples):
    """The actions are those of this policy: standard normal noise is left, tried at 1e-4."""
    policy = POLICY.apply(params, samples.obs)
    noise = np.asarray((samples.action - policy.mean) / jnp.exp(policy.log_std)).ravel()
    assert abs((noise**2).sum() - len(noise)) < 4 * np.sqrt(2 * len(noise))
    assert abs(noise.sum()) < 4 * np.sqrt(len(noise))


def test_meta_gradient_is_that_of_finite_differences_with_the_trajectories_held():
    """Algorithm 3 in NumPy: a step by the formula's gradient, then the loss on later paths."""
    learner = maml(POLICY, DRAW, rates=halved(0.3), steps=1)
    _, episode = play(POLICY, DRAW, halved(0.3)(1), KEY, start(), GOAL)
    found, metrics = jax.jit(learner.grad)(KEY, jnp.int32(0), start(), Episode(GOAL, GOAL))

    def meta_loss(params):
        grads = loss_and_grads(nested(params, start()), first(episode.support))[1]
        adapted = {name: params[name] - 0.3 * grads[name] for name in params}
        return loss_and_grads(nested(adapted, start()), episode.query)[0]

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
    first_order = loss_and_grads(played_to(episode), episode.query)[1]
    assert np.abs(flat(found)["log_std"] - first_order["log_std"]).max() > 0.01


def played_to(episode):
    return retrace(POLICY, halved(0.3)(1), start(), episode.support)


def test_the_learner_adapts_to_any_depth_and_predicts_distributions(played):
    learner = maml(POLICY, DRAW, rates=halved(0.3), steps=1)
    adapted = learner.adapt(KEY, start(), GOAL, 2)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), adapted, played[0])
    same = learner.adapt(KEY, start(), GOAL, 0)
    jax.tree.map(np.testing.assert_array_equal, same, start())
    out = learner.predict(adapted, jnp.ones((7, 2)))
    assert out.mean.shape == out.log_std.shape == (7, 2)


def test_returns_are_undiscounted_sums_by_depth():
    reward = -jnp.arange(24.0).reshape(2, 3, 4)
    support = Samples(*[None] * 2, reward, None, None)
    query = Samples(*[None] * 2, jnp.full((3, 4), -1.0), None, None)
    np.testing.assert_allclose(returns(Episode(support, query)), [-16.5, -52.5, -3])


def run(steps, *, seeds=1, devices=1, every=2):
    """A few meta-iterations on four tasks; the last state and the metrics."""
    axis = "devices" if devices > 1 else None
    step = trpo_step(POLICY, DRAW, rates=halved(0.3), steps=1, thin=2, axis_name=axis)
    keys = run_keys(5, seeds)
    state = init_states(lambda key: POLICY.init(key, jnp.zeros((1, 2))), keys, optax.identity())
    stream = task_stream(point.draw_goal, 4)
    chunks = loop(step, stream, keys, state, steps=steps, every=every, devices=devices)
    _, state, metrics = list(chunks)[-1]
    return state, metrics


@pytest.mark.usefixtures("compiled_once")
def test_devices_and_seeds_side_by_side_equal_one_alone():
    state, metrics = run(2)
    shared, told = run(2, devices=2)
    both, _ = run(2, seeds=2)
    assert 0 < metrics["kl"].max() <= 0.01
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    jax.tree.map(close, state.params, shared.params)
    jax.tree.map(close, metrics, told)
    jax.tree.map(close, per_seed(state.params)[0], per_seed(both.params)[0])
    assert int(both.step) == 2
