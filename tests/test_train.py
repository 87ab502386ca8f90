"""The training loop: every step a pure function of (key, step, state), whatever the chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl import parallel
from jaxdl.errors import InputError
from jaxdl.grads import of_loss, over_devices, over_tasks
from jaxdl.train import (
    TrainState,
    init_state,
    init_states,
    keep,
    loop,
    make_step,
    per_seed,
    task_stream,
)

TX = optax.adam(0.1)


def sample(key):
    return jax.random.normal(key, (3,))


def loss(params, key, task):
    value = jnp.mean((params["a"] - task) ** 2) * (1 + jax.random.uniform(key))
    return value, {"loss": value}


def start(seeds=(0,)):
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    init = lambda key: {"a": jax.random.normal(key, (3,))}  # noqa: E731
    return keys, init_states(init, keys, TX)


def run(keys, state, steps, *, devices=1, tasks=4, **flags):
    axis = parallel.axis_name(devices)
    grad = over_devices(over_tasks(of_loss(loss), axis_name=axis), axis)
    chunks = loop(
        make_step(grad, TX),
        task_stream(sample, tasks),
        keys,
        state,
        steps=steps,
        devices=devices,
        **flags,
    )
    metrics = []
    for _, state, found in chunks:  # noqa: B007
        metrics.append(found["loss"])
    return state, np.concatenate(metrics, axis=1) if metrics else None


def same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def close(a, b, rtol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6), a, b)


def test_loop_does_what_a_python_loop_over_steps_does():
    keys, state = start()
    found, losses = run(keys, state, 5)
    step = make_step(over_tasks(of_loss(loss)), TX)
    expected = per_seed(state._replace(step=jnp.zeros(1, int)))[0]._replace(step=jnp.int32(0))
    for i in range(5):
        batch_key, step_key = jax.random.split(jax.random.fold_in(keys[0], i))
        batch = jax.vmap(sample)(jax.random.split(batch_key, 4))
        expected, metrics = step(step_key, expected, batch)
        np.testing.assert_allclose(losses[0, i], metrics["loss"], rtol=1e-5)
    close(per_seed(found.params)[0], expected.params)
    assert found.step == 5


def test_resumed_equals_never_stopped_bit_for_bit():
    keys, state = start((0, 1))
    never, losses = run(keys, state, 11)
    half, first = run(keys, state, 4)
    resumed, second = run(keys, half, 11)
    same_bits(never, resumed)
    np.testing.assert_array_equal(losses, np.concatenate([first, second], axis=1))


@pytest.mark.parametrize("flags", [{"every": 1}, {"every": 3}, {"seconds": 0.0}])
def test_chunk_borders_change_nothing(flags):
    keys, state = start()
    same_bits(run(keys, state, 8)[0], run(keys, state, 8, **flags)[0])


@pytest.mark.parametrize("ahead", [1, 3])
def test_how_many_batches_are_drawn_at_once_changes_nothing(ahead, monkeypatch):
    keys, state = start((0, 1))
    expected, losses = run(keys, state, 8)
    monkeypatch.setattr("jaxdl.train.MOST_AHEAD", ahead)
    half, first = run(keys, state, 5)  # ends within a block
    found, second = run(keys, half, 8)
    close(expected, found)
    np.testing.assert_allclose(losses, np.concatenate([first, second], axis=1), rtol=1e-5)


def test_chunks_stop_at_multiples_of_every():
    keys, state = start()
    chunks = loop(
        make_step(over_tasks(of_loss(loss)), TX),
        task_stream(sample, 2),
        keys,
        state,
        steps=25,
        every=10,
    )
    ends = [i for i, _, _ in chunks]
    assert {10, 20, 25} <= set(ends)
    assert ends == sorted(ends)


@pytest.mark.parametrize("devices", [2, 4])
def test_devices_train_on_the_same_tasks(devices):
    keys, state = start((0, 1))
    one, losses = run(keys, state, 6)
    many, same_losses = run(keys, state, 6, devices=devices)
    close(one, many)
    np.testing.assert_allclose(losses, same_losses, rtol=1e-5)
    assert parallel.all_equal(many)
    assert len(many.params["a"].addressable_shards) == devices


def test_a_run_goes_on_with_another_number_of_devices():
    keys, state = start()
    half, _ = run(keys, state, 3, devices=4)
    close(run(keys, state, 6)[0], run(keys, parallel.local(half), 6, devices=2)[0])


def test_tasks_that_do_not_divide_among_devices_are_refused():
    keys, state = start()
    with pytest.raises(InputError, match="3 tasks do not divide among 2 devices"):
        run(keys, state, 1, devices=2, tasks=3)


def test_seeds_in_one_program_are_separate_runs():
    together, losses = run(*start((5, 6, 7)), 20)
    for index, seed in enumerate((5, 6, 7)):
        alone, loss_alone = run(*start((seed,)), 20)
        close(per_seed(together.params)[index], per_seed(alone.params)[0])
        np.testing.assert_allclose(losses[index], loss_alone[0], rtol=1e-5)
    assert np.unique(losses[:, 0]).size == 3


def test_vmapped_seeds_are_separate_runs(monkeypatch):
    """What an accelerator does with seeds, on the CPU."""
    expected, _ = run(*start((5, 6)), 20)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    close(run(*start((5, 6)), 20)[0], expected)


def test_the_callers_state_survives_and_keep_makes_a_copy():
    keys, state = start()
    before = jax.tree.map(np.array, state)
    chunks = loop(
        make_step(over_tasks(of_loss(loss)), TX),
        task_stream(sample, 2),
        keys,
        state,
        steps=3,
        every=1,
    )
    kept = [keep(state) for _, state, _ in chunks]
    same_bits(state, before)
    assert [int(k.step) for k in kept] == [1, 2, 3]
    assert not np.array_equal(kept[0].params["a"], kept[1].params["a"])


def test_a_finished_run_has_no_chunks():
    keys, state = start()
    done, _ = run(keys, state, 2)
    assert run(keys, done, 2)[1] is None


def test_the_sampler_data_set_is_no_constant_of_the_program():
    """As a constant, 4 MB would be 8 MB of program text and minutes of compilation at 25 MB."""
    from jax.tree_util import Partial

    data = jnp.ones((1000, 1000))
    stream = task_stream(Partial(lambda data, key: data[0, :3] + sample(key), data), 2)
    keys, state = start()
    programs = []
    real = parallel.compile_on

    def spy(run, devices, args, **flags):
        programs.append(jax.jit(lambda *a: run(parallel.Share(0, 1), *a)).lower(*args).as_text())
        return real(run, devices, args, **flags)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "compile_on", spy)
        list(loop(make_step(over_tasks(of_loss(loss)), TX), stream, keys, state, steps=1))
    assert len(programs[0]) < 1_000_000


def test_training_descends():
    keys, state = start()
    _, losses = run(keys, state, 200)
    assert losses[0, -20:].mean() < 0.8 * losses[0, :20].mean()


def test_init_state_is_step_zero():
    state = init_state({"a": jnp.ones(2)}, TX)
    assert isinstance(state, TrainState)
    assert state.step == 0
    assert state.stats == ()
