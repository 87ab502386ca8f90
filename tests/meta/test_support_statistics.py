"""Queries normalised by the support set: what one query gets does not depend on the others."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy, gaussian_nll
from jaxdl.meta.base import through_adaptation
from jaxdl.meta.cnp import cnp
from jaxdl.meta.es_maml import es_maml
from jaxdl.meta.finetune import finetune
from jaxdl.meta.lnp import lnp
from jaxdl.meta.maml import maml
from jaxdl.meta.maml_pp import maml_pp
from jaxdl.meta.protonet import protonet
from jaxdl.meta.reptile import reptile
from jaxdl.meta.support_statistics import by_support_statistics
from jaxdl.models.layers.norm import BatchNorm
from jaxdl.models.linen import pure
from jaxdl.models.mlp import mlp
from jaxdl.types import Batch, Episode

WAYS = 3
NET = mlp((8, 8, WAYS), norm="batch")
LEARNERS = {
    "maml": maml(NET, cross_entropy, tx=optax.sgd(0.1), steps=2),
    "protonet": protonet(NET, cross_entropy, ways=WAYS),
    "finetune": finetune(NET, cross_entropy, classes=7, ways=WAYS, tx=optax.sgd(0.1), steps=2),
}


def episode(queries=5):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(WAYS * 2 + queries, 4)), jnp.float32)
    y = jnp.arange(len(x)) % WAYS
    return Episode(Batch(x[: WAYS * 2], y[: WAYS * 2]), Batch(x[WAYS * 2 :], y[WAYS * 2 :]))


@pytest.mark.parametrize("name", LEARNERS)
def test_one_query_gets_what_it_gets_among_others(name, key):
    learner, (support, query) = by_support_statistics(LEARNERS[name]), episode()
    params = learner.init(key, support.x)
    adapted = learner.adapt(key, params, support)
    together = learner.predict(adapted, query.x)
    predict = jax.jit(learner.predict)
    alone = jnp.concatenate([predict(adapted, x[None]) for x in query.x])
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-6)
    others = learner.predict(adapted, query.x.at[1:].add(100))
    np.testing.assert_allclose(others[0], together[0], rtol=1e-5, atol=1e-6)
    # By the batch's own statistics the others decide, and there must be some.
    plain = LEARNERS[name].predict(adapted.adapted, query.x)
    assert np.abs(plain - together).max() > 1e-2
    with pytest.raises(InputError, match="single example"):
        LEARNERS[name].predict(adapted.adapted, query.x[:1])


def test_a_query_that_is_not_finite_spoils_its_own_prediction_alone(key):
    learner, (support, query) = by_support_statistics(LEARNERS["maml"]), episode()
    adapted = learner.adapt(key, learner.init(key, support.x), support)
    found = learner.predict(adapted, query.x.at[2, 1].set(jnp.nan))
    assert np.isnan(found[2]).all()
    expected, others = learner.predict(adapted, query.x), np.array([0, 1, 3, 4])
    np.testing.assert_allclose(found[others], expected[others], rtol=1e-5)


def test_the_statistics_are_those_of_the_support_set(key):
    """One norm, by NumPy; padding in the support set counts in none of it."""
    net = pure(nn.Sequential([BatchNorm("batch", False, False)]))
    learner = by_support_statistics(maml(net, cross_entropy, tx=optax.sgd(0.1), steps=0))
    support, query = episode()
    x = np.asarray(support.x, np.float64)
    expected = (np.asarray(query.x) - x.mean(0)) / np.sqrt(x.var(0) + 1e-3)
    for rows in (support, padded(support)):
        adapted = learner.adapt(key, learner.init(key, rows.x), rows)
        np.testing.assert_allclose(learner.predict(adapted, query.x), expected, rtol=1e-5)


def padded(batch):
    """The batch with rows of weight 0 behind it that hold nonsense."""
    n, rows = len(batch.x), jnp.full((3, *batch.x.shape[1:]), jnp.nan)
    return Batch(
        jnp.concatenate([batch.x, rows]),
        jnp.concatenate([batch.y, jnp.full(3, -100)]),
        jnp.concatenate([jnp.ones(n), jnp.zeros(3)]),
    )


def test_training_goes_through_the_support_statistics(key):
    """The meta-gradient of what predict says, by differences in float64."""
    with jax.enable_x64(True):
        learner = by_support_statistics(LEARNERS["maml"], cross_entropy)
        data = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf, float)), episode())
        data = jax.tree.map(lambda new, old: new if old.ndim > 1 else old, data, episode())
        params = jax.tree.map(lambda leaf: leaf.astype(float), learner.init(key, data.support.x))
        direction = jax.tree.map(
            lambda leaf: jnp.sin(jnp.arange(leaf.size) + 1.0).reshape(leaf.shape), params
        )

        @jax.jit
        def loss(step):
            moved = jax.tree.map(lambda a, b: a + step * b, params, direction)
            adapted = learner.adapt(key, moved, data.support)
            return cross_entropy(learner.predict(adapted, data.query.x), data.query.y)[0]

        grads, metrics = jax.jit(learner.grad)(key, jnp.int32(0), params, data)
        found = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, grads, direction)))
        np.testing.assert_allclose(found, (loss(1e-5) - loss(-1e-5)) / 2e-5, rtol=1e-6)
        np.testing.assert_allclose(metrics["loss"], loss(0.0), rtol=1e-12)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_keeps_its_type_and_without_a_loss_its_gradient(name):
    learner = LEARNERS[name]
    inductive = by_support_statistics(learner)
    assert type(inductive) is type(learner)
    assert inductive.grad is learner.grad
    assert inductive.init is learner.init


def test_a_learner_of_labelled_examples_takes_no_loss_of_queries():
    """Its gradient would be of episodes, which its type does not allow."""
    with pytest.raises(InputError, match=r"trains on labelled examples .*: leave out `loss`"):
        by_support_statistics(LEARNERS["finetune"], cross_entropy)


def test_the_gradient_is_that_of_the_loss_and_the_adaptation_that_are_given(key):
    """Not of those that the learner was made with."""
    smooth = partial(cross_entropy, smoothing=0.5)
    base = LEARNERS["maml"]

    def half(key, params, support, steps=None):
        return jax.tree.map(lambda leaf: leaf / 2, base.adapt(key, params, support, steps))

    for learner in (base, base._replace(adapt=half)):
        made = by_support_statistics(learner, smooth)
        params = base.init(key, episode().support.x)
        expected = through_adaptation(made.adapt, made.predict, smooth)
        found, expected = (
            jax.jit(grad)(key, 0, params, episode()) for grad in (made.grad, expected)
        )
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    "make", [partial(maml_pp, steps=0), partial(es_maml, tx=optax.sgd(0.1), steps=0)]
)
def test_a_gradient_of_a_learner_s_own_is_of_the_given_loss_and_is_made_once(make, key):
    """Without inner steps, the loss that the learner was made with has no part in it."""
    smooth = partial(cross_entropy, smoothing=0.5)
    made, other = (
        by_support_statistics(make(NET, loss), smooth) for loss in (cross_entropy, smooth)
    )
    params = jax.jit(made.init)(key, episode().support.x)
    found, expected = (jax.jit(each.grad)(key, 0, params, episode()) for each in (made, other))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    with pytest.raises(InputError, match="Ask for them once"):
        by_support_statistics(made, smooth)


@pytest.mark.parametrize(
    "learner",
    [
        reptile(NET, cross_entropy, tx=optax.sgd(0.1), steps=2),
        lnp(mlp((4,)), gaussian_nll, ways=1, width=4),
        cnp(mlp((4,)), gaussian_nll, ways=1, width=4),
    ],
    ids=["reptile", "lnp", "cnp"],
)
def test_a_gradient_of_another_kind_is_not_replaced_in_silence(learner):
    """Reptile would become MAML, and a neural process would lose its bound."""
    with pytest.raises(InputError, match="is not that of a loss of queries after adaptation"):
        by_support_statistics(learner, cross_entropy)
    assert by_support_statistics(learner).grad is learner.grad
