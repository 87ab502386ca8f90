"""One suite for every method: what a continual learner promises, whatever its rule.

All methods learn side by side in one compiled program, for compilers take longer than steps.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.tree_util import Partial

from jaxdl.continual.base import check_stream
from jaxdl.errors import InputError
from jaxdl.train.streams import run_keys
from jaxdl.types import WHOLE
from tests.continual.contract import CLASSES, EXAMPLES, INPUTS, LIKE, QUICK, ROWS, TASKS, drawn

rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
KEYS = run_keys(3, 2)
STEPS = 2 * EXAMPLES + 3
STOPS = (5, EXAMPLES, EXAMPLES + 3)
"""In the middle of a task, at the end of one, and when the second has begun."""
ONE_TASK = 10_000
"""Examples of a task in a stream that never changes."""


def look(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@cache
def program(over_seeds):
    """`(states, keys, data keys, first, last, examples) -> (states, mean metrics)` of all methods.

    States `[seeds]` by name; `examples` of each task; the metrics are means over the steps.
    """
    methods = {row.name: row.make() for row in ROWS}

    def one_seed(seed, first, last, examples):
        states, key, data_key = seed

        def body(i, carry):
            states, sums = carry
            new = drawn(data_key, i, examples=examples)
            made = {
                name: method.step(jax.random.fold_in(key, i), states[name]._replace(step=i), new)
                for name, method in methods.items()
            }
            states = {name: state._replace(step=None) for name, (state, _) in made.items()}
            return states, {
                name: jax.tree.map(jnp.add, sums[name], metrics)
                for name, (_, metrics) in made.items()
            }

        zeros = {name: {"loss": 0.0, "accuracy": 0.0} for name in methods}
        states, sums = lax.fori_loop(first, last, body, (states, zeros))
        return states, jax.tree.map(lambda total: total / (last - first), sums)

    def run(states, keys, data_keys, first, last, examples):
        alone = lambda seed: one_seed(seed, first, last, examples)  # noqa: E731
        return over_seeds(alone, (states, keys, data_keys))

    return jax.jit(run, compiler_options=QUICK)


def after_another(one, seeds):
    return lax.map(one, seeds)


def side_by_side(one, seeds):
    return jax.vmap(one)(seeds)


def run(states, first, last, *, keys=KEYS, examples=EXAMPLES, over_seeds=after_another):
    span = jnp.int32(first), jnp.int32(last), jnp.int32(examples)
    return program(over_seeds)(states, keys, KEYS, *span)


@cache
def start():
    """Before the first step."""

    @jax.jit
    def make(keys):
        return {row.name: jax.vmap(row.make().init, (0, None))(keys, LIKE) for row in ROWS}

    return {name: state._replace(step=None) for name, state in make(KEYS).items()}


@cache
def trained(last, *, stopped=0, over_seeds=after_another):
    """After so many steps, and a stop before one of them."""
    before = trained(stopped) if stopped else start()
    return run(before, stopped, last, over_seeds=over_seeds)[0]


@cache
def last_step():
    """The metrics of the last step."""
    return run(trained(STEPS - 1), STEPS - 1, STEPS)[1]


@cache
def drawn_by(seed, again=False):
    """The states after the last task was learnt with other keys."""
    del again  # apart in the cache
    return run(trained(2 * EXAMPLES), 2 * EXAMPLES, STEPS, keys=run_keys(seed, 2))[0]


@cache
def one_task():
    """The metrics of the first 50 examples, and of the last 200, of 600 of one task."""
    states, early = run(start(), 0, 50, examples=ONE_TASK)
    states, _ = run(states, 50, 400, examples=ONE_TASK)
    return early, run(states, 400, 600, examples=ONE_TASK)[1]


@rows
def test_a_step_keeps_the_look_of_the_state_and_tells_of_the_new_example(row):
    method, before = row.make(), trained(STEPS - 1)
    assert look(trained(STEPS)[row.name]) == look(start()[row.name])
    assert trained(STEPS)[row.name]._fields == ("step", "params", "opt_state", "memory")
    metrics = last_step()[row.name]
    for seed in range(2):
        own = jax.tree.map(lambda leaf: leaf[seed], before[row.name])  # noqa: B023
        new = drawn(KEYS[seed], jnp.int32(STEPS - 1))
        logits = method.predict(own, new.task, new.x[None])[0]
        loss = -jax.nn.log_softmax(logits)[new.y]
        np.testing.assert_allclose(metrics["loss"][seed], loss, rtol=1e-4)
        assert metrics["accuracy"][seed] == (logits.argmax() == new.y)


@rows
def test_resumed_at_any_step_is_never_stopped_bit_for_bit(row):
    for stop in STOPS:
        equal(trained(STEPS, stopped=stop)[row.name], trained(STEPS)[row.name])


@rows
def test_seeds_side_by_side_learn_what_they_learn_alone(row):
    """As on an accelerator. The memories are equal: none of what is drawn is another."""
    found = trained(STEPS, over_seeds=side_by_side)[row.name]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        found,
        trained(STEPS)[row.name],
    )
    for leaf in jax.tree.leaves(found.params):
        assert not np.allclose(leaf[0], leaf[1], atol=1e-3)


@rows
def test_the_key_matters_where_something_is_drawn(row):
    """And the same key draws the same."""
    one, other = (drawn_by(seed)[row.name].params for seed in (5, 7))
    equal(drawn_by(5, again=True)[row.name].params, one)
    leaves = zip(*map(jax.tree.leaves, (one, other)), strict=True)
    assert all(np.array_equal(*pair) for pair in leaves) != row.draws


@rows
def test_one_task_again_and_again_is_learnt(row):
    early, late = one_task()
    assert np.all(late[row.name]["accuracy"] > 0.85)
    assert np.all(late[row.name]["loss"] < 0.7 * early[row.name]["loss"])


@rows
def test_whether_it_must_be_told_the_task(row):
    method = row.make()
    own = jax.tree.map(lambda leaf: leaf[0], trained(STEPS)[row.name])
    x = jax.random.normal(jax.random.key(0), (9, INPUTS))
    first, second = (method.predict(own, jnp.int32(task), x) for task in (0, TASKS - 1))
    assert first.shape == (9, CLASSES)
    assert np.allclose(first, second) != row.told


@cache
def counted_from_one():
    """The losses `[steps]` of all methods on a stream that numbers its tasks from 1 to TASKS."""
    methods = {row.name: row.make() for row in ROWS}

    def body(states, i):
        new = drawn(KEYS[0], i)
        new = new._replace(task=new.task + 1)
        made = {name: m.step(jax.random.key(0), states[name], new) for name, m in methods.items()}
        states = {name: state for name, (state, _) in made.items()}
        return states, {name: metrics["loss"] for name, (_, metrics) in made.items()}

    def whole():
        states = {name: method.init(KEYS[0], LIKE) for name, method in methods.items()}
        return lax.scan(body, states, jnp.arange(TASKS * EXAMPLES + 2))[1]

    return jax.jit(whole, compiler_options=QUICK)()


@rows
def test_a_stream_that_counts_tasks_from_one_is_no_silent_loss_of_the_last_task(row):
    """The last two steps are of the first task again: what was spoilt stays spoilt."""
    spoilt = np.arange(TASKS * EXAMPLES + 2) >= (TASKS - 1) * EXAMPLES
    expected = spoilt if row.counts else np.zeros_like(spoilt)
    np.testing.assert_array_equal(np.isnan(counted_from_one()[row.name]), expected)


@pytest.mark.parametrize("row", [row for row in ROWS if row.counts], ids=lambda row: row.name)
def test_a_task_out_of_range_is_refused_where_it_is_known_and_nan_where_it_is_not(row):
    method, example = row.make(), drawn(KEYS[0], 0)
    step, predict = (jax.jit(f, compiler_options=QUICK) for f in (method.step, method.predict))
    own = jax.tree.map(lambda leaf: leaf[0], trained(STEPS)[row.name])._replace(step=jnp.int32(0))
    for task in map(jnp.int32, (-1, TASKS, TASKS + 7)):
        new, says = example._replace(task=task), rf"task {task} is not one of {TASKS} tasks\. C"
        with pytest.raises(InputError, match=says):
            method.step(KEYS[0], own, new)
        with pytest.raises(InputError, match=says):  # a constant of the program has a value, too
            jax.jit(lambda own, new=new: method.step(KEYS[0], own, new))(own)
        after, metrics = step(KEYS[0], own, new)
        assert all(np.isnan(value) for value in metrics.values())
        assert any(np.isnan(leaf).any() for leaf in jax.tree.leaves(after.params))
        if row.told:
            with pytest.raises(InputError, match=says):
                method.predict(own, task, new.x[None])
            assert np.isnan(predict(own, task, new.x[None])).all()


def test_a_stream_is_looked_at_before_it_is_learnt_from():
    def stream(first, key, step, share=WHOLE):
        assert share.index == 0
        new = drawn(key, step)
        return new._replace(task=new.task + first)

    check_stream(Partial(stream, jnp.int32(0)), KEYS, STEPS, TASKS)
    says = rf"step {2 * EXAMPLES} of the stream: task {TASKS} is not one of {TASKS}"
    check_stream(Partial(stream, jnp.int32(1)), KEYS, 2 * EXAMPLES, TASKS)
    with pytest.raises(InputError, match=says):
        check_stream(Partial(stream, jnp.int32(1)), KEYS, STEPS, TASKS)
    with pytest.raises(InputError, match="step 0 of the stream: task -1 is not one of 3"):
        check_stream(Partial(stream, jnp.int32(-1)), KEYS, STEPS, TASKS)
