"""Frozen layers, probes and gradual unfreezing, against closed forms and separate optimisers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import LogisticRegression

from jaxdl.errors import InputError
from jaxdl.grads import supervised
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.optim.transfer import NEVER, only, starting, unfreezing, with_new_head
from jaxdl.types import Batch, Model

RNG = np.random.default_rng(0)
LAYERS = ("top", "middle", "bottom")


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


NET = {name: {"kernel": normal(3, 2), "bias": normal(2)} for name in LAYERS}
GRADS = jax.tree.map(lambda leaf: normal(9, *leaf.shape), NET)


def trained(tx, params, grads):
    """Parameters before the first and after each step on given gradients, and the last state."""

    def step(carry, grad):
        params, state = carry
        updates, state = tx.update(grad, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    (_, state), found = jax.lax.scan(step, (params, tx.init(params)), grads)
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), params, found), state


# With moments, a bias correction, decay and a schedule: all would show an earlier begin.
ADAMW = optax.adamw(optax.linear_schedule(0.1, 0.01, 5), weight_decay=0.1)


def by_starts(starts):
    return trained(unfreezing(ADAMW, layers=LAYERS, starts=starts), NET, GRADS)[0]


staged, alone = jax.jit(by_starts), jax.jit(lambda *args: trained(ADAMW, *args)[0])


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one, other)


def cut(tree, where):
    return jax.tree.map(lambda leaf: leaf[where], tree)


@pytest.mark.parametrize("starts", [(0, 3, 7), (2, 0, 9)])
def test_each_layer_begins_at_its_step_as_an_optimiser_of_its_own_would(starts):
    found = staged(jnp.array(starts))
    for name, start in zip(LAYERS, starts, strict=True):
        for step in range(start + 1):
            equal(cut(found[name], step), NET[name])
        shifted = jax.tree.map(lambda leaf: jnp.roll(leaf, -start, axis=0), GRADS[name])  # noqa: B023
        expected = cut(alone(NET[name], shifted), slice(10 - start))
        close(cut(found[name], slice(start, None)), expected)
        if start < 9:
            assert (cut(found[name], start + 1)["bias"] != NET[name]["bias"]).all()


def test_what_waits_keeps_its_state_whatever_the_gradient():
    wild = jax.tree.map(lambda leaf: leaf * jnp.nan, GRADS)
    found, state = jax.jit(lambda: trained(starting(ADAMW, 9), NET, wild))()
    equal(cut(found, -1), NET)
    equal(state.inner, ADAMW.init(NET))


def test_starts_are_numbers_that_the_runs_of_one_program_have_each_for_itself():
    starts = jnp.array([[0, 3, 7], [0, NEVER, NEVER], [0, 0, 0]])
    together = jax.jit(jax.vmap(by_starts))(starts)
    for i, own in enumerate(starts):
        close(cut(together, i), staged(own))


def test_layers_that_belong_together_begin_together():
    grouped = unfreezing(ADAMW, layers=("top", ("middle", "bottom")), starts=(0, 4))
    found, _ = jax.jit(lambda: trained(grouped, NET, GRADS))()
    close(found, staged(jnp.array([0, 4, 4])))


def linear():
    """A frozen nonlinear trunk, and a linear head without a bias."""

    def apply(params, x, *, key=None, weight=None):
        return jnp.tanh(x @ params["trunk"]) @ params["head"]

    return Model(lambda key, x: None, apply)


X, TRUNK = normal(60, 4), normal(4, 3)
PROBES = {
    "only": lambda tx: only(tx, ("head",)),
    "unfreezing": lambda tx: unfreezing(tx, layers=("head", "trunk"), starts=(0, NEVER)),
}


def probed(probe, loss, y, decay, lr):
    """The net after gradient descent of the head to its end."""
    tx = PROBES[probe](optax.chain(optax.add_decayed_weights(decay), optax.sgd(lr)))
    outputs = y.shape[1] if y.ndim > 1 else 3
    params = {"trunk": TRUNK, "head": jnp.zeros((3, outputs))}
    grad = supervised(linear(), loss)

    @jax.jit
    def run(params):
        def step(i, carry):
            params, state = carry
            updates, state = tx.update(grad(None, i, params, Batch(X, y))[0], state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, 2000, step, (params, tx.init(params)))[0]

    found = run(params)
    np.testing.assert_array_equal(found["trunk"], TRUNK)
    return found["head"]


@pytest.mark.parametrize("probe", PROBES)
def test_a_probe_ends_in_ridge_regression_on_the_features(probe):
    y, decay = normal(60, 2), 0.1
    found = probed(probe, mean_squared_error, y, decay, 0.2)
    features = np.tanh(np.asarray(X, np.float64) @ np.asarray(TRUNK, np.float64))
    # The loss is the mean over the 120 numbers of y; half its gradient and that of decay meet at 0.
    gram = features.T @ features + decay * 60 * np.eye(3)
    expected = np.linalg.solve(gram, features.T @ np.asarray(y, np.float64))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_probe_ends_where_scikit_learns_logistic_regression_does():
    y, decay = jnp.asarray(RNG.integers(0, 3, 60)), 0.01
    found = probed("only", cross_entropy, y, decay, 1.0)
    features = np.tanh(np.asarray(X, np.float64) @ np.asarray(TRUNK, np.float64))
    theirs = LogisticRegression(C=1 / (60 * decay), fit_intercept=False, tol=1e-10, max_iter=1000)
    np.testing.assert_allclose(found, theirs.fit(features, y).coef_.T, rtol=1e-3, atol=1e-5)


def test_what_is_frozen_by_only_has_no_moments():
    state = only(optax.adam(0.1), ("top",)).init(NET)
    assert sorted(leaf.shape for leaf in jax.tree.leaves(state)) == [(), (2,), (2,), (3, 2), (3, 2)]


def test_a_new_head_on_the_trained_trunk():
    fresh = {**jax.tree.map(jnp.zeros_like, NET), "top": {"kernel": normal(3, 7)}}
    net = with_new_head(NET, fresh, head="top")
    equal(net, {**NET, "top": fresh["top"]})
    net = with_new_head(NET, fresh, head=("middle", "top"))
    equal(net, {"bottom": NET["bottom"], "middle": fresh["middle"], "top": fresh["top"]})


@pytest.mark.parametrize(
    ("attempt", "says"),
    [
        (lambda: with_new_head(NET, NET, head="fc"), "no layer fc: choose among bottom middle"),
        (
            lambda: with_new_head(NET, {**NET, "middle": {"kernel": normal(3, 1)}}, head="top"),
            r"middle/bias is \(2,\) in the trained net and absent in the new one",
        ),
        (lambda: only(optax.sgd(1.0), ("fc",)).init(NET), "no layer fc"),
        (lambda: unfreezing(optax.sgd(1.0), layers=LAYERS, starts=(0, 1)), "for 3 layers"),
        (
            lambda: unfreezing(optax.sgd(1.0), layers=("top", ("top", "middle")), starts=(0, 1)),
            "name each once",
        ),
        (
            lambda: unfreezing(optax.sgd(1.0), layers=LAYERS[:2], starts=(0, 1)).init(NET),
            "the net has bottom too",
        ),
        (
            lambda: unfreezing(optax.sgd(1.0), layers=(*LAYERS, "fc"), starts=(0,) * 4).init(NET),
            "no layer fc",
        ),
    ],
)
def test_wrong_layers_are_named(attempt, says):
    with pytest.raises(InputError, match=says):
        attempt()


def test_parameters_in_bfloat16_stay_so():
    params = {"trunk": jnp.ones(2, jnp.bfloat16), "head": jnp.ones(2, jnp.bfloat16)}
    tx = unfreezing(
        optax.sgd(jnp.float32(0.1), momentum=0.9), layers=["head", "trunk"], starts=[0, 1]
    )
    updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("bfloat16")}


def test_a_single_layer_may_be_its_name():
    params = {"trunk": jnp.ones(2), "head": jnp.ones(2)}
    tx = only(optax.sgd(0.5), "head")
    updates, _ = tx.update(params, tx.init(params), params)
    assert updates["trunk"].tolist() == [0, 0] != updates["head"].tolist()
