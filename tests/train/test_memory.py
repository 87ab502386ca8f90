"""What does not fit is refused by shapes, before anything is allocated."""

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxdl.errors import InputError, TooLarge
from jaxdl.train import memory
from jaxdl.train.loop import loop
from jaxdl.train.steps import init_states, make_step
from jaxdl.train.streams import run_keys, task_stream


@pytest.mark.parametrize(
    ("seeds", "width", "says"),
    [
        (1, 10**14, "optimiser's state need .* GiB, and .* GiB are free. Take a smaller net"),
        (500, 10**12, "state of 500 seeds need .* free. Lower `seeds=`, or take a smaller net"),
    ],
)
def test_a_state_that_cannot_fit_is_refused(seeds, width, says):
    with pytest.raises(InputError, match=says):
        init_states(lambda key: jnp.zeros(width), run_keys(0, seeds), optax.adam(0.1))


def test_the_state_counts_twice_with_the_moments_of_adam(monkeypatch):
    """100 numbers, twice as moments, and Adam's count and the step: 1,208 bytes, twice."""
    init, tx = lambda key: jnp.zeros(100), optax.adam(0.1)
    monkeypatch.setattr(memory, "memory_at_hand", lambda: 2 * 1208)
    assert init_states(init, run_keys(0, 1), tx).params.shape == (1, 100)
    monkeypatch.setattr(memory, "memory_at_hand", lambda: 2 * 1208 - 1)
    with pytest.raises(InputError, match=r"need 0\.0 GiB"):
        init_states(init, run_keys(0, 1), tx)


def program(elements):
    """It has intermediate values of four bytes per element."""
    x = jnp.zeros(elements, jnp.float32)
    return jax.jit(lambda x: jnp.sort(jnp.sin(x))[0]).lower(x).compile()


def test_a_program_counts_with_its_intermediate_values_on_each_device_of_a_cpu(monkeypatch):
    compiled = program(10**6)
    need = compiled.memory_analysis().temp_size_in_bytes
    assert need >= 4 * 10**6
    monkeypatch.setattr(memory, "memory_at_hand", lambda: need + 100)
    memory.refuse_program(compiled, 1)
    with pytest.raises(TooLarge, match=r"a program of the training needs 0\.0 GiB"):
        memory.refuse_program(compiled, 2)
    monkeypatch.setattr(memory, "memory_at_hand", lambda: need - 100)
    with pytest.raises(TooLarge, match=r"Train fewer seeds or tasks at once"):
        memory.refuse_program(compiled, 1)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_training_whose_program_is_too_large_is_refused_before_its_first_step(
    monkeypatch, devices
):
    keys, tx = run_keys(0, 1), optax.sgd(0.1)
    state = init_states(lambda key: jnp.zeros(3), keys, tx)
    step = make_step(lambda key, step, params, batch: (params, {"loss": jnp.sum(batch)}), tx)
    monkeypatch.setattr(memory, "memory_at_hand", lambda: 8)
    stream = task_stream(lambda key: jnp.ones(3), 2)
    with pytest.raises(TooLarge):
        next(loop(step, stream, keys, state, steps=2, devices=devices))


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.memory_at_hand() is None
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:   7000 kB\n")
    assert memory.memory_at_hand() == 7000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert memory.memory_at_hand() == 7000 * 1024
    (tmp_path / "memory.max").write_text("5000\n")
    assert memory.memory_at_hand() == 4000
    (tmp_path / "memory.stat").write_text("anon 600\ninactive_file 300\nactive_file 100\n")
    assert memory.memory_at_hand() == 4300  # it takes back pages of files that nobody reads
