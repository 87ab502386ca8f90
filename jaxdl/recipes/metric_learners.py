"""Flags of the learners that compare features, or solve for a head; see `recipes/learners.py`."""

from typing import Any, Literal

from jaxdl.meta import r2d2 as r2d2_
from jaxdl.meta import relationnet as relationnet_
from jaxdl.meta.relation_error import relation_error
from jaxdl.runs.config import Positive
from jaxdl.types import (
    Embedding,
    LossFn,
    MetaLearner,
)


def r2d2(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    strength: float = 1.0,
    scale: float = 10.0,
    inner_dropout: bool = False,
) -> MetaLearner:
    """R2-D2, ridge regression on learned features (arXiv:1805.08136).

    Args:
        strength: Strength of the ridge penalty at the start of training.
        scale: Scale of the scores at the start of training.
        inner_dropout: Dropout in the embedding of the support set, too.
    """
    options: dict[str, Any] = {"strength": strength, "inner_dropout": inner_dropout}
    return r2d2_.r2d2(features, loss, ways=ways, scale=scale, **options)


def r2d2_of_curves(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    strength: Positive = 1.0,
) -> MetaLearner:
    """R2-D2, ridge regression on learned features (arXiv:1805.08136).

    Args:
        strength: Strength of the ridge penalty at the start of training.
    """
    return r2d2_.r2d2(features, loss, ways=ways, strength=strength, scale=1.0)


def relationnet(
    features: Embedding,
    loss: LossFn,
    *,
    ways: int,
    score_loss: Literal["squared", "cross-entropy"] = "squared",
) -> MetaLearner:
    """Relation network: a learned module scores pairs of class and query (arXiv:1711.06025).

    Args:
        score_loss: Training loss: the squared error of sigmoid scores, as in the paper, or the loss
            of the experiment, which takes scores as logits.
    """
    trained = relation_error if score_loss == "squared" else loss
    return relationnet_.relationnet(features, trained, ways=ways)
