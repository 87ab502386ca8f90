"""What does not fit is refused by shapes, before anything is allocated."""

import jax.numpy as jnp
import optax
import pytest

from jaxdl.errors import InputError
from jaxdl.train import memory
from jaxdl.train.steps import init_states
from jaxdl.train.streams import run_keys


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
