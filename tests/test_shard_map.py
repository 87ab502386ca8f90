"""Inside `jax.shard_map`, whose types know which arrays are equal on all devices.

There JAX itself adds up the gradients of what is equal. Each gradient is compared with that of the
whole batch on one device.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxdl.errors import InputError
from jaxdl.grads import of_loss, over_devices, over_microbatches, over_tasks, supervised
from jaxdl.losses import mean_squared_error
from jaxdl.meta.imaml import imaml
from jaxdl.meta.maml import maml
from jaxdl.models.convnet import convnet
from jaxdl.models.layers.conv import conv
from jaxdl.models.mlp import mlp
from jaxdl.models.recurrent import gru
from jaxdl.multitask.gradients import multitask_step
from jaxdl.multitask.pcgrad import pcgrad
from jaxdl.multitask.sharing import hard_sharing
from jaxdl.rl.trpo import trust_region
from jaxdl.train.steps import init_state, supervised_step
from jaxdl.types import Batch, Episode

RNG = np.random.default_rng(0)
X, Y = (jnp.asarray(RNG.normal(size=(8, n)), jnp.float32) for n in (3, 1))
KEY, STEP = jax.random.key(0), jnp.int32(0)


def on_four(f, checked=True):
    """The function of `(params, batch)` on four devices, which share the batch."""
    mesh = Mesh(np.array(jax.devices()[:4]), ("d",))
    specs = {"mesh": mesh, "in_specs": (P(), P("d")), "out_specs": P()}
    return jax.jit(jax.shard_map(f, **specs, check_vma=checked))


def close(found, expected):
    check = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(check, found, expected)


@pytest.mark.parametrize("checked", [True, False])
def test_a_gradient_over_devices_is_that_of_the_batch(checked):
    net = mlp((5, 1))
    params = net.init(KEY, X)
    grad = supervised(net, mean_squared_error)
    of_device = over_devices(grad, "d")
    found = on_four(lambda p, b: of_device(KEY, STEP, p, b), checked)(params, Batch(X, Y))
    close(found, grad(KEY, STEP, params, Batch(X, Y)))


def test_the_gradient_of_a_shared_operand_is_whole():
    """JAX sums it up if the layer tells that its result differs."""
    images = jnp.asarray(RNG.normal(size=(8, 6, 5, 2)), jnp.float32)
    kernel = jnp.asarray(RNG.normal(size=(3, 3, 2, 4)), jnp.float32)

    def loss(kernel, images):
        return jnp.mean(jnp.sin(conv(images, kernel, strides=(2, 1))))

    def shared(kernel, images):
        return jax.lax.pmean(loss(kernel, images), "d")

    found = on_four(jax.grad(shared))(kernel, images)
    close(found, jax.grad(loss)(kernel, images))
    outside = jax.grad(lambda kernel: on_four(shared)(kernel, images))(kernel)
    close(outside, found)
    constant = np.asarray(kernel)  # of NumPy, that the function closes over
    of_images = lambda _, images: jax.lax.pmean(loss(constant, images), "d")  # noqa: E731
    close(on_four(of_images)(kernel, images), loss(kernel, images))
    with pytest.raises(ValueError, match="out_specs"):
        on_four(lambda kernel, images: conv(images, kernel))(kernel, images)


@pytest.mark.parametrize(
    "learner",
    [
        maml(mlp((5, 1)), mean_squared_error, tx=optax.sgd(0.1), steps=2),
        imaml(mlp((4, 1)), mean_squared_error, tx=optax.sgd(0.02), steps=20),
    ],
    ids=["maml", "imaml"],
)
def test_learners_over_tasks(learner):
    x, y = (jnp.asarray(RNG.normal(size=(8, 4, n)), jnp.float32) for n in (3, 1))
    tasks = Episode(Batch(x, y), Batch(x + 1, y))
    params = learner.init(KEY, x[0])
    found = on_four(lambda p, t: over_tasks(learner.grad, axis_name="d")(KEY, STEP, p, t))
    close(found(params, tasks), over_tasks(learner.grad)(KEY, STEP, params, tasks))


def test_a_net_with_running_statistics_takes_the_step_of_the_batch():
    images = jnp.asarray(RNG.normal(size=(8, 8, 8, 1)), jnp.float32)
    batch, tx = Batch(images, jnp.zeros((8, 3))), optax.sgd(0.1)
    whole, split = convnet(3, (2, 2)), convnet(3, (2, 2), axis_name="d")
    params, stats = jax.jit(whole.init)(KEY, images)
    state = init_state(params, tx, stats)
    step = supervised_step(split, mean_squared_error, tx, axis_name="d")
    found, metrics = on_four(lambda s, b: step(KEY, s, b))(state, batch)
    expected = jax.jit(supervised_step(whole, mean_squared_error, tx))(KEY, state, batch)
    close(
        (found.params, found.stats, metrics), (expected[0].params, expected[0].stats, expected[1])
    )


def test_many_tasks():
    net, tx = hard_sharing(mlp((4,)), [mlp((1,))] * 2), optax.sgd(0.1)
    method = pcgrad()
    batch = Batch(X, jnp.stack([Y, -2 * Y], axis=1))
    state = init_state(net.init(KEY, X), optax.chain(method, tx))
    make = partial(multitask_step, net, mean_squared_error, method, tx)
    found = on_four(lambda s, b: make(axis_name="d")(KEY, s, b))(state, batch)
    close(found[0].params, jax.jit(make())(KEY, state, batch)[0].params)


def test_recurrent_nets():
    net, x = gru(hidden=4, out=1), jnp.asarray(RNG.normal(size=(8, 5, 3)), jnp.float32)
    params = net.init(KEY, x)
    grad = supervised(net, mean_squared_error)
    found = on_four(lambda p, b: over_devices(grad, "d")(KEY, STEP, p, b))(params, Batch(x, Y))
    close(found, grad(KEY, STEP, params, Batch(x, Y)))


def test_a_step_that_cannot_know_is_refused():
    def step(params, batch):
        found = trust_region(
            lambda p: p * batch, lambda a, b: jnp.mean(b), lambda a, b: jnp.mean(b), params,
            axis_name="d",
        )  # fmt: skip
        return found[0]

    with pytest.raises(InputError, match="shard_map adds up gradients before their mean is taken"):
        on_four(step)(jnp.float32(1), X)


def test_a_loss_of_ones_own():
    grad = over_devices(of_loss(lambda w, key, b, step=None: (jnp.mean((w - b) ** 2), {})), "d")
    found, _ = on_four(lambda w, b: grad(KEY, STEP, w, b))(jnp.float32(0), jnp.arange(8.0))
    assert float(found) == -7


@pytest.mark.parametrize("chunk", [1, 2])
def test_tasks_and_microbatches_in_chunks(chunk):
    net = mlp((5, 1))
    params, grad = net.init(KEY, X), supervised(net, mean_squared_error)
    tasks = jax.tree.map(lambda leaf: leaf.repeat(2, axis=0)[:, None], Batch(X, Y))
    of_tasks = partial(over_tasks, grad)
    found = on_four(lambda p, t: of_tasks(chunk=chunk, axis_name="d")(KEY, STEP, p, t))
    close(found(params, tasks), of_tasks()(KEY, STEP, params, tasks))
    slices = over_devices(over_microbatches(grad, count=2), "d")
    found = on_four(lambda p, b: slices(KEY, STEP, p, b))(params, Batch(X, Y))
    close(found, grad(KEY, STEP, params, Batch(X, Y)))
