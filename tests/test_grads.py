"""The wrappers of GradFn give the gradient that they promise, however the work is cut."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxdl.errors import InputError
from jaxdl.grads import (
    of_loss,
    over_devices,
    over_microbatches,
    over_tasks,
    supervised,
)
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.models.linen import stateful
from jaxdl.types import Batch, Model

LINEAR = Model(
    init=lambda key, x: jnp.zeros((x.shape[1], 1)),
    apply=lambda params, x, *, key=None, weight=None: x @ params,
)
STEP = jnp.int32(0)


def noisy(params, key, task, step):
    """A loss that draws random numbers, so that every task's key counts."""
    value = jnp.sum((params - task) ** 2) * jax.random.uniform(key)
    return value, {"loss": value}


def tasks(count=6):
    return jax.random.normal(jax.random.key(1), (count, 3))


def close(found, expected, rtol=2e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol), found, expected)


def test_supervised_is_the_least_squares_gradient(key):
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(5, 3)), rng.normal(size=(5, 1)), rng.normal(size=(3, 1))
    with jax.enable_x64(True):
        grads, metrics = supervised(LINEAR, mean_squared_error)(
            key, STEP, jnp.asarray(w), Batch(jnp.asarray(x), jnp.asarray(y))
        )
    np.testing.assert_allclose(grads, 2 / 5 * x.T @ (x @ w - y), rtol=1e-12)
    np.testing.assert_allclose(metrics["loss"], np.mean((x @ w - y) ** 2), rtol=1e-12)


@pytest.mark.parametrize("chunk", [None, 1, 2, 3, 6, 100])
def test_over_tasks_is_the_mean_over_tasks_with_keys_of_their_own(chunk, key):
    grad, params, batch = of_loss(noisy), jnp.ones(3), tasks()
    keys = [jax.random.fold_in(key, index) for index in range(6)]
    each = [grad(k, STEP, params, task) for k, task in zip(keys, batch, strict=True)]
    expected = jax.tree.map(lambda *leaves: sum(leaves) / 6, *each)
    close(over_tasks(grad, chunk=chunk)(key, STEP, params, batch), expected)


def scaled(loss):
    """A gradient that is more than that of a loss: `over_tasks` needs those of all tasks."""
    grad = of_loss(loss)

    def twice(*args):
        found, metrics = grad(*args)
        return jax.tree.map(lambda leaf: 2 * leaf, found), metrics

    return twice


@pytest.mark.parametrize("chunk", [None, 2])
def test_the_gradient_of_the_mean_is_the_mean_of_the_gradients(chunk, key):
    params, batch = jnp.ones(3), tasks()
    once, metrics = over_tasks(of_loss(noisy), chunk=chunk)(key, STEP, params, batch)
    close(over_tasks(scaled(noisy), chunk=chunk)(key, STEP, params, batch), (2 * once, metrics))


def more_metrics(grad):
    """Another key, another batch and one more metric: the gradient stays as it is."""

    def changed(key, step, params, task):
        found, metrics = grad(jax.random.fold_in(key, 7), step, params, task + 1)
        return found, {**metrics, "step": step}

    return changed


def clipped(grad):
    def changed(*args):
        found, metrics = grad(*args)
        return jax.tree.map(lambda leaf: jnp.clip(leaf, -1, 1), found), metrics

    return changed


def with_norm(grad):
    def changed(*args):
        found, metrics = grad(*args)
        return found, {**metrics, "norm": optax.tree.norm(found)}

    return changed


def with_decay(grad):
    def changed(key, step, params, task):
        found, metrics = grad(key, step, params, task)
        return jax.tree.map(lambda g, p: g + 0.1 * p, found, params), metrics

    return changed


def of_two_draws(grad):
    def changed(key, *args):
        _, metrics = grad(jax.random.fold_in(key, 1), *args)
        return grad(jax.random.fold_in(key, 2), *args)[0], metrics

    return changed


@pytest.mark.parametrize("wrap", [more_metrics, clipped, with_norm, with_decay, of_two_draws])
def test_a_wrapped_gradient_is_the_mean_over_tasks_of_what_the_wrapper_gives(wrap, key):
    grad, params, batch = wrap(of_loss(noisy)), jnp.ones(3), tasks()
    keys = [jax.random.fold_in(key, index) for index in range(6)]
    each = [grad(k, STEP, params, task) for k, task in zip(keys, batch, strict=True)]
    expected = jax.tree.map(lambda *leaves: sum(leaves) / 6, *each)
    close(over_tasks(grad)(key, STEP, params, batch), expected, rtol=2e-5)


@pytest.mark.parametrize("wrap", [lambda grad: grad, more_metrics, scaled, clipped])
def test_no_task_keeps_a_gradient_of_its_own_unless_somebody_looks_at_it(wrap, key):
    def loss(params, key, task, step):
        value = jnp.sum((task @ params) ** 2)
        return value, {"loss": value}

    run = over_tasks(wrap(loss) if wrap is scaled else wrap(of_loss(loss)))
    program = str(jax.make_jaxpr(run)(key, STEP, jnp.ones((7, 11)), jnp.ones((6, 5, 7))))
    assert ("f32[6,7,11]" in program) == (wrap in (scaled, clipped))


def test_a_mistake_inside_a_wrapped_gradient_is_told_as_it_is(key):
    def wrong(*args):
        raise InputError("this is the mistake")

    with pytest.raises(InputError, match="this is the mistake"):
        over_tasks(wrong)(key, STEP, jnp.ones(3), tasks())


def test_an_objective_sees_the_outer_step(key):
    def annealed(params, key, task, step):
        value = jnp.sum(params * task) * 0.5**step
        return value, {"loss": value}

    for chunk in (None, 1):
        run = jax.jit(over_tasks(of_loss(annealed), chunk=chunk))
        first, third = (run(key, jnp.int32(step), jnp.ones(3), tasks())[0] for step in (0, 2))
        close(first, tasks().mean(axis=0), rtol=1e-5)
        close(third, first / 4)


def test_a_chunk_that_does_not_divide_the_tasks_is_refused(key):
    with pytest.raises(InputError, match="chunk=4 does not divide 6"):
        over_tasks(of_loss(noisy), chunk=4)(key, STEP, jnp.ones(3), tasks())


@pytest.mark.parametrize("count", [1, 2, 4])
def test_microbatches_add_up_to_the_batch(count, key):
    x = jax.random.normal(key, (8, 3))
    batch = Batch(x, jnp.sin(x[:, :1]))
    grad, params = supervised(LINEAR, mean_squared_error), jnp.ones((3, 1))
    expected = grad(key, STEP, params, batch)
    close(over_microbatches(grad, count=count)(key, STEP, params, batch), expected)


def test_microbatches_draw_different_random_numbers(key):
    draw = lambda key, step, params, batch: (jax.random.uniform(key), {})  # noqa: E731
    mean, _ = over_microbatches(draw, count=2)(key, STEP, (), jnp.ones(4))
    each = [jax.random.uniform(k) for k in jax.random.split(key)]
    np.testing.assert_allclose(mean, sum(each) / 2, rtol=1e-6)
    assert abs(each[0] - each[1]) > 1e-3


def test_microbatches_that_do_not_divide_the_batch_are_refused(key):
    grad = supervised(LINEAR, mean_squared_error)
    with pytest.raises(InputError, match="batch of 8 does not split into 3"):
        over_microbatches(grad, count=3)(key, STEP, jnp.ones((3, 1)), Batch(jnp.ones((8, 3)), 0))


def on_devices(devices, grad, key, params, batch):
    """The gradient and metrics that every device ends with, `[devices, ...]`."""
    run = jax.pmap(grad, axis_name="d", in_axes=(None, None, None, 0), out_axes=0)
    cut = jax.tree.map(lambda leaf: leaf.reshape(devices, -1, *leaf.shape[1:]), batch)
    return run(key, STEP, params, cut)


@pytest.mark.parametrize("devices", [2, 4])
@pytest.mark.parametrize("make", [of_loss, scaled])
def test_devices_agree_with_one_device(devices, make, key):
    """Every task keeps the key of its global index, so the mean is the same to rounding."""
    params, batch = jnp.ones(3), tasks(8)
    expected = over_tasks(make(noisy))(key, STEP, params, batch)
    found = on_devices(devices, over_tasks(make(noisy), axis_name="d"), key, params, batch)
    for device in range(devices):
        close(jax.tree.map(lambda leaf, d=device: leaf[d], found), expected)


def test_every_device_draws_a_dropout_mask_of_its_own(key):
    """The masks of a batch that is shared among devices: the mean over them shows how many."""
    mask = lambda key, step, params, batch: (jax.random.bernoulli(key, 0.5, (64,)) + 0.0, {})  # noqa: E731
    alone = np.asarray([mask(jax.random.fold_in(key, i), 0, 0, 0)[0] for i in range(4)])
    found, _ = on_devices(4, over_devices(mask, "d"), key, (), jnp.ones(4))
    np.testing.assert_allclose(found, np.tile(alone.mean(0), (4, 1)))
    assert len(np.unique(alone, axis=0)) == 4


def test_devices_are_averaged_over_once(key):
    for grad in (over_tasks(of_loss(noisy), axis_name="d"), over_devices(of_loss(noisy), "d")):
        with pytest.raises(InputError, match="averaged over devices already: leave out over_dev"):
            over_devices(grad, "d")
    assert over_devices(over_tasks(of_loss(noisy)), None)  # on one device nothing is to be said


def weighted_problem():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 1))
    weight = np.array([1, 2, 0, 1, 0, 0, 0, 0.0])  # the second half is padding
    return jnp.ones((3, 1)), Batch(*(jnp.asarray(a, jnp.float32) for a in (x, y, weight)))


@pytest.mark.parametrize("devices", [2, 4])
def test_a_device_counts_as_much_as_its_examples(devices, key):
    """Padding on one of them alone halves nothing."""
    params, batch = weighted_problem()
    expected = supervised(LINEAR, mean_squared_error)(key, STEP, params, batch)
    grad = over_devices(supervised(LINEAR, mean_squared_error), "d")
    found = on_devices(devices, grad, key, params, batch)
    for device in range(devices):
        close(jax.tree.map(lambda leaf, d=device: leaf[d], found), expected)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_a_microbatch_counts_as_much_as_its_examples(count, key):
    params, batch = weighted_problem()
    grad = supervised(LINEAR, mean_squared_error)
    expected = grad(key, STEP, params, batch)
    close(over_microbatches(grad, count=count)(key, STEP, params, batch), expected)


def test_weighted_slices_are_not_averaged_over_devices_one_by_one(key):
    params, batch = weighted_problem()
    grad = over_microbatches(over_devices(supervised(LINEAR, mean_squared_error), "d"), count=2)
    with pytest.raises(InputError, match=r"write over_devices\(over_microbatches"):
        on_devices(2, grad, key, params, batch)
    right = over_devices(over_microbatches(supervised(LINEAR, mean_squared_error), count=2), "d")
    expected = supervised(LINEAR, mean_squared_error)(key, STEP, params, batch)
    found = on_devices(2, right, key, params, batch)
    close(jax.tree.map(lambda leaf: leaf[0], found), expected)


def test_a_batch_of_nothing_but_padding_has_no_gradient(key):
    params, batch = weighted_problem()
    empty = batch._replace(weight=jnp.zeros(8))
    for count in (1, 4):
        grad = over_microbatches(supervised(LINEAR, mean_squared_error), count=count)
        found = grad(key, STEP, params, empty)
        assert all(not np.any(leaf) for leaf in jax.tree.leaves(found))


def test_an_input_of_weight_zero_reaches_no_gradient(key):
    params, batch = weighted_problem()
    spoilt = batch._replace(x=batch.x.at[2].set(jnp.nan).at[5, 1].set(jnp.inf))
    for grad in (supervised(LINEAR, mean_squared_error),):
        close(grad(key, STEP, params, spoilt), grad(key, STEP, params, batch))
    assert np.isnan(grad(key, STEP, params, spoilt._replace(weight=None))[0]).all()


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (nn.Dense(3), r"Dense is no Model: make one of a Flax module by jaxdl.pure"),
        (nn.Dense, "Dense is no Model: .*pure"),
        (lambda params, x: x, "function is no Model"),
        (
            Model(lambda key, x: (), lambda params, x: x),
            r"apply of this Model takes no key: write apply",
        ),
        (Model(lambda key, x: (), lambda params, x, key=None: x), "takes no weights"),
        (
            stateful(nn.BatchNorm(), train_arg="use_running_average"),
            "is a StatefulModel.*supervised_step",
        ),
    ],
)
def test_what_is_no_model_is_refused(model, sentence):
    with pytest.raises(InputError, match=sentence):
        supervised(model, mean_squared_error)


def test_dropout_key_reaches_the_model(key):
    model = Model(
        init=lambda key, x: jnp.zeros(()),
        apply=lambda params, x, *, key=None, weight=None: (
            x * params + jax.random.normal(key, x.shape)
        ),
    )
    batch = Batch(jnp.ones((4, 3)), jnp.zeros(4, int))
    losses = [
        supervised(model, cross_entropy)(jax.random.key(seed), STEP, jnp.ones(()), batch)[1]["loss"]
        for seed in (0, 1)
    ]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("value", [True, np.uint8(100), np.int8(100)])
@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_metrics_of_bools_and_bytes_have_their_mean(value, chunk, key):
    """A sum of bools is a bool, and one of bytes wraps."""

    def loss(params, key, task, step=None):
        total = jnp.sum((params - jnp.mean(task)) ** 2)
        return total, {"loss": total, "found": jnp.full((), value)}

    grad = over_tasks(of_loss(loss), chunk=chunk)
    found = grad(key, STEP, jnp.zeros(3), tasks(4))[1]["found"]
    assert float(found) == float(value)
    batch = over_microbatches(of_loss(loss), count=2)
    assert float(batch(key, STEP, jnp.zeros(3), tasks(4))[1]["found"]) == float(value)
