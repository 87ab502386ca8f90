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
from jaxdl.multitask.combine import TaskMethod
from jaxdl.multitask.gradients import multitask_step, task_grads
from jaxdl.multitask.sharing import hard_sharing
from jaxdl.train.loop import copy_state, loop
from jaxdl.train.steps import init_state, init_states
from jaxdl.train.streams import run_keys
from jaxdl.types import WHOLE, Batch, Model
from tests.multitask.contract import (
    HARD,
    KEY,
    ROWS,
    SOON,
    TASKS,
    flat,
    gradients,
    losses,
    made,
)

rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
full = pytest.mark.parametrize(
    "row",
    [pytest.param(r, marks=() if r.name in SOON else pytest.mark.slow, id=r.name) for r in ROWS],
)


def close(found, expected, rtol=2e-4, atol=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), found, expected
    )


def look(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


@rows
def test_updates_look_like_the_gradient_of_one_task(row):
    for step in made(row):
        update, state = step.of("usual")
        assert look(update) == {"a": ((3, 2), np.float32), "b": ((5,), np.float32)}
        assert look(state) == look(row.make(TASKS).init(None))
        assert np.isfinite(flat(update)).all()
        assert np.any(flat(update))
    method = row.make(TASKS)
    half = jax.eval_shape(
        lambda g: method.update(g, method.init(None), losses=losses(), key=KEY)[0],
        gradients(dtype=jnp.bfloat16),
    )
    assert all(leaf.dtype == jnp.bfloat16 for leaf in half.values())


@full
def test_compiled_for_many_at_once_it_does_what_it_does_for_one(row):
    """As seeds are run on accelerators; and nothing that Python remembers matters."""
    method = row.make(TASKS)
    state, values = method.init(None), losses()
    for step in made(row):
        update, state = method.update(gradients(), state, losses=values, key=KEY)
        close(step.of("usual"), (update, state))
        values = values[::-1]
    other = method.update(gradients(seed=1), method.init(None), losses=losses(seed=1), key=KEY)
    close(made(row)[0].of("other"), other)


@rows
def test_of_one_task_it_makes_that_tasks_gradient(row):
    method, stacked = row.make(1), gradients(1)
    update, _ = method.update(stacked, method.init(None), losses=losses(1), key=KEY)
    expected = flat(stacked)[0]
    close(flat(update), row.scale(1, np.linalg.norm(expected)) * expected)


@rows
def test_of_identical_tasks_it_makes_their_gradient(row):
    expected = flat(gradients())[0]
    found = flat(made(row)[0].of("identical")[0])
    close(found, row.scale(TASKS, np.linalg.norm(expected)) * expected)


@rows
def test_the_order_of_tasks_does_not_matter(row):
    if not row.symmetric:
        pytest.skip("its rule is random")
    close(made(row)[0].of("permuted")[0], made(row)[0].of("usual")[0])


@rows
def test_vanishing_opposite_and_uneven_gradients_do_no_harm(row):
    for step in made(row):
        for name in (*HARD, *(f"{name}, else identical" for name in HARD), "none"):
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(step.of(name))), name
        assert not np.any(flat(step.of("none")[0]))


@rows
def test_it_says_what_it_looks_at(row):
    """Where one gradient is another and the losses are the same, who weighs losses weighs alike."""
    method = row.make(TASKS)
    assert isinstance(method, TaskMethod)
    kept, given = HARD["one vanishes"], flat(gradients()).astype(np.float64)

    def weights(case):
        """Those of the tasks whose gradients are kept: the update is a sum of the gradients."""
        by = np.array(kept if case == "one vanishes" else np.ones(TASKS), bool)
        update = flat(made(row)[-1].of(case)[0])
        found = np.zeros(TASKS)
        found[by] = np.linalg.lstsq(given[by].T, update)[0]
        return found[np.array(kept, bool)]

    alike = np.allclose(weights("usual"), weights("one vanishes"), rtol=1e-3)
    assert method.weighs_losses == alike


@rows
def test_gradients_that_are_not_stacked_beside_the_losses_are_refused(row):
    method = row.make(TASKS)
    with pytest.raises(InputError, match=r"stacked \[tasks, ...\] beside losses"):
        method.update(gradients(), method.init(None), losses=losses(TASKS - 1), key=KEY)


# Training. Methods learn side by side in one compiled program, each in a state of its own.

LINEAR = Model(
    lambda key, x: jax.random.normal(key, (x.shape[-1], 2)) / 2,
    lambda params, x, *, key=None, weight=None: x @ params,
)
NET = hard_sharing(LINEAR, [LINEAR] * 3, between=jnp.tanh)
TX = optax.sgd(0.02)


class All(NamedTuple):
    """A `TrainState` a method, without the step that they share."""

    step: Any
    states: dict


def draw(key, step, shard=WHOLE):
    """Eight points in three dimensions, with targets for three tasks that pull different ways."""
    x = shard.of(jax.random.normal(jax.random.fold_in(key, step), (8, 3)))
    y = jnp.stack([x[:, :2], 3 - x[:, :2], jnp.sin(4 * x[:, 1:])], axis=1)
    return Batch(x, y)


def train(start, steps, devices=1):
    """The states of the methods in `start` after each three steps."""
    axis = parallel.axis_name(devices)
    each = {
        row.name: multitask_step(NET, mean_squared_error, row.make(3), TX, axis_name=axis)
        for row in ROWS
        if row.name in start.states
    }

    def step(key, state, batch):
        new = {}
        for name, one in each.items():
            found, _ = one(key, state.states[name]._replace(step=state.step), batch)
            new[name] = found._replace(step=None)
        return All(state.step + 1, new), {}

    chunks = loop(step, Partial(draw), run_keys(3, 2), start, steps=steps, devices=devices, every=3)
    return {i: copy_state(state) for i, state, _ in chunks if i % 3 == 0}


@cache
def start(soon):
    init = lambda key: NET.init(key, jnp.zeros((1, 3)))  # noqa: E731
    group = [row for row in ROWS if (row.name in SOON) == soon]

    @jax.jit
    def make(keys):
        states = {row.name: init_states(init, keys, optax.chain(row.make(3), TX)) for row in group}
        return {name: state._replace(step=None) for name, state in states.items()}

    return All(jnp.int32(0), make(run_keys(3, 2)))


@cache
def trained(soon, devices=1):
    return train(start(soon), 6, devices)


@cache
def resumed(soon):
    return train(trained(soon)[3], 6)


@full
def test_it_trains_seeds_in_the_loop(row):
    soon = row.name in SOON
    before, after = (s.states[row.name].params for s in (start(soon), trained(soon)[6]))
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        moved = np.abs(new - old).reshape(2, -1).max(axis=1)
        assert np.all((moved > 1e-5) & (moved < 10))
        assert not np.allclose(new[0], new[1])


@full
def test_a_resumed_run_is_one_that_never_stopped(row):
    equal = np.testing.assert_array_equal
    soon = row.name in SOON
    jax.tree.map(equal, *(s[6].states[row.name] for s in (resumed(soon), trained(soon))))


@full
def test_two_devices_do_what_one_does(row):
    soon = row.name in SOON
    shared = trained(soon, devices=2)[6].states[row.name]
    assert parallel.all_equal(shared)
    close(shared, trained(soon)[6].states[row.name])


@rows
def test_weighing_losses_is_weighing_gradients(row):
    """What `multitask_step` spares: the shared gradient is the same, from one backward pass."""
    method = row.make(3)
    if not method.weighs_losses:
        pytest.skip("it looks at gradients")
    batch = draw(KEY, 0)
    state = init_state(NET.init(KEY, batch.x), optax.chain(method, TX))
    net_key, method_key = jax.random.split(KEY)

    @jax.jit
    def both(state):
        each, _ = task_grads(NET, mean_squared_error)(net_key, state.step, state.params, batch)
        trunk, _ = method.update(each.trunk, state.opt_state[0], losses=each.losses, key=method_key)
        return trunk, multitask_step(NET, mean_squared_error, method, TX)(KEY, state, batch)[0]

    trunk, new = both(state)
    close(new.params.trunk, state.params.trunk - 0.02 * trunk, rtol=1e-5, atol=1e-6)
