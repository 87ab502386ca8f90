"""`pure_nnx` against the same nets in linen, against a MAML written by hand, and its dropout."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

from jaxdl.errors import InputError
from jaxdl.grads import over_tasks
from jaxdl.losses import mean_squared_error
from jaxdl.meta.maml import maml
from jaxdl.models.layers.norm import BatchNorm
from jaxdl.models.linen import pure
from jaxdl.models.nnx import pure_nnx
from jaxdl.runs.checkpoint import Checkpoints
from jaxdl.types import Batch, Episode, Model

KEY = jax.random.key(0)
ONES = jnp.ones((100, 40))


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def close(found, expected, rtol=1e-5):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=1e-6), found, expected)


class Net(nnx.Module):
    """Layers that have twins in linen, under the same names."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.group = nnx.GroupNorm(4, num_groups=2, rngs=rngs)
        self.layer = nnx.LayerNorm(4, rngs=rngs)
        self.out = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = jnp.tanh(self.group(self.conv(x))).mean((1, 2))
        return self.out(self.layer(x))


class Twin(nn.Module):
    def setup(self):
        self.conv = nn.Conv(4, (3, 3))
        self.group = nn.GroupNorm(2)
        self.layer = nn.LayerNorm()
        self.out = nn.Dense(3)

    __call__ = Net.__call__


class Dense(nnx.Module):
    """One hidden layer with dropout, for sine waves."""

    def __init__(self, rngs, rate=0.0):
        self.hidden = nnx.Linear(1, 8, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.out = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(self.dropout(jnp.tanh(self.hidden(x))))


def test_the_same_numbers_as_linen_and_the_same_second_derivatives():
    model, twin, x = pure_nnx(Net), pure(Twin()), normal(5, 6, 6, 2)
    params = model.init(KEY, x)
    like = jax.eval_shape(twin.init, KEY, x)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, like)
    close(model.apply(params, x), twin.apply(params, x))

    def curvature(model):
        def loss(params):
            return jnp.mean(jnp.sin(model.apply(params, x)))

        def size(params):
            return optax.tree.norm(jax.grad(loss)(params), squared=True)

        return jax.jit(jax.grad(size))(params)

    close(curvature(model), curvature(twin), rtol=1e-4)


def test_parameters_are_drawn_from_the_key_alone():
    model, x = pure_nnx(Dense), jnp.ones((3, 1))
    params = model.init(KEY, x)
    for again in (jax.jit(model.init)(KEY, x), pure_nnx(Dense).init(KEY, x)):
        jax.tree.map(np.testing.assert_array_equal, params, again)
    seeds = jax.vmap(model.init, (0, None))(jax.random.split(KEY, 2), x)
    assert seeds["hidden"]["kernel"].shape == (2, 1, 8)
    for layer in ("hidden", "out"):
        assert not np.array_equal(*seeds[layer]["kernel"])


def episodes(tasks):
    sides = [Batch(normal(tasks, 7, 1, seed=i), normal(tasks, 7, 1, seed=9 + i)) for i in (0, 1)]
    return Episode(*sides)


def test_maml_is_the_one_written_by_hand():
    """Two inner steps, over three tasks under vmap and jit."""
    model, tasks = pure_nnx(Dense), episodes(3)
    params = model.init(KEY, tasks.support.x[0])

    def loss(params, batch):
        hidden, out = params["hidden"], params["out"]
        units = jnp.tanh(batch.x @ hidden["kernel"] + hidden["bias"][None])
        return jnp.mean((units @ out["kernel"] + out["bias"][None] - batch.y) ** 2)

    def after_two_steps(params, episode):
        for _ in range(2):
            slope = jax.grad(loss)(params, episode.support)
            params = jax.tree.map(lambda p, g: p - 0.1 * g, params, slope)
        return loss(params, episode.query)

    def mean(params):
        return jnp.mean(jax.vmap(after_two_steps, (None, 0))(params, tasks))

    learner = maml(model, mean_squared_error, tx=optax.sgd(0.1), steps=2)
    grads, _ = jax.jit(over_tasks(learner.grad))(KEY, 0, params, tasks)
    close(grads, jax.jit(jax.grad(mean))(params))


def test_each_inner_step_drops_other_units():
    """The meta-gradient is that of two steps in a row, with the keys that MAML splits."""
    model = pure_nnx(lambda rngs: Dense(rngs, rate=0.5))
    episode = jax.tree.map(lambda leaf: leaf[0], episodes(1))
    params = model.init(KEY, episode.support.x)

    def loss(params, key, batch):
        return jnp.mean((model.apply(params, batch.x, key=key) - batch.y) ** 2)

    @jax.jit
    @jax.grad
    def unrolled(params, step_keys, query_key):
        for key in step_keys:
            slope = jax.grad(loss)(params, key, episode.support)
            params = jax.tree.map(lambda p, g: p - 0.1 * g, params, slope)
        return loss(params, query_key, episode.query)

    adapt_key, query_key = jax.random.split(KEY)
    first, second = jax.random.split(adapt_key, 2)
    learner = maml(model, mean_squared_error, tx=optax.sgd(0.1), steps=2, inner_dropout=True)
    grads, _ = jax.jit(learner.grad)(KEY, 0, params, episode)
    close(grads, unrolled(params, [first, second], query_key))
    repeated = unrolled(params, [first, first], query_key)
    assert not np.allclose(grads["out"]["kernel"], repeated["out"]["kernel"], rtol=1e-2)


# ---- dropout


class Pair(nnx.Module):
    """Two layers of dropout side by side."""

    def __init__(self, rngs):
        self.left = nnx.Dropout(0.5, rngs=rngs)
        self.right = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return jnp.stack([self.left(x), self.right(x)])


def test_a_key_drops_half_and_none_drops_nothing():
    model = pure_nnx(Pair)
    np.testing.assert_array_equal(model.apply({}, ONES), np.ones((2, 100, 40)))
    dropped = np.asarray(jax.jit(model.apply)({}, ONES, key=KEY))
    assert set(np.unique(dropped)) == {0, 2}
    assert abs(np.mean(dropped == 0) - 0.5) < 4 * 0.5 / np.sqrt(dropped.size)
    np.testing.assert_array_equal(model.apply({}, ONES, key=KEY), dropped)


def agreement(a, b):
    return np.mean(np.asarray(a) == np.asarray(b))


def test_masks_are_independent_among_layers_keys_and_tasks():
    model, keys = pure_nnx(Pair), jax.random.split(KEY, 3)
    masks = jax.vmap(lambda key: model.apply({}, ONES, key=key))(keys)
    for key, mask in zip(keys, masks, strict=True):
        np.testing.assert_array_equal(mask, model.apply({}, ONES, key=key))
    flat = masks.reshape(6, -1)  # 3 keys, 2 layers
    for i in range(6):
        for j in range(i):
            assert abs(agreement(flat[i], flat[j]) - 0.5) < 4 * 0.5 / np.sqrt(flat[0].size)


def test_layers_that_nnx_vmap_stacked_drop_other_units_each():
    class Stack(nnx.Module):
        def __init__(self, rngs):
            make = nnx.vmap(lambda rngs: nnx.Dropout(0.5, rngs=rngs), in_axes=0)
            self.layers = nnx.split_rngs(splits=3)(make)(rngs)

        def __call__(self, x):
            return nnx.vmap(lambda layer, x: layer(x), in_axes=(0, None))(self.layers, x)

    masks = pure_nnx(Stack).apply({}, ONES, key=KEY)
    assert masks.shape == (3, 100, 40)
    assert abs(agreement(masks[0], masks[1]) - 0.5) < 0.04


class Told(nnx.Module):
    """Dropout that an argument of the call switches on."""

    def __init__(self, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, train=False):
        return self.dropout(x, deterministic=not train)


class ToldOtherwise(Told):
    def __call__(self, x, *, learning):
        return self.dropout(x, deterministic=not learning)


class WithRngs(nnx.Module):
    """Dropout that takes its keys in the call."""

    def __init__(self, rngs):
        self.dropout = nnx.Dropout(0.5)

    def __call__(self, x, rngs):
        return self.dropout(x, rngs=rngs)


@pytest.mark.parametrize(
    ("make", "train_arg"),
    [
        (Told, None),
        (ToldOtherwise, "learning"),
        (WithRngs, None),
        (lambda rngs: nnx.Dropout(0.5, deterministic=True, rngs=rngs), None),
    ],
)
def test_a_key_switches_dropout_on_however_nnx_is_told(make, train_arg):
    model = pure_nnx(make, train_arg=train_arg)
    np.testing.assert_array_equal(model.apply({}, ONES), ONES)
    one, two = (model.apply({}, ONES, key=key) for key in jax.random.split(KEY))
    assert abs(np.mean(one == 0) - 0.5) < 0.04
    assert abs(agreement(one, two) - 0.5) < 0.04


def test_the_name_of_the_switch_must_be_one_that_the_net_has():
    with pytest.raises(InputError, match=r"Told.__call__ has no argument 'learning'"):
        pure_nnx(Told, train_arg="learning")


# ---- weights


class Normed(nnx.Module):
    """jaxdl's batch norm inside an nnx module."""

    def __init__(self, rngs):
        self.dense = nnx.Linear(3, 4, rngs=rngs)
        norm = nnx.bridge.ToNNX(BatchNorm("batch"), rngs=rngs)
        self.norm = norm.lazy_init(jnp.ones((2, 4)))

    def __call__(self, x):
        return self.norm(self.dense(x))


def test_weights_reach_a_batch_norm_of_linen_within():
    model, x = pure_nnx(Normed), normal(6, 3)
    params = model.init(KEY, x)
    found = model.apply(params, x, weight=jnp.asarray([1.0, 1, 1, 1, 0, 0]))
    np.testing.assert_allclose(found[:4], model.apply(params, x[:4]), rtol=1e-4, atol=1e-5)
    assert not np.allclose(found[:4], model.apply(params, x)[:4], rtol=1e-2)


def test_weights_reach_a_net_that_has_an_argument_for_them():
    class Centred(nnx.Module):
        def __init__(self, rngs):
            del rngs

        def __call__(self, x, weight=None):
            return x - jnp.average(x, axis=0, weights=weight, keepdims=True)

    model, x = pure_nnx(Centred), normal(3, 2)
    np.testing.assert_allclose(model.apply({}, x), x - x.mean(0, keepdims=True), rtol=1e-6)
    found = model.apply({}, x, weight=jnp.asarray([0.0, 1, 0]))
    np.testing.assert_allclose(found, x - x[1:2], rtol=1e-6)


# ---- what is kept, and what is refused


def test_parameters_go_through_a_checkpoint_and_an_optimiser(tmp_path):
    """Positions in a list become names; constants of NumPy are no parameters."""

    class Listed(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(2, 2, rngs=rngs) for _ in range(3)])
            self.shifts = nnx.List([nnx.Param(jnp.ones((1, 2))), np.asarray([[3, 4]], np.float32)])

        def __call__(self, x):
            for layer in self.layers:
                x = layer(x)
            for shift in self.shifts:
                x = x + shift
            return x

    model, x = pure_nnx(Listed), normal(4, 2)
    params = model.init(KEY, x)
    assert {name: set(part) for name, part in params.items()} == {
        "layers": {"0", "1", "2"},
        "shifts": {"0"},
    }
    y = x
    for i in range(3):
        y = y @ params["layers"][str(i)]["kernel"]
    np.testing.assert_allclose(model.apply(params, x), y + np.asarray([[4, 5]]), rtol=1e-5)

    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, params)
        checkpoints.wait()
        restored = checkpoints.restore(jax.tree.map(jnp.zeros_like, params))
    jax.tree.map(np.testing.assert_array_equal, restored, params)
    tx = optax.adam(0.01)
    grads = jax.grad(lambda p: jnp.sum(model.apply(p, x) ** 2))(params)
    updates, _ = tx.update(grads, tx.init(params), params)
    moved = optax.apply_updates(params, updates)
    assert jax.tree.structure(moved) == jax.tree.structure(params)


def test_a_model_can_be_made_inside_jit():
    params = pure_nnx(Dense).init(KEY, ONES[:, :1])
    inside = jax.jit(lambda params, x: pure_nnx(Dense).apply(params, x, key=KEY))
    expected = pure_nnx(Dense).apply(params, ONES[:, :1], key=KEY)
    np.testing.assert_allclose(inside(params, ONES[:, :1]), expected, rtol=1e-6)


class Counter(nnx.Module):
    def __init__(self, rngs):
        self.inner = nnx.Dict(calls=nnx.Variable(jnp.zeros(())), limit=jnp.ones(()))


class Table(nnx.Module):
    def __init__(self, rngs):
        self.table = jnp.ones(3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            partial(nnx.BatchNorm, 3),
            r"BatchNorm keeps state in \['BatchStat'\] \(mean, var\), .* Use nnx.GroupNorm",
        ),
        (Counter, r"Counter keeps state in \['Variable'\] \(inner.calls\), .* nnx.Params alone"),
        (Table, r"Table keeps arrays of JAX outside of nnx.Param: table. Make a constant"),
        (nnx.Linear(3, 3, rngs=nnx.Rngs(0)), "a function that makes an nnx module, and got Linear"),
        (nn.Dense(3), "and got Dense. .* jaxdl.pure"),
        (None, "and got NoneType"),
        (lambda rngs: nn.Dense(3), "a function that made Dense, which is no nnx module"),
    ],
)
def test_what_cannot_be_a_model_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        pure_nnx(make)


def test_a_module_without_a_border_is_refused_by_learners():
    net: Model = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match=r"Linear is no Model: .* jaxdl.pure_nnx"):
        maml(net, mean_squared_error, tx=optax.sgd(0.1), steps=1)
