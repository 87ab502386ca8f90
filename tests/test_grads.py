"""The wrappers of GradFn give the gradient that they promise, however the work is cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxdl.errors import InputError
from jaxdl.grads import (
    of_loss,
    over_devices,
    over_microbatches,
    over_tasks,
    supervised,
    together,
)
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.types import Batch, Model

LINEAR = Model(
    init=lambda key, x: jnp.zeros((x.shape[1], 1)),
    apply=lambda params, x, *, key=None: x @ params,
)
STEP = jnp.int32(0)


def noisy(params, key, task):
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


def any_grad(loss):
    """The gradient of a loss as a function that `over_tasks` cannot look into."""
    grad = of_loss(loss)
    return lambda *args: grad(*args)


@pytest.mark.parametrize("chunk", [None, 2])
def test_the_gradient_of_the_mean_is_the_mean_of_the_gradients(chunk, key):
    params, batch = jnp.ones(3), tasks()
    once = over_tasks(of_loss(noisy), chunk=chunk)(key, STEP, params, batch)
    close(once, over_tasks(any_grad(noisy), chunk=chunk)(key, STEP, params, batch))


def test_no_task_keeps_a_gradient_of_its_own_where_a_loss_is_known(key):
    def loss(params, key, task):
        value = jnp.sum((task @ params) ** 2)
        return value, {"loss": value}

    def program(grad):
        run = over_tasks(grad)
        return str(jax.make_jaxpr(run)(key, STEP, jnp.ones((7, 11)), jnp.ones((6, 5, 7))))

    assert "f32[6,7,11]" in program(any_grad(loss))
    assert "f32[6,7,11]" not in program(of_loss(loss))


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


@pytest.mark.parametrize("devices", [2, 4])
@pytest.mark.parametrize("make", [of_loss, any_grad])
def test_devices_agree_with_one_device(devices, make, key):
    """Every task keeps the key of its global index, so the mean is the same to rounding."""
    params, batch = jnp.ones(3), tasks(8)

    def build(axis_name):
        return over_tasks(make(noisy), axis_name=axis_name)

    expected = build(None)(key, STEP, params, batch)
    run = jax.pmap(
        over_devices(build("d"), "d"), axis_name="d", in_axes=(None, None, None, 0), out_axes=0
    )
    found = run(key, STEP, params, batch.reshape(devices, -1, 3))
    for device in range(devices):
        close(jax.tree.map(lambda leaf, d=device: leaf[d], found), expected)


def test_dropout_key_reaches_the_model(key):
    model = Model(
        init=lambda key, x: jnp.zeros(()),
        apply=lambda params, x, *, key=None: x * params + jax.random.normal(key, x.shape),
    )
    batch = Batch(jnp.ones((4, 3)), jnp.zeros(4, int))
    losses = [
        supervised(model, cross_entropy)(jax.random.key(seed), STEP, jnp.ones(()), batch)[1]["loss"]
        for seed in (0, 1)
    ]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("wait", [False, True])
def test_large_parameters_are_updated_in_place(wait):
    """A loop of steps copies a kernel that the backward pass may read after its update."""
    shapes = [(1030, 1031), (1031, 1030), (1030, 4)]

    def loss(params, x):
        for w in params:
            x = jnp.tanh(x @ w)
        return jnp.sum(x)

    def step(_, params):
        grads = jax.grad(loss)(params, jnp.ones((8, 1030)))
        grads = together(grads) if wait else grads
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

    train = jax.jit(lambda params: lax.fori_loop(0, 9, step, params), donate_argnums=0)
    params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    text = train.lower(params).compile().as_text()
    copies = [line for line in text.splitlines() if " copy(" in line and "f32[1031,1030]" in line]
    assert bool(copies) != wait


def test_waiting_changes_no_gradient():
    grads = {"a": jnp.linspace(-1, 1, 2**20), "b": jnp.array([jnp.inf, -2, 3], jnp.bfloat16)}
    waited = jax.jit(together)(grads)
    same = jax.tree.map(lambda a, b: bool((a == b).all()) and a.dtype == b.dtype, grads, waited)
    assert jax.tree.all(same)
    assert together(grads["b"]) is grads["b"]  # small: untouched
