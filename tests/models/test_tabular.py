"""The net of the tabular learner by NumPy in float64, and what it promises of rows and columns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.models.layers.attention import attend, attend_in_groups
from jaxdl.models.tabular import CLIP, LEAST_VOTE, Labelled, moments, tabular_transformer
from jaxdl.types import Cells

RNG = np.random.default_rng(0)
ROWS, ASKED, COLUMNS, CLASSES = 7, 3, 5, 4
X, Q = 3 + 2 * RNG.normal(size=(ROWS, COLUMNS)), 3 + 2 * RNG.normal(size=(ASKED, COLUMNS))
KNOWN, Q_KNOWN = RNG.uniform(size=X.shape) < 0.8, RNG.uniform(size=Q.shape) < 0.8
KNOWN[:, 2] = False  # a column that is not there, beside one that is
Y = np.array([0, 1, 3, 1, 0, 3, 2])  # the one row of class 2 does not count
WEIGHT = np.array([1.0, 2, 1, 1, 1, 1, 0])
NET = tabular_transformer(CLASSES, features=6, width=4, heads=2, layers=2, group=2)


def table_of(x, known, y, weight):
    cells = Cells(jnp.asarray(x, "float32"), jnp.asarray(known))
    return Labelled(cells, jnp.eye(CLASSES)[y], jnp.asarray(weight, "float32"))


TABLE = table_of(X, KNOWN, Y, WEIGHT)
ASKED_CELLS = Cells(jnp.asarray(Q, "float32"), jnp.asarray(Q_KNOWN))


@pytest.fixture(scope="module")
def params():
    """Moved so that no bias is 0."""
    found = jax.jit(NET.init)(jax.random.key(0), TABLE)
    noise = np.random.default_rng(1).normal
    return jax.tree.map(lambda p: p + 0.3 * noise(size=p.shape).astype("float32"), found)


@pytest.fixture(scope="module")
def answer(params):
    run = jax.jit(lambda params, table, x: NET.decode(params, NET.encode(params, table), x))
    return lambda table=TABLE, x=ASKED_CELLS: np.asarray(run(params, table, x))


# ---- the oracle


def dense(params, x):
    return x @ params["kernel"] + params["bias"]


def norm(params, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * params["scale"] + params["bias"]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def attention(q, k, v, weight, heads=2):
    """Of rows of vectors; each key as often as its weight says."""
    read = []
    for head in np.split(np.arange(q.shape[1]), heads):
        shares = weight * np.exp(q[:, head] @ k[:, head].T / np.sqrt(len(head)))
        read.append(shares @ v[:, head] / shares.sum(axis=1, keepdims=True))
    return np.concatenate(read, axis=1)


def by_numpy(params):
    params = jax.tree.map(lambda leaf: np.asarray(leaf, float), params)
    counts = KNOWN * WEIGHT[:, None]
    present = counts.sum(0) > 0
    mean = np.array(
        [np.average(X[:, j], weights=counts[:, j]) if present[j] else 0 for j in range(5)]
    )
    std = np.array(
        [
            np.sqrt(np.average((X[:, j] - mean[j]) ** 2, weights=counts[:, j])) if present[j] else 1
            for j in range(5)
        ]
    )

    def tokens(x, known, labels):
        z = CLIP * np.tanh((x - mean) / std / CLIP)
        found = np.zeros((len(x), 4, 4))
        for i in range(len(x)):
            for j in np.flatnonzero(present):
                cell = params["direction"][j] * z[i, j] if known[i, j] else params["unknown"][j]
                found[i, j // 2] += cell + params["place"][j]
        found[:, 3] = labels
        return found

    # The third group of columns has the fifth column alone.
    groups = np.array([1.0, float(present[2:4].any()), 1.0, 1.0])
    support = tokens(X, KNOWN, dense(params["label"], np.eye(CLASSES)[Y]))
    queries = tokens(Q, Q_KNOWN, np.repeat(params["asked"][None], ASKED, 0))
    for i in range(2):
        block = params[f"blocks_{i}"]

        def across(rows, block=block):
            normed = norm(block["norms_0"], rows)
            q, k, v, o = (block[f"across_{j}"] for j in range(4))
            read = [attention(dense(q, r), dense(k, r), dense(v, r), groups) for r in normed]
            return rows + dense(o, np.stack(read))

        def along(rows, given, block=block):
            normed, others = norm(block["norms_1"], rows), norm(block["norms_1"], given)
            q, k, v, o = (block[f"along_{j}"] for j in range(4))
            read = [
                attention(
                    dense(q, normed[:, c]), dense(k, others[:, c]), dense(v, others[:, c]), WEIGHT
                )
                for c in range(4)
            ]
            rows = rows + dense(o, np.stack(read, axis=1))
            wide = gelu(dense(block["widen"], norm(block["norms_2"], rows)))
            return rows + dense(block["narrow"], wide)

        support, queries = across(support), across(queries)
        support, queries = along(support, support), along(queries, support)
    keys, asking = (norm(params["norm"], rows[:, -1]) for rows in (support, queries))
    scores = dense(params["ask"], asking) @ dense(params["key"], keys).T / np.sqrt(4)
    shares = WEIGHT * np.exp(scores)
    votes = shares @ np.eye(CLASSES)[Y] / shares.sum(1, keepdims=True)
    return np.log(votes + LEAST_VOTE) + dense(params["answer"], asking)


def test_the_net_by_numpy(params, answer):
    """In the last layer, the net leaves out what nothing reads, and NumPy computes it."""
    seen = [0, 1, 3]
    found = answer()
    np.testing.assert_allclose(found[:, seen], by_numpy(params)[:, seen], rtol=2e-4, atol=2e-5)
    assert (found[:, 2] == -1e9).all()


def test_a_row_that_is_asked_sees_no_other_bit_for_bit(answer):
    other = ASKED_CELLS._replace(values=ASKED_CELLS.values.at[0].add(7.0))
    np.testing.assert_array_equal(answer()[1:], answer(x=other)[1:])
    assert (answer()[0] != answer(x=other)[0]).any()


def test_the_order_of_labelled_rows_has_no_meaning(answer):
    order = np.random.default_rng(2).permutation(ROWS)
    table = table_of(X[order], KNOWN[order], Y[order], WEIGHT[order])
    np.testing.assert_allclose(answer(table), answer(), atol=1e-5)


def test_a_row_of_weight_0_is_cut_and_one_of_2_is_the_row_twice(answer):
    rows = [0, 1, 1, 2, 3, 4, 5]  # as many as before, so the program is the same
    table = table_of(X[rows], KNOWN[rows], Y[rows], np.ones(7))
    np.testing.assert_allclose(answer(table), answer(), atol=1e-5)
    void = TABLE._replace(cells=TABLE.cells._replace(values=TABLE.cells.values.at[6].set(1e6)))
    np.testing.assert_array_equal(answer(void), answer())


def test_unknown_values_do_not_count_and_a_column_without_known_cells_is_cut(answer, params):
    other = TABLE.cells._replace(values=jnp.where(KNOWN, TABLE.cells.values, 99.0))
    np.testing.assert_array_equal(answer(TABLE._replace(cells=other)), answer())
    # A fifth column that is not there, which is alone in its group.
    without = table_of(X, KNOWN & (np.arange(5) < 4), Y, WEIGHT)
    run = jax.jit(lambda params, table, x: NET.decode(params, NET.encode(params, table), x))
    cut = table_of(X[:, :4], KNOWN[:, :4], Y, WEIGHT)
    asked = jax.tree.map(lambda leaf: leaf[:, :4], ASKED_CELLS)
    np.testing.assert_allclose(answer(without), run(params, cut, asked), atol=1e-5)


def test_moments_are_those_of_the_known_cells_and_a_constant_column_has_the_deviation_1():
    x = np.array([[1e4 + 1, 5.0], [1e4 + 3, 5.0], [0, 5.0]])
    known = np.array([[True, True], [True, True], [False, True]])
    cells = Cells(jnp.asarray(x, "float32"), jnp.asarray(known))
    mean, deviation, count = jax.jit(moments)(cells, jnp.array([1.0, 1.0, 5.0]))
    assert mean.tolist() == [10_002, 5]
    assert deviation.tolist() == [1, 1]
    assert count.tolist() == [2, 7]
    assert float(jax.jit(moments)(cells, jnp.array([3.0, 1.0, 0.0]))[1][0]) == pytest.approx(
        np.sqrt(0.75)
    )


def test_attention_in_groups_is_attention_in_each():
    q, k, v = (RNG.normal(size=(3, n, 2, 4)).astype("float32") for n in (4, 5, 5))
    bias = jnp.array([0.0, -jnp.inf, 0.7, 0, -1])
    everywhere = jnp.broadcast_to(bias[None], (4, 5))
    found = jax.jit(attend_in_groups)(q, k, v, bias)
    each = jax.jit(jax.vmap(lambda q, k, v: attend(q, k, v, everywhere)))(q, k, v)
    np.testing.assert_allclose(found, each, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"heads": 3}, {"layers": 0}, {"group": 0}, {"classes": 1}])
def test_sizes_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError, match=r"a tabular transformer cannot have width=4, .* Give"):
        tabular_transformer(**({"classes": 3, "width": 4, "heads": 2} | wrong))
