"""The long-memory tasks against what their papers define, example by example and on average."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.data.sets.sequences import ADDING_BASELINE, adding, copying, copying_baseline
from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy


@pytest.mark.parametrize("length", [2, 7, 100])
def test_adding_marks_one_number_in_each_half_and_asks_for_their_sum(length):
    x, y, weight = jax.jit(jax.vmap(adding(length=length)))(
        jax.random.split(jax.random.key(0), 500)
    )
    assert x.shape == (500, length, 2)
    assert y.shape == (500, 1)
    assert weight is None
    numbers, marks = np.moveaxis(np.asarray(x), 2, 0)
    half = length // 2
    assert set(np.unique(marks)) <= {0, 1}
    assert (marks[:, :half].sum(1) == 1).all()
    assert (marks[:, half:].sum(1) == 1).all()
    assert (marks.sum(0) > 0).all() or length > 50  # every place comes
    np.testing.assert_allclose(y[:, 0], (numbers * marks).sum(1), rtol=1e-6)
    assert 0 <= numbers.min() < 0.02
    assert 0.98 < numbers.max() < 1


def test_the_baseline_of_adding_is_the_error_of_always_answering_one():
    y = jax.jit(jax.vmap(adding(length=10)))(jax.random.split(jax.random.key(1), 20_000)).y
    error = np.square(np.asarray(y) - 1)
    assert abs(error.mean() - ADDING_BASELINE) < 4 * error.std() / np.sqrt(len(y))


def test_copying_shows_symbols_waits_signals_and_asks_for_them():
    sample = copying(delay=5, symbols=3, count=4)
    x, y, _ = jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(0), 300))
    assert x.shape == (300, 13, 5)
    assert y.shape == (300, 13)
    assert y.dtype == np.int32
    np.testing.assert_array_equal(np.asarray(x).sum(2), 1)
    shown = np.asarray(x).argmax(2)
    assert set(np.unique(shown[:, :4])) == {0, 1, 2}
    np.testing.assert_array_equal(shown[:, 4:], np.tile([3] * 4 + [4] + [3] * 4, (300, 1)))
    np.testing.assert_array_equal(y[:, :9], 3)
    np.testing.assert_array_equal(y[:, 9:], shown[:, :4])


def test_the_baseline_of_copying_is_the_loss_of_who_knows_the_time_alone():
    sizes = {"delay": 6, "symbols": 4, "count": 3}
    y = jax.vmap(copying(**sizes))(jax.random.split(jax.random.key(2), 50)).y
    logits = np.full((12, 5), -1e4, np.float32)
    logits[:9, 4] = 0
    logits[9:, :4] = 0
    loss, _ = cross_entropy(jnp.tile(logits, (50, 1, 1)), y)
    np.testing.assert_allclose(loss, copying_baseline(**sizes), rtol=1e-5)


@pytest.mark.parametrize(
    "make", [lambda: adding(length=1), lambda: copying(delay=0), lambda: copying(delay=1, count=0)]
)
def test_tasks_without_steps_are_refused(make):
    with pytest.raises(InputError, match=r"length 1 has no two|must be at least 1"):
        make()
