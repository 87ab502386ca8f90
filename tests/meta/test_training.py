"""Training of every learner: seeds in one program, devices, a stop on the way, short floats."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl import parallel
from jaxdl.grads import over_tasks
from jaxdl.runs.checkpoint import Checkpoints
from jaxdl.train.loop import loop, per_seed
from jaxdl.train.steps import init_state, init_states, make_step
from jaxdl.train.streams import run_keys, step_keys, task_stream
from jaxdl.types import MetaLearner
from tests.meta.test_contract import META, TRANSFER, each

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_once")]

TASKS, STEPS = 4, 4
TX = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.01, momentum=0.9))
"""Adam would blow up the rounding of gradients that are 0, as is that of ProtoNet's last bias.
Without the clip, the first steps of ConvCNP diverge, and all rounding grows with them."""

TRAINED = [row for row in META + TRANSFER if row.trains]


def problem_of(row):
    return next(iter(row.problems.values()))


def parts(row):
    """The learner, its parameters at the start by key, and a draw of what it trains on."""
    model, loss, sample = problem_of(row)
    learner = row.make(model, loss)
    x = jax.eval_shape(sample, jax.random.key(0)).support.x
    draw = sample if isinstance(learner, MetaLearner) else lambda key: sample(key).query
    return learner, lambda key: learner.init(key, jnp.ones(x.shape, x.dtype)), draw


def trained(row, *, seed=5, seeds=1, steps=STEPS, state=None, devices=1):
    """The state after so many steps, on one device again."""
    learner, init, draw = parts(row)
    keys = run_keys(seed, seeds)
    state = jax.jit(lambda keys: init_states(init, keys, TX))(keys) if state is None else state
    step = make_step(over_tasks(learner.grad, axis_name=parallel.axis_name(devices)), TX)
    chunks = loop(step, task_stream(draw, TASKS), keys, state, steps=steps, devices=devices)
    for _, state, _ in chunks:  # noqa: B007
        pass
    if devices > 1:
        assert parallel.all_equal(state)
    return jax.tree.map(np.asarray, parallel.local(state))


@cache
def alone(row):
    return trained(row)


def close(found, expected):
    check = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    jax.tree.map(check, found, expected)


@each(TRAINED)
def test_seeds_in_one_program_are_separate_runs(row, monkeypatch):
    """Vmapped, as on an accelerator."""
    with monkeypatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "gpu")
        one, other = per_seed(trained(row, seeds=2).params)
    close(one, per_seed(alone(row).params)[0])
    close(other, per_seed(trained(row, seed=6).params)[0])


@each(TRAINED)
def test_two_devices_do_what_one_does(row):
    close(trained(row, devices=2), alone(row))


@each(TRAINED)
def test_a_run_that_was_stopped_and_saved_goes_on_bit_for_bit(row, tmp_path):
    half = trained(row, steps=STEPS // 2)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(STEPS // 2, half)
        checkpoints.wait()
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(jax.tree.map(np.zeros_like, half))
    found = trained(row, state=jax.tree.map(jnp.asarray, restored))
    jax.tree.map(np.testing.assert_array_equal, found, alone(row))


@each(TRAINED)
def test_all_steps_are_one_program(row):
    """A second is compiled where a step returns other types than it takes, weak ones included."""
    learner, init, draw = parts(row)
    step = jax.jit(make_step(learner.grad, TX))
    state, batch = jax.jit(lambda key: (init_state(init(key), TX), draw(key)))(jax.random.key(0))
    for _ in range(2):
        _, key = step_keys(jax.random.key(0), state.step)
        state, _ = step(key, state, batch)
    assert step._cache_size() == 1
    assert state.step == 2


def floats(tree, dtype):
    """The tree with its floats as `dtype`."""
    inexact = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.inexact)  # noqa: E731
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if inexact(leaf) else leaf, tree)


@each(TRAINED)
def test_short_floats_stay_short(row):
    """Parameters and inputs in bfloat16: so are gradients, and predictions are good to 2 digits."""
    learner, init, _ = parts(row)
    episode = floats(problem_of(row)[2](jax.random.key(1)), "bfloat16")
    params = floats(jax.jit(init)(jax.random.key(2)), "bfloat16")
    batch = episode if isinstance(learner, MetaLearner) else episode.query

    @jax.jit
    def run(params, support, x, batch):
        adapted = learner.adapt(jax.random.key(0), params, support)
        grads, _ = learner.grad(jax.random.key(0), jnp.int32(0), params, batch)
        return learner.predict(adapted, x), grads

    given = params, episode.support, episode.query.x, batch
    predictions, grads = run(*given)
    expected, _ = run(*floats(given, "float32"))
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("bfloat16")}
    assert all(np.isfinite(leaf.astype(float)).all() for leaf in jax.tree.leaves(grads))
    for found, exact in zip(*map(jax.tree.leaves, (predictions, expected)), strict=True):
        error = np.abs(found.astype(float) - exact).max()
        assert error < 0.1 * np.abs(exact).max()
