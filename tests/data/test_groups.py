"""A group is a task: rows of one group, targets of their own rows, all groups equally likely."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.data.groups import grouped

GROUPS = np.array(["anna"] * 3 + ["bert"] * 9 + ["cora"] * 4)
ROWS = np.arange(16)
X = {"row": ROWS.astype(np.float32), "token": ROWS}


def draws(sample, count):
    return jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(0), count))


def test_targets_belong_to_their_rows_and_rows_to_one_group():
    sample = grouped(X, 10.0 * ROWS[:, None], GROUPS, shots=2, queries=1)
    support, query = draws(sample, 200)
    assert support.weight is None
    rows = np.concatenate([support.x["row"], query.x["row"]], axis=1).astype(int)
    np.testing.assert_array_equal(support.y[..., 0], 10 * support.x["row"])
    np.testing.assert_array_equal(query.y[..., 0], 10 * query.x["row"])
    np.testing.assert_array_equal(support.x["token"], support.x["row"])
    assert support.x["token"].dtype == jnp.int32
    assert all(len(set(row)) == 3 for row in rows.tolist())
    names = GROUPS[rows]
    assert (names == names[:, :1]).all()


def test_groups_are_equally_likely_whatever_their_size():
    sample = grouped(X, ROWS.astype(float), GROUPS, shots=1, queries=1)
    support, _ = draws(sample, 3000)
    names, counts = np.unique(GROUPS[support.x["token"][:, 0]], return_counts=True)
    assert names.tolist() == ["anna", "bert", "cora"]
    assert (np.abs(counts - 1000) < 4 * np.sqrt(3000 * 2 / 9)).all()


def test_a_small_group_gives_fewer_of_both_and_a_tiny_one_is_left_out():
    with pytest.warns(UserWarning, match="fewer than") as told:
        sample = grouped(X, ROWS.astype(float), GROUPS, shots=3, queries=2)
    assert ["anna (3)" in str(told[0].message), "cora (4)" in str(told[1].message)] == [True, True]
    support, query = draws(sample, 200)
    names = GROUPS[support.x["token"][:, 0]]
    assert set(names) == {"bert", "cora"}
    for name, given, asked in (("bert", 3, 2), ("cora", 2, 2)):
        of = names == name
        assert (np.asarray(support.weight)[of].sum(axis=1) == given).all()
        assert (np.asarray(query.weight)[of].sum(axis=1) == asked).all()


def test_classes_mean_the_same_in_all_groups():
    sample = grouped(X, ROWS % 3, GROUPS, shots=2, queries=1)
    support, _ = draws(sample, 50)
    assert support.y.dtype == jnp.int32
    np.testing.assert_array_equal(support.y, support.x["token"] % 3)


@pytest.mark.parametrize(
    "y", [np.uint8(ROWS)[:, None], {"age": np.uint8(ROWS)}, list(np.uint8(ROWS))]
)
def test_bytes_are_pictures_in_x_and_numbers_in_y(y):
    pictures = np.uint8(5 * ROWS)[:, None]
    support, _ = draws(grouped({"row": ROWS, "of": pictures}, y, GROUPS, shots=2, queries=1), 20)
    found = jax.tree.leaves(support.y)[0].reshape(20, 2)
    np.testing.assert_array_equal(found, support.x["row"])
    assert found.dtype == jnp.int32
    np.testing.assert_allclose(support.x["of"][..., 0], 5 * support.x["row"] / 255, rtol=1e-6)
