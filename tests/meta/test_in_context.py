"""What all learners that read the support set promise, beside the contract."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.meta.lstm_learner import lstm_learner
from jaxdl.meta.pfn import pfn
from jaxdl.meta.snail import snail
from jaxdl.models.mlp import mlp
from jaxdl.types import Batch

RNG = np.random.default_rng(0)
SUPPORT = Batch(jnp.asarray(RNG.normal(size=(6, 4)), "float32"), jnp.array([0, 0, 1, 1, 2, 2]))
QUERIES = jnp.asarray(RNG.normal(size=(5, 4)), "float32")
LEARNERS = {
    "lstm_learner": partial(lstm_learner, units=4),
    "snail": partial(snail, length=4, width=2),
    "pfn": partial(pfn, width=4, heads=2, layers=2),
}


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name == "snail")) for name in LEARNERS],
    scope="module",
)
def learnt(request):
    make = LEARNERS[request.param]
    learner = make(mlp((3,)), cross_entropy, ways=3)
    params = learner.init(jax.random.key(0), SUPPORT.x)

    @jax.jit
    def answer(support, x):
        return learner.predict(learner.adapt(jax.random.key(1), params, support), x)

    return answer, make


def test_an_answer_does_not_depend_on_other_queries(learnt):
    answer, _ = learnt
    found = answer(SUPPORT, QUERIES)
    changed = answer(SUPPORT, QUERIES.at[1:].set(9.0))
    np.testing.assert_array_equal(changed[0], found[0])
    assert not np.allclose(changed[1:], found[1:])
    np.testing.assert_allclose(answer(SUPPORT, QUERIES[:1])[0], found[0], atol=1e-6)


def test_an_answer_depends_on_inputs_and_labels_of_each_example(learnt):
    answer, _ = learnt
    found = answer(SUPPORT, QUERIES)
    for row in range(6):
        x = SUPPORT._replace(x=SUPPORT.x.at[row].add(1.0))
        y = SUPPORT._replace(y=SUPPORT.y.at[row].set((SUPPORT.y[row] + 1) % 3))
        assert not np.allclose(answer(x, QUERIES), found, atol=1e-7)
        assert not np.allclose(answer(y, QUERIES), found, atol=1e-7)


def test_rows_of_weight_0_anywhere_are_as_if_cut(learnt):
    answer, _ = learnt
    at = jnp.array([1, 2, 4, 5, 6, 9])
    padded = Batch(
        jnp.full((11, 4), jnp.nan).at[at].set(SUPPORT.x),
        jnp.full(11, -100).at[at].set(SUPPORT.y),
        jnp.zeros(11).at[at].set(1),
    )
    np.testing.assert_allclose(answer(padded, QUERIES), answer(SUPPORT, QUERIES), atol=1e-5)


def test_a_support_set_of_nothing_that_counts_gives_numbers(learnt):
    answer, _ = learnt
    assert np.isfinite(answer(SUPPORT._replace(weight=jnp.zeros(6)), QUERIES)).all()


def test_numbers_of_another_width_are_refused(learnt, key):
    learner = learnt[1](mlp((3,)), mean_squared_error, ways=1)
    params = learner.init(key, SUPPORT.x)
    with pytest.raises(InputError, match=r"targets are \[6, 2\], and .* `ways=1` numbers each"):
        learner.adapt(key, params, SUPPORT._replace(y=jnp.ones((6, 2))))
