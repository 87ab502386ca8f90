"""Problems to learn, and the row of an algorithm. A new one is added in `test_contract.py`."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.data.episodes import few_shot
from jaxdl.losses import cross_entropy, gaussian_nll, mean_squared_error
from jaxdl.meta.evolution import es_grad
from jaxdl.models.mlp import mlp
from jaxdl.types import Batch, Episode, Grads, MetaLearner, TransferLearner

WAYS = 3


class Row(NamedTuple):
    """An algorithm and how to build it.

    `make(model, loss)`; `regresses`: whether it also does regression; `trains`: whether it has
    meta-parameters at all; `drops`: whether `make` takes `inner_dropout`; `variant`: of another row
    by an argument that has tests of its own, so that the slow tests are enough here; `heavy`: slow
    to compile, so that the fast tests try only what is essential; `ordered`: whether the order of
    support examples matters; `instead(learner, loss, key, params, batch)`: what `grad` is, where
    it is not the gradient of its loss; `reverse_only`: why forward mode cannot differentiate
    `grad`, where it cannot; `distributes`: whether it predicts distributions of numbers, and no
    classes; `samples`: whether `adapt` draws by its key.
    """

    name: str
    make: Callable[..., MetaLearner | TransferLearner]
    regresses: bool = True
    trains: bool = True
    depth_matters: bool = True
    drops: bool = True
    variant: bool = False
    heavy: bool = False
    ordered: bool = False
    instead: Callable[..., Grads] | None = None
    reverse_only: str = ""
    distributes: bool = False
    samples: bool = False

    @property
    def problems(self) -> dict[str, tuple]:
        """What it learns, by name."""
        if self.distributes:
            return {"distributions": DISTRIBUTIONS}
        both = {"classification": CLASSIFICATION, "regression": REGRESSION}
        return both if self.regresses else {"classification": CLASSIFICATION}


def blobs(key) -> Episode:
    """Three classes at new places of a plane in each episode; 2 shots, 4 queries a class.

    Six loud coordinates that mean nothing stand beside the two of the plane: that is what there is
    to meta-learn.
    """
    place_key, noise_key, loud_key = jax.random.split(key, 3)
    centers = 2 * jax.random.normal(place_key, (WAYS, 1, 2))
    plane = centers + 0.3 * jax.random.normal(noise_key, (WAYS, 6, 2))
    points = jnp.concatenate([plane, 2 * jax.random.normal(loud_key, (WAYS, 6, 6))], axis=2)
    labels = jnp.repeat(jnp.arange(WAYS), 6).reshape(WAYS, 6)
    return Episode(
        Batch(points[:, :2].reshape(-1, 8), labels[:, :2].reshape(-1)),
        Batch(points[:, 2:].reshape(-1, 8), labels[:, 2:].reshape(-1)),
    )


def lines(key) -> Episode:
    """Lines through the origin of random slope, 3 points given and 5 asked."""
    slope_key, x_key = jax.random.split(key)
    x = jax.random.uniform(x_key, (8, 1), minval=-1.0)
    y = jax.random.normal(slope_key) * x
    return Episode(Batch(x[:3], y[:3]), Batch(x[3:], y[3:]))


def uneven() -> tuple[Episode, Episode]:
    """An episode with padding as `few_shot` makes it, and the same one cut to the rows that count.

    Of `WAYS` classes one is absent. Of the others, one has fewer examples than the other, and both
    have fewer than there is room for.
    """
    rng, counts = np.random.default_rng(0), [30, 4, 30, 4, 30]
    labels = np.repeat(np.arange(5), counts)
    x = rng.normal(size=(labels.size, 8)) + 2 * rng.normal(size=(5, 8))[labels]
    sample = few_shot(x, labels, ways=(2, WAYS), shots=(1, 4), queries=(1, 6))
    many = jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(0), 300))
    support, query = (np.asarray(part.weight).reshape(300, WAYS, -1).sum(axis=2) for part in many)
    uneven_two = (support[:, 2] == 0) & (support[:, 0] < 4) & (support[:, 1] < support[:, 0])
    chosen = np.flatnonzero(uneven_two & (query[:, 1] > 1) & (support[:, 1] > 1))[0]
    padded = jax.tree.map(lambda leaf: leaf[chosen], many)
    return padded, Episode(*(_cut(part) for part in padded))


def as_numbers(episode: Episode) -> Episode:
    """The episode with its labels as targets of a regression."""
    parts = (part._replace(y=part.y[:, None].astype(part.x.dtype)) for part in episode)
    return Episode(*parts)


def _cut(batch: Batch) -> Batch:
    counts = np.asarray(batch.weight) > 0
    return Batch(batch.x[counts], batch.y[counts])


# ---- what `grad` is, of learners for which it is not the gradient of their loss


def at_the_adapted(learner, loss, key, params, episode):
    """The gradient of the query loss by the adapted parameters, as in first-order MAML."""
    adapted = learner.adapt(key, params, episode.support)
    x, y, _ = episode.query
    return jax.grad(lambda at: loss(learner.predict(at, x), y)[0])(adapted)


def over_the_noise(learner, loss, key, params, episode):
    """The estimate of evolution strategies, which has tests of its own."""
    x, y, _ = episode.query

    def value(params, key):
        return loss(learner.predict(learner.adapt(key, params, episode.support), x), y)

    return es_grad(value, params, key, population=16, sigma=0.1)[0]


def way_back(learner, loss, key, params, episode):
    """From the parameters after training on all examples to those before, as in Reptile."""
    x, y = (jnp.concatenate(parts) for parts in zip(*(part[:2] for part in episode), strict=True))
    return jax.tree.map(jnp.subtract, params, learner.adapt(key, params, Batch(x, y)))


def implicitly(solver, strength=2.0):
    """`(I + H / strength)^-1` times the gradient by the adapted parameters, as `solver` has it.

    H is the Hessian of the support loss there, as in implicit MAML.
    """

    def claim(learner, loss, key, params, episode):
        adapted, (x, y, _) = learner.adapt(key, params, episode.support), episode.support
        slope = jax.grad(lambda at: loss(CLASSIFICATION[0].apply(at, x), y)[0])

        def product(v):
            bent = jax.jvp(slope, (adapted,), (v,))[1]
            return jax.tree.map(lambda one, other: one + other / strength, v, bent)

        return solver(product, at_the_adapted(learner, loss, key, params, episode))

    return claim


def but_for_the_mean(learner, loss, key, params, batch):
    """The gradient of the loss; that of SimpleShot's mean has a test of its own."""
    grads, _ = learner.grad(key, jnp.int32(0), params, batch)
    slope = jax.grad(lambda at: learner.grad(key, jnp.int32(0), at, batch)[1]["loss"])(params)
    return slope._replace(mean=grads.mean)


CLASSIFICATION = (mlp((6, WAYS)), cross_entropy, blobs)
REGRESSION = (mlp((16, 1)), mean_squared_error, lines)
DISTRIBUTIONS = (mlp((1,)), gaussian_nll, lines)
