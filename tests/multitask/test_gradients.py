"""Losses and gradients of many tasks equal those of each task alone, and cost what they promise."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.models.lenet import lenet
from jaxdl.models.mlp import mlp
from jaxdl.multitask.combine import TaskMethod
from jaxdl.multitask.equal import equal
from jaxdl.multitask.gradients import multitask_step, task_grads, task_losses
from jaxdl.multitask.pcgrad import pcgrad
from jaxdl.multitask.sharing import TaskParams, hard_sharing, mmoe
from jaxdl.multitask.uncertainty import uncertainty
from jaxdl.train.steps import init_state
from jaxdl.types import Batch

STEP = jnp.int32(0)
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
IMAGES = jnp.asarray(RNG.normal(size=(3, 16, 16, 1)), jnp.float32)
LABELS = jnp.asarray(RNG.integers(3, size=(6, 2)))
VALUES = jnp.asarray(RNG.normal(size=(6, 2)), jnp.float32)

ALIKE = hard_sharing(mlp((5,)), [mlp((3,))] * 2)
MIXED = hard_sharing(mlp((5,)), [mlp((3,)), mlp((4, 2))])
LOSSES = [cross_entropy, mean_squared_error]

CASES = {
    "same inputs, heads alike": (ALIKE, cross_entropy, Batch(X, LABELS)),
    "same inputs, heads and losses differ": (
        MIXED,
        LOSSES,
        Batch(X, (LABELS[:, 0], VALUES)),
    ),
    "same heads, losses differ": (ALIKE, LOSSES, Batch(X, (LABELS[:, 0], X[:, :3]))),
    "labels missing": (
        ALIKE,
        cross_entropy,
        Batch(X, LABELS, jnp.asarray(RNG.integers(2, size=(6, 2)), jnp.float32)),
    ),
    "inputs of their own": (
        ALIKE,
        cross_entropy,
        (Batch(X, LABELS[:, 0]), Batch(2 * X, LABELS[:, 1])),
    ),
    "inputs of unequal number, heads and losses differ": (
        MIXED,
        LOSSES,
        (Batch(X[:4], LABELS[:4, 0]), Batch(2 * X, VALUES)),
    ),
    "experts": (
        mmoe(mlp((5,)), [mlp((3,))] * 2, experts=3, gate=mlp((3,))),
        cross_entropy,
        Batch(X, LABELS),
    ),
    "lenet": (
        hard_sharing(lenet(7), [mlp((3,))] * 2),
        cross_entropy,
        Batch(IMAGES, LABELS[:3]),
    ),
}


def alone(net, loss, batch, task, params):
    """The loss of one task as its own definition has it."""
    if isinstance(batch, Batch):
        y = batch.y[task] if isinstance(batch.y, tuple) else batch.y[:, task]
        weight = None if batch.weight is None else batch.weight[:, task]
        batch = Batch(batch.x, y, weight)
    else:
        batch = batch[task]
    features = net.trunk.apply(params.trunk, batch.x)
    prediction = net.heads[task].apply(params.heads[task], features)
    loss = loss[task] if isinstance(loss, list) else loss
    return loss(prediction, batch.y, batch.weight)[0]


def inputs(batch):
    return batch.x if isinstance(batch, Batch) else tuple(part.x for part in batch)


def close(found, expected, rtol=1e-4, atol=1e-6):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), found, expected
    )


# Convolutions are slow to compile, and no other than products to what is tested here.
SLOW = {"lenet": pytest.mark.slow}


@pytest.mark.parametrize("case", [pytest.param(c, marks=SLOW.get(c, ())) for c in CASES])
def test_each_gradient_is_that_of_its_task_alone(case, key):
    net, loss, batch = CASES[case]
    params = jax.jit(net.init)(key, inputs(batch))

    @jax.jit
    def run(params):
        grads, metrics = task_grads(net, loss)(None, STEP, params, batch)
        losses, same = task_losses(net, loss)(params, None, batch)
        expected = [jax.value_and_grad(partial(alone, net, loss, batch, t))(params) for t in (0, 1)]
        return grads, metrics, losses, same, expected

    grads, metrics, losses, same, expected = run(params)
    close(grads.losses, jnp.stack([value for value, _ in expected]))
    close(losses, grads.losses)
    close(same, metrics)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(g.trunk for _, g in expected))
    close(grads.trunk, stacked)
    close(grads.heads, tuple(g.heads[task] for task, (_, g) in enumerate(expected)))
    close(metrics["loss"], jnp.mean(losses))
    close([metrics["loss/0"], metrics["loss/1"]], list(losses))
    # A figure that not all tasks have is none of the net.
    assert ("accuracy" in metrics) == ("accuracy/1" in metrics) == (loss is cross_entropy)


def cost(method, tasks, width=128):
    """Operations of one compiled training step of a wide trunk with narrow heads."""
    net = hard_sharing(mlp((width, width)), [mlp((1,))] * tasks)
    x, y = jnp.ones((32, width)), jnp.ones((32, tasks, 1))
    tx = optax.sgd(0.1)
    make = lambda key: init_state(net.init(key, x), optax.chain(method, tx))  # noqa: E731
    state = jax.eval_shape(make, jax.random.key(0))
    step = jax.jit(multitask_step(net, mean_squared_error, method, tx))
    return step.lower(jax.random.key(0), state, Batch(x, y)).compile().cost_analysis()["flops"]


def test_weighing_losses_costs_one_gradient_however_many_the_tasks():
    learned = cost(equal(), 2), cost(uncertainty(tasks=12, tx=optax.sgd(0.1)), 12)
    assert learned[1] < 1.2 * learned[0]
    each = cost(pcgrad(), 2), cost(pcgrad(), 12)
    # Six times the backward passes, and one forward pass: two of three parts grow.
    assert 3 * each[0] < each[1] < 6 * each[0]


def test_heads_that_are_alike_are_one_batched_program(key):
    def operations(tasks):
        net = hard_sharing(mlp((5,)), [mlp((3,))] * tasks)
        params = jax.eval_shape(net.init, key, X)
        y = jnp.ones((6, tasks), int)
        grads = partial(task_grads(net, cross_entropy), None, STEP)
        text = str(jax.make_jaxpr(grads)(params, Batch(X, y)))
        return text.count("jaxdl_dense_")

    assert operations(2) == operations(9) > 0


def test_a_step_gives_the_trunk_the_combination_and_each_head_its_own(key):
    net, loss, batch = CASES["same inputs, heads and losses differ"]
    method, tx = pcgrad(), optax.sgd(0.5)
    state = init_state(jax.jit(net.init)(key, X), optax.chain(method, tx))
    new, metrics = jax.jit(multitask_step(net, loss, method, tx))(key, state, batch)
    first, second = (
        jax.jit(jax.grad(partial(alone, net, loss, batch, t)))(state.params) for t in (0, 1)
    )
    moved = jax.tree.map(lambda a, b: (a - b) / 0.5, state.params, new.params)
    close(moved.heads, (first.heads[0], second.heads[1]), atol=1e-5)
    g, h = (
        np.concatenate([np.ravel(a) for a in jax.tree.leaves(t.trunk)]) for t in (first, second)
    )
    if g @ h < 0:
        g, h = g - (g @ h) / (h @ h) * h, h - (g @ h) / (g @ g) * g
    found = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(moved.trunk)])
    close(found, g + h, atol=1e-5)
    assert new.step == 1
    assert np.isfinite(metrics["loss"])


def test_a_weighted_step_is_the_gradient_of_the_weighted_loss_in_all_parameters(key):
    net, loss, batch = CASES["same inputs, heads and losses differ"]
    method, tx = uncertainty(tasks=2, tx=optax.sgd(0.1), gaussian=[False, True]), optax.sgd(0.5)
    state = init_state(jax.jit(net.init)(key, X), optax.chain(method, tx))
    new, _ = jax.jit(multitask_step(net, loss, method, tx))(key, state, batch)

    def weighted(params):
        return alone(net, loss, batch, 0, params) + 0.5 * alone(net, loss, batch, 1, params)

    moved = jax.tree.map(lambda a, b: (a - b) / 0.5, state.params, new.params)
    close(moved, jax.jit(jax.grad(weighted))(state.params), atol=1e-5)


def test_dropout_draws_for_every_task(key):
    net = hard_sharing(mlp((16,)), [mlp((32, 3), dropout=0.5)] * 2)
    params = jax.jit(net.init)(key, X)
    same = TaskParams(params.trunk, (params.heads[0],) * 2)
    batch = Batch(X, jnp.stack([LABELS[:, 0]] * 2, axis=1))
    run = jax.jit(task_losses(net, cross_entropy))
    still, drawn, again = (run(same, k, batch)[0] for k in (None, key, jax.random.key(5)))
    assert still[0] == still[1]
    assert len({float(value) for value in (*drawn, *again, still[0])}) == 5


@pytest.mark.parametrize(
    ("net", "loss", "batch", "message"),
    [
        (ALIKE, LOSSES[:1], Batch(X, LABELS), "1 losses for 2 heads"),
        (
            ALIKE,
            cross_entropy,
            Batch(X, LABELS[:, :1]),
            r"\[n, 2, ...\] or a tuple of 2, not \(6, 1",
        ),
        (ALIKE, cross_entropy, Batch(X, (LABELS,) * 3), "not a tuple of 3"),
        (ALIKE, cross_entropy, (Batch(X, LABELS),), "does not fit a net of 2 tasks"),
    ],
)
def test_what_does_not_fit_the_heads_is_refused(net, loss, batch, message, key):
    with pytest.raises(InputError, match=message):
        task_losses(net, loss)(net.init(key, X), None, batch)


def test_a_state_made_for_the_optimiser_alone_is_refused(key):
    state = init_state(ALIKE.init(key, X), optax.adam(0.1))
    step = multitask_step(ALIKE, cross_entropy, pcgrad(), optax.adam(0.1))
    with pytest.raises(InputError, match=r"optax.chain\(method, tx\)"):
        step(key, state, Batch(X, LABELS))


def test_a_method_that_does_not_say_what_it_looks_at_is_refused(key):
    """A chain is no method: one that weighs losses would pass for one that looks at gradients."""
    chained, tx = optax.chain(equal(), optax.scale(2.0)), optax.sgd(0.1)
    with pytest.raises(InputError, match="does not say whether it weighs losses: make it with"):
        multitask_step(ALIKE, cross_entropy, chained, tx)

    @jax.jit
    def moves(params, batch):
        found = []
        for method in (pcgrad(), TaskMethod(*optax.chain(pcgrad(), optax.scale(2.0)))):
            state = init_state(params, optax.chain(method, tx))
            after, _ = multitask_step(ALIKE, cross_entropy, method, tx)(key, state, batch)
            found.append(jax.tree.map(jnp.subtract, after.params.trunk, params.trunk))
        return found

    once, twice = moves(ALIKE.init(key, X), Batch(X, LABELS))
    close(jax.tree.map(lambda leaf: 2 * leaf, once), twice)


NORMED = hard_sharing(mlp((5, 5), norm="batch"), [mlp((4, 3), norm="batch")] * 2)
MASK = jnp.array([[1, 1], [0, 1], [1, 0.5], [0, 0], [0, 0], [0, 0]])


@pytest.mark.parametrize(
    "weight", [MASK[:, 1], MASK, (MASK[:, 0], MASK[:, 1])], ids=["[n]", "[n, tasks]", "a tuple"]
)
def test_examples_that_count_for_no_task_count_for_nothing(weight, key):
    """Neither in the trunk's batch norm nor by an input that is NaN; the first three rows count."""
    some = lambda array: jax.tree.map(lambda leaf: leaf[:3], array)  # noqa: E731
    spoilt = Batch(X.at[3:].set(jnp.nan), LABELS.at[3:].set(-100), weight)
    cut = Batch(X[:3], LABELS[:3], some(weight))
    params = NORMED.init(key, X)

    @jax.jit
    def found(batch):
        losses = task_losses(NORMED, cross_entropy)(params, None, batch)
        return task_grads(NORMED, cross_entropy)(key, STEP, params, batch), losses

    masked, expected = found(spoilt), found(cut)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), masked, expected)


def test_tasks_with_inputs_of_their_own_mask_their_own(key):
    parts = tuple(
        Batch(X.at[3:].set(jnp.nan), LABELS[:, t].at[3:].set(-100), jnp.array([1.0, 1, 1, 0, 0, 0]))
        for t in (0, 1)
    )
    params = NORMED.init(key, X)
    found = jax.jit(lambda batch: task_grads(NORMED, cross_entropy)(key, STEP, params, batch))
    masked, expected = found(parts), found(tuple(Batch(p.x[:3], p.y[:3]) for p in parts))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), masked, expected)


@pytest.mark.parametrize(
    "method", [pcgrad(), uncertainty(tasks=2, tx=optax.sgd(0.1))], ids=["gradients", "losses"]
)
def test_a_device_counts_for_each_task_as_much_as_its_examples(method, key):
    """Labels of the second task lie on one device alone, and most of the first task's too."""
    weight = jnp.array([[1, 1], [1, 1], [1, 0.5], [0, 0], [1, 0], [0, 0]])
    batch, tx = Batch(X, LABELS, weight), optax.sgd(0.1)
    state = init_state(ALIKE.init(key, X), optax.chain(method, tx))
    one = jax.jit(multitask_step(ALIKE, cross_entropy, method, tx))(key, state, batch)
    step = multitask_step(ALIKE, cross_entropy, method, tx, axis_name="d")
    run = jax.pmap(step, axis_name="d", in_axes=(None, None, 0), out_axes=0)
    found = run(key, state, jax.tree.map(lambda leaf: leaf.reshape(2, 3, *leaf.shape[1:]), batch))
    for device in (0, 1):
        here = jax.tree.map(lambda leaf, d=device: leaf[d], found)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), here, one)


def test_a_loss_is_looked_at_as_everywhere(key):
    net = hard_sharing(mlp((4,)), [mlp((1,))] * 2)
    x = jnp.ones((3, 2))
    params, batch = net.init(key, x), Batch(x, jnp.zeros((3, 2, 1)))

    def error(prediction, target, weight=None):
        return jnp.mean((prediction - target) ** 2), {"error": jnp.float32(1)}

    metrics = task_losses(net, error)(params, None, batch)[1]
    assert set(metrics) == {"error", "error/0", "error/1", "loss", "loss/0", "loss/1"}
    with pytest.raises(InputError, match="the loss returned an array alone"):
        task_losses(net, lambda *given: jnp.mean(given[0]))(params, None, batch)
