"""No inner steps are ProtoNet; a step by NumPy; the meta-gradient through the initial head."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.meta import estimators
from jaxdl.meta.proto_maml import proto_maml
from jaxdl.meta.protonet import protonet
from jaxdl.types import Batch, Episode, Model

RATE = 0.07
CURVED = Model(
    lambda key, x: jnp.sin(jnp.arange(2.0 * 3)).reshape(2, 3).astype(x.dtype),
    lambda params, x, *, key=None, weight=None: jnp.tanh(x @ params),
)
IDENTITY = Model(lambda key, x: (), lambda params, x, *, key=None, weight=None: x)


def episode():
    """The third class has no support example that counts."""
    x = np.array([[3.0, 0.0], [0.5, 0.3], [0.0, 1.0], [0.9, 0.9]])
    asked = np.array([[0.1, 0.1], [1.0, 0.5], [-0.2, 0.3]])
    support = Batch(x, np.array([0, 0, 1, 2]), np.array([1.0, 3.0, 0.5, 0.0]))
    return jax.tree.map(jnp.asarray, Episode(support, Batch(asked, np.array([0, 1, 1]))))


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def test_without_inner_steps_logits_and_gradients_are_those_of_protonet(key):
    """The logits of a query may differ by a number that all classes share."""
    given = episode()
    learner = proto_maml(CURVED, cross_entropy, ways=4, tx=optax.sgd(RATE), steps=0)
    peer = protonet(CURVED, cross_entropy, ways=4)
    params = peer.init(key, given.query.x)
    found, expected = (
        each.predict(each.adapt(key, params, given.support), given.query.x)
        for each in (learner, peer)
    )
    shift = np.asarray(found - expected)[:, :2]
    np.testing.assert_allclose(shift, shift[:, :1] * np.ones(2), rtol=1e-9)
    assert np.isneginf(found[:, 2:]).all()
    grads = [each.grad(key, jnp.int32(0), params, given)[0] for each in (learner, peer)]
    np.testing.assert_allclose(*grads, rtol=1e-9)


def test_a_step_of_the_head_by_numpy(key):
    """On raw inputs the head alone is adapted."""
    support, query = episode()
    learner = proto_maml(IDENTITY, cross_entropy, ways=4, tx=optax.sgd(RATE), steps=1)
    adapted = learner.adapt(key, (), support)
    x, y, weight = (np.asarray(part)[:3] for part in support)
    means = np.stack([(x[0] + 3 * x[1]) / 4, x[2]])
    kernel, bias = 2 * means.T, -(means**2).sum(axis=1)
    logits = x @ kernel + bias
    errors = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) - np.eye(2)[y]
    errors *= weight[:, None] / weight.sum()
    kernel, bias = kernel - RATE * x.T @ errors, bias - RATE * errors.sum(axis=0)
    np.testing.assert_allclose(
        learner.predict(adapted, query.x)[:, :2], np.asarray(query.x) @ kernel + bias, rtol=1e-9
    )
    assert not adapted.net.kernel[:, 2:].any()  # nothing teaches the head of absent classes


def slope_and_gradient(key, estimator):
    given = episode()
    learner = proto_maml(
        CURVED, cross_entropy, ways=4, tx=optax.sgd(0.5), steps=2, estimator=estimator
    )
    params = learner.init(key, given.query.x)
    direction = jnp.cos(params)

    @jax.jit
    def value(h):
        adapted = learner.adapt(key, params + h * direction, given.support)
        return cross_entropy(learner.predict(adapted, given.query.x), given.query.y)[0]

    grads, _ = jax.jit(learner.grad)(key, jnp.int32(0), params, given)
    return (value(1e-5) - value(-1e-5)) / 2e-5, jnp.vdot(grads, direction)


@pytest.mark.parametrize(
    "estimator", [estimators.exact, estimators.mixed_mode], ids=lambda e: e.__name__
)
def test_the_meta_gradient_is_that_of_finite_differences(estimator, key):
    """Through two steps, and through the head that they start from."""
    np.testing.assert_allclose(*slope_and_gradient(key, estimator), rtol=1e-7)


def test_the_first_order_gradient_passes_through_the_initial_head(key):
    """It is that of the start plus updates that do not change, and of no frozen head."""
    given = episode()
    tx = optax.sgd(0.5)
    learner = proto_maml(
        CURVED, cross_entropy, ways=4, tx=tx, steps=2, estimator=estimators.first_order
    )
    params = learner.init(key, given.query.x)
    start, end = (learner.adapt(key, params, given.support, steps) for steps in (0, 2))
    moves = jax.tree.map(jnp.subtract, end.net, start.net)

    def value(params):
        net = learner.adapt(key, params, given.support, 0).net
        moved = end._replace(net=jax.tree.map(jnp.add, net, moves))
        return cross_entropy(learner.predict(moved, given.query.x), given.query.y)[0]

    grads, _ = learner.grad(key, jnp.int32(0), params, given)
    np.testing.assert_allclose(grads, jax.grad(value)(params), rtol=1e-9)
    slope, _ = slope_and_gradient(key, estimators.exact)
    assert abs(jnp.vdot(grads, jnp.cos(params)) / slope - 1) > 0.01


def test_fewer_than_no_steps_are_refused():
    with pytest.raises(InputError, match=r"`steps=-1`: choose 0 or more inner steps"):
        proto_maml(IDENTITY, cross_entropy, ways=2, tx=optax.sgd(0.1), steps=-1)
