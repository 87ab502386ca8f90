"""Nearest class mean of the raw inputs: the baseline that learned features must beat."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Float

from jaxdl.errors import InputError
from jaxdl.meta.base import through_adaptation
from jaxdl.meta.protonet import Prototypes, protonet
from jaxdl.meta.vectors import unit
from jaxdl.types import Array, Key, LossFn, MetaLearner, Model, PyTree, Weight


def nearest_centroid(
    loss: LossFn, *, ways: int, distance: Literal["euclidean", "cosine"] = "euclidean"
) -> MetaLearner:
    """Nearest class mean of the raw inputs. It is the baseline that learned features must beat.

    Its parameters are empty.

    Args:
        distance: "euclidean": logits are minus the squared distance to each class mean. "cosine":
            logits are the cosine of the angle between them, in [-1, 1], so the brightness of an
            image does not count. An input of zeros has cosine 0 with all.

    Raises:
        InputError: if there is no such distance.

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> learner = jaxdl.nearest_centroid(jaxdl.cross_entropy, ways=2)
    >>> support = jaxdl.Batch(jnp.array([[0.0], [2.0], [9.0]]), jnp.array([0, 0, 1]))
    >>> adapted = learner.adapt(jax.random.key(0), (), support)
    >>> learner.predict(adapted, jnp.array([[4.0]])).tolist()  # 3 and 5 from the two means
    [[-9.0, -25.0]]
    """
    if distance not in ("euclidean", "cosine"):
        raise InputError(f"`distance={distance}` is unknown. Choose euclidean or cosine")
    identity = Model(lambda key, x: (), lambda params, x, *, key=None, weight=None: x)
    learner = protonet(identity, loss, ways=ways)
    if distance == "euclidean":
        return learner

    def predict(
        adapted: Prototypes, x: PyTree, *, key: Key | None = None, weight: Weight | None = None
    ) -> Float[Array, "n ways"]:
        del key, weight  # no net that has dropout or a norm
        cosines = unit(x.reshape(x.shape[0], -1)) @ unit(adapted.means).T
        return jnp.where(adapted.present[None], cosines, -jnp.inf)

    grad = through_adaptation(learner.adapt, predict, loss)
    return learner._replace(predict=predict, grad=grad)
