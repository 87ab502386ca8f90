"""Nets of many tasks: what is shared, what is not, and the mixture of experts by its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.losses import mean_squared_error
from jaxdl.models.lenet import lenet
from jaxdl.models.mlp import mlp
from jaxdl.models.recurrent import Sequences, lstm
from jaxdl.multitask.gradients import task_losses
from jaxdl.multitask.sharing import hard_sharing, mmoe
from jaxdl.types import Batch

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def dense(params, x):
    return np.asarray(x) @ np.asarray(params["kernel"]) + np.asarray(params["bias"])


def test_every_task_has_a_head_of_its_own_on_one_trunk(key):
    net = hard_sharing(mlp((5,)), [mlp((3,)), mlp((3,)), mlp((7, 2))])
    params = jax.jit(net.init)(key, X)
    predictions = net.apply(params, X)
    features = np.maximum(dense(params.trunk["Dense_0"], X), 0)
    for prediction, head in zip(predictions[:2], params.heads, strict=False):
        close(prediction, dense(head["Dense_0"], features))
    assert predictions[2].shape == (6, 2)
    assert not np.allclose(predictions[0], predictions[1])


def test_heads_that_are_one_model_predict_as_one_by_one(key):
    trunk, head = mlp((5,)), mlp((3,))
    net = hard_sharing(trunk, [head] * 3, between=jnp.tanh)
    params = jax.jit(net.init)(key, X)
    features = jnp.tanh(trunk.apply(params.trunk, X))
    predictions = net.apply(params, X)
    for prediction, own in zip(predictions, params.heads, strict=True):
        close(prediction, head.apply(own, features))
    assert not np.allclose(predictions[0], predictions[1])


def test_a_net_for_images_serves_as_trunk(key):
    net = hard_sharing(lenet(84), [mlp((10,))] * 2)
    images = jax.ShapeDtypeStruct((7, 28, 28, 1), jnp.float32)
    params = jax.eval_shape(net.init, key, images)
    assert [out.shape for out in jax.eval_shape(net.apply, params, images)] == [(7, 10)] * 2


def test_tasks_may_have_inputs_of_their_own(key):
    net = hard_sharing(mlp((5,)), [mlp((3,)), mlp((1,))])
    params = jax.jit(net.init)(key, (X, X[:2]))
    first, second = net.apply(params, (X, 2 * X[:2]))
    close(first, net.apply(params, X)[0])
    close(second, net.apply(params, 2 * X[:2])[1])


def test_a_mixture_of_experts_is_its_formula(key):
    net = mmoe(mlp((5,)), [mlp((3,)), mlp((2,))], experts=4, gate=mlp((4,)))
    params = jax.jit(net.init)(key, X)
    experts = params.trunk["Dense_0"]
    outputs = [
        np.maximum(dense({"kernel": kernel, "bias": bias}, X), 0)
        for kernel, bias in zip(experts["kernel"], experts["bias"], strict=True)
    ]
    assert not np.allclose(outputs[0], outputs[1])
    for prediction, (gate, head) in zip(net.apply(params, X), params.heads, strict=True):
        logits = np.asarray(dense(gate["Dense_0"], X), np.float64)
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        mixture = sum(shares[:, [e]] * outputs[e] for e in range(4))
        close(prediction, dense(head["Dense_0"], mixture))


def test_a_mixture_of_one_expert_is_hard_sharing(key):
    heads = [mlp((3,))] * 2
    mixed = mmoe(mlp((5,)), heads, experts=1, gate=mlp((1,)))
    params = jax.jit(mixed.init)(key, X)
    trunk = jax.tree.map(lambda leaf: leaf[0], params.trunk)
    hard = hard_sharing(mlp((5,)), heads)
    same = params._replace(trunk=trunk, heads=tuple(head for _, head in params.heads))
    for a, b in zip(mixed.apply(params, X), hard.apply(same, X), strict=True):
        close(a, b)


def test_what_makes_no_net_is_refused(key):
    with pytest.raises(InputError, match="one head per task"):
        hard_sharing(mlp((5,)), [])
    with pytest.raises(InputError, match="at least one expert"):
        mmoe(mlp((5,)), [mlp((3,))], experts=0, gate=mlp((1,)))
    with pytest.raises(InputError, match="gate of 4 experts gives 3 logits"):
        mmoe(mlp((5,)), [mlp((3,))], experts=4, gate=mlp((3,))).init(key, X)


def test_a_row_counts_in_the_trunk_as_in_the_task_where_it_counts_most(key):
    """As in training, so that the two say the same."""
    net = hard_sharing(mlp((4, 4), norm="batch"), [mlp((1,))] * 2)
    params = net.init(key, X)
    weights = jnp.array([1, 1, 1, 0, 0, 0.0]), jnp.array([1, 1, 1, 1, 0, 0.0])
    found = net.apply(params, X, weight=weights)
    swapped = net.apply(params, X, weight=weights[::-1])
    close(found[0], swapped[0])
    batch = Batch(X, jnp.zeros((6, 2, 1)), jnp.stack(weights, axis=1))
    losses = task_losses(net, mean_squared_error)(params, None, batch)[0]
    for prediction, weight, loss in zip(found, weights, losses, strict=True):
        close(jnp.sum(weight * prediction[:, 0] ** 2) / weight.sum(), loss)


def test_a_named_tuple_is_one_input_for_all_tasks(key):
    sequences = Sequences(jnp.ones((3, 5, 2)), jnp.array([1, 5, 2]))
    for tasks in (2, 3):
        net = hard_sharing(lstm(hidden=4, out=None), [mlp((1,))] * tasks)
        predictions = net.apply(net.init(key, sequences), sequences)
        assert [each.shape for each in predictions] == [(3, 1)] * tasks


def test_tasks_with_inputs_of_their_own_drop_other_features(key):
    net = hard_sharing(mlp((50, 50), dropout=0.5), [mlp((1,))] * 2)
    params = net.init(key, (X, X))
    params = params._replace(heads=(params.heads[0],) * 2)
    one, other = net.apply(params, (X, X), key=jax.random.key(1))
    assert not np.allclose(one, other)
    close(*net.apply(params, (X, X)))
