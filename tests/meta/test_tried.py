"""Learners that cannot work, each told by what is wrong with it."""

import jax
import jax.numpy as jnp
import pytest

from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.meta.drawn import check_values
from jaxdl.meta.nearest_centroid import nearest_centroid
from jaxdl.meta.protonet import protonet
from jaxdl.meta.support_mean import support_mean
from jaxdl.meta.tried import check_learner
from jaxdl.models.mlp import mlp
from jaxdl.types import Batch, Cells, Episode
from tests.meta.contract import lines, uneven

LEARNER = nearest_centroid(cross_entropy, ways=3)
X = jnp.ones((4, 2))
EPISODE = Episode(Batch(X, jnp.array([0, 1, 2, 2])), Batch(X, jnp.array([0, 1, 1, 2])))


def test_learners_that_work_pass():
    check_learner(LEARNER, EPISODE)
    check_learner(nearest_centroid(cross_entropy, ways=5), EPISODE, cross_entropy)
    check_learner(protonet(mlp((2,)), cross_entropy, ways=3), uneven()[0])
    check_learner(support_mean(mean_squared_error), lines(jax.random.key(0)))


def test_numbers_as_targets_are_no_labels():
    """Whole numbers as targets of a regression, more than there are outputs."""
    y = jnp.array([[9], [8], [7], [6]])
    check_learner(support_mean(mean_squared_error), Episode(Batch(X, y), Batch(X, y)))


@pytest.mark.parametrize("loss", [None, cross_entropy])
def test_more_labels_than_outputs(loss):
    words = r"predicts 2 classes, but the labels of an episode go up to 2. Give it 3 outputs or `wa"
    with pytest.raises(InputError, match=words):
        check_learner(nearest_centroid(cross_entropy, ways=2), EPISODE, loss)


def changed(part, **fields):
    return EPISODE._replace(**{part: getattr(EPISODE, part)._replace(**fields)})


@pytest.mark.parametrize(
    ("episode", "words"),
    [
        (changed("support", y=jnp.array([-1, 0, 1, 2])), "has the label -1, but labels count from"),
        (changed("query", y=jnp.array([0, 1, 2, -7])), "has the label -7, but labels count from 0"),
        (changed("query", weight=-jnp.ones(4)), "query set of an episode has a weight that is neg"),
        (changed("support", weight=jnp.full(4, jnp.nan)), "support set of an episode has a weight"),
        (changed("query", weight=jnp.zeros(4)), "the query set of an episode has no example that"),
        (changed("support", x=X.at[2, 1].set(jnp.nan)), "the inputs of the support set of an epis"),
        (changed("query", x={"a": X, "b": X.at[0].set(jnp.inf)}), "the inputs of the query set of"),
    ],
)
def test_episodes_that_nobody_can_learn(episode, words):
    with pytest.raises(InputError, match=words):
        check_learner(LEARNER, episode)


def test_what_does_not_count_may_be_anything():
    weight = jnp.array([1, 1, 1, 0])
    part = Batch(X.at[3].set(jnp.nan), jnp.array([0, 1, 2, -1]), weight)
    check_learner(LEARNER, Episode(part, part))
    known = jnp.ones((4, 2), bool).at[0].set(False)
    cells = Batch(Cells(X.at[0].set(jnp.nan), known), EPISODE.query.y)
    check_values("support set", cells)  # a cell that is not known has any value


def test_padding_has_no_label():
    y = jnp.array([0, 1, 1, 7])
    batch = Batch(X, y, jnp.array([1.0, 1.0, 1.0, 0.0]))
    check_learner(nearest_centroid(cross_entropy, ways=2), Episode(batch, batch))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"adapt": lambda key, params, support: params},
            r"a function adapt that takes \(key, p",
        ),
        (
            {"predict": lambda adapted, x: x},
            r"predict that takes \(adapted, x\). Write predict",
        ),
        (
            {"init": lambda key: ()},
            r"init that takes \(key\). Write init\(key, x\); see",
        ),
        (
            {"grad": lambda params, batch: ()},
            r"grad that takes .* Write grad\(key, step",
        ),
        ({"grad": lambda *given: None}, r"does not return \(grads, metrics\). Write grad"),
        (
            {"predict": lambda adapted, x, *, key=None, weight=None: None},
            r"the predict of this learner returned nothing. Write predict\(ada",
        ),
    ],
)
def test_functions_that_cannot_be_called(changed, words):
    with pytest.raises(InputError, match=words):
        check_learner(LEARNER._replace(**changed), EPISODE)


def test_what_is_no_learner():
    with pytest.raises(InputError, match=r"this is no learner: it has no function init. Write"):
        check_learner(nearest_centroid, EPISODE)
