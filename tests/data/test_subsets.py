"""Subsets: so many of each class, each once an epoch, nested, drawn by one program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxdl.data.subsets import Subset, by_class, cells, divided, in_turn, size, subset_epochs
from jaxdl.errors import InputError
from jaxdl.train.streams import run_keys
from jaxdl.types import WHOLE, Shard

SIZES = (4, 9, 6)
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(3), SIZES))
X = np.arange(100, 100 + len(LABELS)).astype(np.int32)  # an example is its own name
TABLE = by_class(X, LABELS)


MOST = 64  # turns at once, so that one program serves all tests


@jax.jit
def sequence(subset, order_key, first):
    return in_turn(TABLE, subset, order_key, first + jnp.arange(MOST))


def names_of(key, shots, first=0, order=99):
    subset = Subset(jax.random.key(key), jnp.int32(shots))
    rows, labels = sequence(subset, jax.random.key(order), first)
    total = int(size(TABLE, shots))
    return np.asarray(TABLE.x[rows])[:total], np.asarray(labels)[:total]


@pytest.mark.parametrize("shots", [1, 3, 5, 2**30])
def test_an_epoch_has_each_member_once_with_its_label(shots):
    wanted = np.minimum(SIZES, shots)
    assert int(size(TABLE, shots)) == wanted.sum()
    orders = []
    for epoch in range(3):
        names, labels = names_of(5, shots, first=epoch * wanted.sum())
        assert len(set(names)) == wanted.sum()
        np.testing.assert_array_equal(labels, LABELS[names - 100])
        np.testing.assert_array_equal(np.bincount(labels), wanted)
        orders.append(names)
    assert set(orders[0]) == set(orders[1]) == set(orders[2])


def test_smaller_subsets_lie_inside_larger_ones_and_keys_choose_others():
    one, three, five = (set(names_of(5, shots)[0]) for shots in (1, 3, 5))
    assert one < three < five
    assert set(names_of(5, 3, order=7)[0]) == three  # whatever the order
    others = {frozenset(names_of(key, 1)[0]) for key in range(20)}
    assert len(others) > 10


def test_every_example_is_chosen_as_often_as_another():
    draws = 3000
    pairs = jax.jit(
        jax.vmap(lambda key: in_turn(TABLE, Subset(key, jnp.int32(2)), key, jnp.arange(6))[0])
    )
    found = np.bincount(np.ravel(pairs(run_keys(0, draws))), minlength=len(X)) / draws
    expected = np.repeat(2 / np.array(SIZES), SIZES)
    error = np.sqrt(expected * (1 - expected) / draws)
    assert (np.abs(found - expected) < 4.5 * error).all()


def test_runs_of_one_program_keep_to_their_own_subsets():
    keys, traced = run_keys(0, 3), []

    def transform(key, x):
        traced.append(x)
        return x + (jax.random.uniform(key) > 2)

    @jax.jit
    def run(stream, key):
        return jax.vmap(lambda step: stream(key, step))(jnp.arange(8))

    first = Subset(run_keys(7, 3), jnp.array([1, 5, 100]))
    stream = subset_epochs(TABLE, batch=6, transform=transform, runs=keys, subsets=first)
    for shots in ([1, 5, 100], [2, 3, 4]):
        subsets = Subset(first.key, jnp.array(shots))
        other = Partial(stream.func, *stream.args[:-1], subsets)
        for i, key in enumerate(keys):
            batch = run(other, key)
            names, member = np.ravel(batch.x), set(names_of(7 + i, shots[i])[0])
            assert set(names) == member
            np.testing.assert_array_equal(np.ravel(batch.y), LABELS[names - 100])
            # 48 turns through the subset: each member as often as another, up to one.
            often = np.bincount(names)[sorted(member)]
            assert often.max() - often.min() <= 1
    assert len(traced) == 1, "other subsets must not compile again"


def test_two_devices_draw_what_one_draws():
    keys = run_keys(0, 2)
    subsets = Subset(keys, jnp.array([2, 4]))
    noisy = lambda key, x: x + jax.random.uniform(key)  # noqa: E731
    stream = subset_epochs(TABLE, batch=8, transform=noisy, runs=keys, subsets=subsets)
    alone, *halves = jax.jit(
        lambda: [stream(keys[1], 3, shard) for shard in (WHOLE, Shard(0, 2), Shard(1, 2))]
    )()
    np.testing.assert_array_equal(alone.x, np.concatenate([half.x for half in halves]))
    np.testing.assert_array_equal(alone.y, np.concatenate([half.y for half in halves]))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 2], "no example has the label 1, but each of 0 to 2"),
        ([1, 2], "no example has the label 0, but each of 0 to 2"),
        ([0, 10**9], "no example has the label 1, "),
        ([0], "2 examples and 1 labels"),
        ([[0], [1]], "shape"),
    ],
)
def test_labels_that_are_not_those_of_classes_are_refused(labels, words):
    with pytest.raises(InputError, match=words):
        by_class(np.zeros((2, 3)), labels)


def test_each_of_the_classes_that_are_known_must_come():
    assert len(by_class(X, LABELS, classes=3).sizes) == 3
    with pytest.raises(InputError, match="no example has the label 3, but each of 0 to 3"):
        by_class(X, LABELS, classes=4)


@pytest.mark.parametrize(
    ("batch", "runs", "subsets"), [(0, [0, 1], 2), (4, [0, 0], 2), (4, [0], 2)]
)
def test_a_stream_that_cannot_tell_its_runs_apart_is_refused(batch, runs, subsets):
    with pytest.raises(InputError):
        subset_epochs(
            TABLE,
            batch=batch,
            transform=lambda key, x: x,
            runs=jax.vmap(jax.random.key)(jnp.array(runs)),
            subsets=Subset(run_keys(0, subsets), jnp.ones(subsets, jnp.int32)),
        )


def test_cells_are_rates_by_counts_by_seeds_and_a_seed_keeps_its_examples():
    found = cells(run_keys(4, 2), (1, 0), (0.1, 0.2))
    np.testing.assert_allclose(found.rates, [0.1] * 4 + [0.2] * 4)
    np.testing.assert_array_equal(found.subsets.shots, [1, 1, 2**30, 2**30] * 2)
    np.testing.assert_array_equal(found.seeds, [0, 1] * 4)
    data = jax.random.key_data(found.subsets.key)
    np.testing.assert_array_equal(data[::2], data[:1].repeat(4, 0))
    np.testing.assert_array_equal(data[1::2], data[1:2].repeat(4, 0))
    assert (data[0] != data[1]).any()
    assert len(np.unique(jax.random.key_data(found.keys), axis=0)) == 8


def test_data_are_divided_within_each_class():
    labels = np.array([1, 0, 1, 1, 0, 0, 1, 0, 1])
    first, second, rest = divided(labels, 2, 1)
    np.testing.assert_array_equal(first, [1, 4, 0, 2])
    np.testing.assert_array_equal(second, [5, 3])
    np.testing.assert_array_equal(rest, [7, 6, 8])
    first, second, rest = divided(labels, -1, 1)
    np.testing.assert_array_equal(first, [1, 4, 5, 0, 2, 3, 6])
    np.testing.assert_array_equal(second, [7, 8])
    assert len(rest) == 0


def test_gaps_between_labels_divide_as_well():
    labels = np.array([7, 2, 7, 2, 10**9])
    assert [part.tolist() for part in divided(labels, 1, 1)] == [[1, 0, 4], [3, 2], []]


def test_all_but_more_than_a_class_has_is_none_of_it():
    labels = np.repeat([0, 1], [3, 40])
    assert [len(part) for part in divided(labels, -100, 2)] == [0, 4, 39]
    first, second, _ = divided(labels, -3, 2)
    np.testing.assert_array_equal(np.bincount(labels[first]), [0, 37])
    np.testing.assert_array_equal(np.bincount(labels[second]), [2, 2])


def test_a_key_that_is_none_of_the_runs_gets_no_labels():
    runs = run_keys(0, 2)
    subsets = Subset(run_keys(5, 2), jnp.array([1, 2]))
    stream = subset_epochs(TABLE, batch=4, transform=lambda key, x: x, runs=runs, subsets=subsets)
    assert (np.asarray(stream(runs[1], 0).y) >= 0).all()
    assert (np.asarray(stream(jax.random.key(77), 0).y) == -1).all()


def test_integers_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"from 0 to 4294967301, which do not fit into int32"):
        by_class(np.array([0, 2**32 + 5]), np.array([0, 1]))
