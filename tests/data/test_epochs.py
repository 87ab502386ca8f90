"""Every example once an epoch, in an order that nobody can tell from a random one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from jaxdl.data.epochs import epochs, shuffled
from jaxdl.errors import InputError
from jaxdl.types import WHOLE, Batch, Shard


@partial(jax.jit, static_argnames=("number", "most"))
def _orders(key, count, *, number, most):
    of_place = jax.vmap(shuffled, (None, None, 0, None))
    of_epoch = jax.vmap(of_place, (None, 0, None, None))
    return of_epoch(key, jnp.arange(number), jnp.arange(most) % count, count)


def orders(seed, count, number):
    """The orders of `number` epochs, `[number, count]`; few sizes, for each is compiled anew."""
    most = next(size for size in (50, 5000, 60_000) if count <= size)
    found = _orders(jax.random.key(seed), jnp.int32(count), number=number, most=most)
    return np.asarray(found)[:, :count]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 9, 31, 32, 33, 1000, 4097, 60_000])
def test_an_epoch_is_a_permutation(count):
    """The count is traced: one program serves all of them."""
    for order in orders(count, count, 3):
        np.testing.assert_array_equal(np.sort(order), np.arange(count))


def likely(statistic, degrees):
    """Of chi-square tests of a true hypothesis one in 10,000 falls outside."""
    low, high = chi2.ppf([0.00005, 0.99995], degrees)
    assert low < statistic < high, (statistic, degrees)


def chi_square(categories, number):
    counts = np.bincount(categories, minlength=number)
    expected = len(categories) / number
    return np.sum((counts - expected) ** 2) / expected


@pytest.mark.parametrize("count", [10, 50])
def test_each_example_comes_at_each_place_equally_often(count):
    found = orders(1, count, 20_000)
    cells = (found + count * np.arange(count)).ravel()
    # Rows and columns of the table have fixed sums: (n - 1)^2 degrees of freedom, not n^2 - 1.
    likely(chi_square(cells, count**2) * (count - 1) / count, (count - 1) ** 2)


@pytest.mark.parametrize("places", [(0, 1), (2, 7), (0, -1)])
@pytest.mark.parametrize("count", [10, 50])
def test_each_pair_comes_at_each_pair_of_places_equally_often(count, places):
    found = orders(2, count, 20_000)
    one, two = (found[:, place] for place in places)
    assert (one != two).all()
    pairs = count * (count - 1)
    # The pairs of different examples, numbered without gaps.
    likely(chi_square(one * (count - 1) + two - (two > one), pairs), pairs - 1)


@pytest.mark.parametrize("count", [10, 50])
def test_epochs_and_keys_know_nothing_of_each_other(count):
    found, other = orders(3, count, 20_000), orders(4, count, 20_000)
    for place in (0, count - 1):
        now, later = found[:-1, place], found[1:, place]
        likely(chi_square(count * now + later, count**2), count**2 - 1)
        both = count * found[:, place] + other[:, place]
        likely(chi_square(both, count**2), count**2 - 1)


def test_no_two_epochs_of_many_examples_are_alike():
    found = orders(5, 1000, 3)
    same = [np.mean(a == b) for i, a in enumerate(found) for b in found[:i]]
    assert max(same) < 0.01  # one in a thousand by chance


# --- The stream ----------------------------------------------------------------------------------


def example(key, x):
    """What it was, and a number of its key."""
    return x, jax.random.uniform(key)


def stream(count=None, *, batch=4, n=10):
    return epochs(np.arange(n), 100 + np.arange(n), batch=batch, transform=example, count=count)


def drawn(made, steps, seed=0, shard=WHOLE):
    draw = jax.jit(lambda made, step: made(jax.random.key(seed), step, shard))
    batches = [draw(made, jnp.int32(step)) for step in range(steps)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)


@pytest.mark.parametrize("batch", [1, 4, 10, 23])
def test_batches_go_across_the_ends_of_epochs(batch):
    found = drawn(stream(batch=batch), -(-60 // batch))
    x, noise = found.x
    assert len(x) % batch == 0
    for epoch in x[:60].reshape(6, 10):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(10))
    np.testing.assert_array_equal(found.y, 100 + x)
    assert len(np.unique(noise)) == len(noise)  # no augmentation comes twice
    # The sequence is one, however it is cut into batches.
    np.testing.assert_array_equal(x[:60], drawn(stream(batch=1), 60).x[0])


def test_a_stream_has_the_order_of_its_key():
    one, again, other = (drawn(stream(), 5, seed).x for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one[0], other[0])
    assert not np.intersect1d(one[1], other[1]).size


def test_only_the_first_examples_and_their_number_may_be_traced():
    found = drawn(stream(7), 7).x[0]
    for epoch in found.reshape(4, 7):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(7))
    traced = jax.jit(lambda n: stream(n)(jax.random.key(0), jnp.int32(3)).x[0])
    np.testing.assert_array_equal(traced(jnp.int32(7)), found[12:16])


@pytest.mark.parametrize("devices", [2, 4])
def test_any_number_of_devices_draws_the_same_batch_and_augmentation(devices):
    whole = drawn(stream(batch=8), 3)
    parts = [drawn(stream(batch=8), 3, shard=Shard(i, devices)) for i in range(devices)]
    cut = lambda *leaves: np.concatenate([leaf.reshape(3, -1) for leaf in leaves], 1).ravel()  # noqa: E731
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(cut, *parts), whole)


def test_an_example_may_have_several_labels():
    labels = np.arange(6, dtype=np.uint8).reshape(3, 2)
    made = epochs(np.arange(3), labels, batch=3, transform=lambda key, x: x, classes=6)
    found = made(jax.random.key(0), 0)
    assert found.y.dtype == jnp.int32
    np.testing.assert_array_equal(found.y, labels[found.x])


def test_labels_that_are_no_classes_stay_what_they_are():
    made = epochs(np.ones(3), np.ones((3, 2), np.float32), batch=2, transform=lambda key, x: x)
    found = made(jax.random.key(0), 0)
    assert isinstance(found, Batch)
    assert found.y.shape == (2, 2)
    assert found.y.dtype == jnp.float32
    assert drawn(stream(), 1).y.dtype == np.int32


@pytest.mark.parametrize(
    ("x", "y", "options", "sentence"),
    [
        ([], [], {}, "0 examples and 0 labels make no data set"),
        ([1, 2], [1], {}, "2 examples and 1 labels make no data set"),
        ([1], [1], {"batch": 0}, "batch=0 must be at least 1"),
        ([1, 2], [1, 2], {"count": 0}, "count=0 must be from 1 to the 2 examples"),
        ([1, 2], [1, 2], {"count": 3}, "count=3 must be from 1 to the 2 examples"),
        ([1, 2], [0.5, 1.5], {}, r"y is float64 of shape \[n\]\. .* regression as \[n, features\]"),
        ([1, 2], [[0.0] * 2] * 2, {"classes": 2}, "labels are float64, but must be integers"),
        ([1, 2], [[0], [1]], {}, r"labels have the shape \[2, 1\]\. Give one per example, \[n\]"),
        ([1, 2], [[0, 1], [2, 0]], {"classes": 2}, "example 1 has the label 2, but the 2 classes"),
    ],
)
def test_wrong_arguments(x, y, options, sentence):
    make = partial(epochs, batch=2, transform=example)
    with pytest.raises(InputError, match=sentence):
        make(np.array(x), np.array(y), **options)


def test_integers_that_do_not_fit_are_refused():
    """JAX would cut them: 2**32 + 5 becomes 5."""
    flags = {"batch": 1, "transform": lambda key, x: x}
    with pytest.raises(InputError, match=r"from 0 to 4294967301, which do not fit into int32"):
        epochs(np.array([0, 2**32 + 5]), np.array([0, 1]), **flags)
    epochs(np.array([-(2**31), 2**31 - 1]), np.array([0, 1]), **flags)
