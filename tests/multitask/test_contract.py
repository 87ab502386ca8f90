"""One suite for every method: what a combination of task gradients promises, whatever its rule."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from jaxdl import parallel
from jaxdl.errors import InputError
from jaxdl.losses import mean_squared_error
from jaxdl.multitask.combine import LossWeighting
from jaxdl.multitask.gradients import multitask_step, task_grads
from jaxdl.multitask.sharing import hard_sharing
from jaxdl.train import init_states, keep, loop, run_keys
from jaxdl.types import Batch, Model
from tests.multitask.contract import KEY, ROWS, compiled, flat, gradients, losses, once

TASKS = 4

rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def close(found, expected, rtol=2e-4, atol=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), found, expected
    )


def scaled(stacked, factors):
    """Each task's gradient times its factor."""
    by = lambda leaf: jnp.asarray(factors, leaf.dtype).reshape(-1, *[1] * (leaf.ndim - 1)) * leaf  # noqa: E731
    return jax.tree.map(by, stacked)


def steps_of(update, state, seeds=range(3), keys=range(3)):
    """Three updates of a method in a row, so that what it remembers shows."""
    found = []
    for seed, key in zip(seeds, keys, strict=True):
        values = losses(TASKS, seed), jax.random.fold_in(KEY, key)
        made, state = update(gradients(TASKS, seed), state, *values)
        found.append((made, state))
    return found


@rows
def test_updates_look_like_the_gradient_of_one_task(row):
    state = row.make(TASKS).init(None)
    look = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)  # noqa: E731
    for update, new_state in steps_of(compiled(row, TASKS), state):
        assert look(update) == {"a": ((3, 2), np.float32), "b": ((5,), np.float32)}
        assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in update.values())
        assert look(new_state) == look(state)
    half = jax.eval_shape(lambda: once(row, gradients(TASKS, dtype=jnp.bfloat16), losses(TASKS)))
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(half))


@rows
def test_compiled_it_does_what_it_does_operation_by_operation(row):
    method = row.make(TASKS)

    def by_operation(stacked, state, values, key):
        with jax.disable_jit():
            return method.update(stacked, state, losses=values, key=key)

    state = method.init(None)
    close(steps_of(by_operation, state), steps_of(compiled(row, TASKS), state))


@rows
def test_many_at_once_are_each_alone(row):
    """As seeds are run on accelerators."""
    method = row.make(TASKS)
    alone = [
        compiled(row, TASKS)(gradients(TASKS, s), method.init(None), losses(TASKS, s), KEY)
        for s in (0, 1)
    ]
    stack = lambda *leaves: jnp.stack(leaves)  # noqa: E731
    many = jax.jit(jax.vmap(lambda g, v: method.update(g, method.init(None), losses=v, key=KEY)))(
        jax.tree.map(stack, *(gradients(TASKS, s) for s in (0, 1))),
        jax.tree.map(stack, *(losses(TASKS, s) for s in (0, 1))),
    )
    close(many, jax.tree.map(stack, *alone))


@rows
def test_of_one_task_it_makes_that_tasks_gradient(row):
    stacked = gradients(1)
    found = flat(once(row, stacked, losses(1)))
    expected = flat(stacked)[0]
    close(found, row.scale(1, np.linalg.norm(expected)) * expected)


@rows
def test_of_identical_tasks_it_makes_their_gradient(row):
    one = gradients(1)
    stacked = jax.tree.map(lambda leaf: jnp.repeat(leaf, TASKS, axis=0), one)
    found = flat(once(row, stacked, jnp.full(TASKS, 0.8)))
    expected = flat(one)[0]
    close(found, row.scale(TASKS, np.linalg.norm(expected)) * expected)


@rows
def test_the_order_of_tasks_does_not_matter(row):
    if not row.symmetric:
        pytest.skip("its rule is random")
    order = np.array([2, 0, 3, 1])
    stacked, values = gradients(TASKS), losses(TASKS)
    permuted = once(row, jax.tree.map(lambda leaf: leaf[order], stacked), values[order])
    close(permuted, once(row, stacked, values))


@rows
@pytest.mark.parametrize(
    "factors", [(1, 0, 1, 1), (1, -1, 0, 0), (1, -1, 1, -1), (1e-6, 1, 1e6, 1)], ids=str
)
def test_vanishing_opposite_and_uneven_gradients_do_no_harm(row, factors):
    stacked = gradients(TASKS)
    same = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], TASKS, axis=0), stacked)
    for case in (same, stacked):
        state = row.make(TASKS).init(None)
        for _ in range(2):
            update, state = compiled(row, TASKS)(scaled(case, factors), state, losses(TASKS), KEY)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((update, state)))


@rows
def test_of_no_gradients_it_makes_none(row):
    update = once(row, scaled(gradients(TASKS), (0, 0, 0, 0)), losses(TASKS))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(update))


@rows
def test_gradients_that_are_not_stacked_beside_the_losses_are_refused(row):
    with pytest.raises(InputError, match=r"stacked \[tasks, ...\] beside losses"):
        once(row, gradients(TASKS), losses(TASKS - 1))


# Training. All methods learn side by side in one compiled program, each in a state of its own.

LINEAR = Model(
    lambda key, x: jax.random.normal(key, (x.shape[-1], 2)) / 2,
    lambda params, x, *, key=None: x @ params,
)
NET = hard_sharing(LINEAR, [LINEAR] * 3, between=jnp.tanh)
TX = optax.sgd(0.02)


class All(NamedTuple):
    """A `TrainState` a method, without the step that they share."""

    step: Any
    states: dict


def draw(key, step, share):
    """Eight points in three dimensions, with targets for three tasks that pull different ways."""
    x = share.of(jax.random.normal(jax.random.fold_in(key, step), (8, 3)))
    y = jnp.stack([x[:, :2], 3 - x[:, :2], jnp.sin(4 * x[:, 1:])], axis=1)
    return Batch(x, y)


def train(start, steps, devices=1):
    """The states of all methods after each three steps."""
    axis = parallel.axis_name(devices)
    each = {
        row.name: multitask_step(NET, mean_squared_error, row.make(3), TX, axis_name=axis)
        for row in ROWS
    }

    def step(key, state, batch):
        new = {}
        for name, one in each.items():
            found, _ = one(key, state.states[name]._replace(step=state.step), batch)
            new[name] = found._replace(step=None)
        return All(state.step + 1, new), {}

    chunks = loop(step, Partial(draw), run_keys(3, 2), start, steps=steps, devices=devices, every=3)
    return {i: keep(state) for i, state, _ in chunks if i % 3 == 0}


@cache
def start():
    init = lambda key: NET.init(key, jnp.zeros((1, 3)))  # noqa: E731
    states = {
        row.name: init_states(init, run_keys(3, 2), optax.chain(row.make(3), TX)) for row in ROWS
    }
    return All(jnp.int32(0), {name: state._replace(step=None) for name, state in states.items()})


@cache
def trained(devices=1):
    return train(start(), 6, devices)


@cache
def resumed():
    return train(trained()[3], 6)


@rows
def test_it_trains_seeds_in_the_loop(row):
    before, after = start().states[row.name].params, trained()[6].states[row.name].params
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        moved = np.abs(new - old).reshape(2, -1).max(axis=1)
        assert np.all((moved > 1e-5) & (moved < 10))
        assert not np.allclose(new[0], new[1])


@rows
def test_a_resumed_run_is_one_that_never_stopped(row):
    equal = np.testing.assert_array_equal
    jax.tree.map(equal, resumed()[6].states[row.name], trained()[6].states[row.name])


@rows
def test_two_devices_do_what_one_does(row):
    shared = trained(devices=2)[6].states[row.name]
    assert parallel.all_equal(shared)
    close(shared, trained()[6].states[row.name])


@rows
def test_weighing_losses_is_weighing_gradients(row):
    """What `multitask_step` spares: the shared gradient is the same, from one backward pass."""
    method = row.make(3)
    if not isinstance(method, LossWeighting):
        pytest.skip("it looks at gradients")
    batch = draw(KEY, 0, parallel.Share(0, 1))
    state = start().states[row.name]
    state = jax.tree.map(lambda leaf: leaf[0], state)._replace(step=jnp.int32(0))
    net_key, method_key = jax.random.split(KEY)
    each, _ = task_grads(NET, mean_squared_error)(net_key, state.step, state.params, batch)
    trunk, _ = method.update(each.trunk, state.opt_state[0], losses=each.losses, key=method_key)
    new, _ = multitask_step(NET, mean_squared_error, method, TX)(KEY, state, batch)
    close(new.params.trunk, state.params.trunk - 0.02 * trunk, rtol=1e-5, atol=1e-6)
