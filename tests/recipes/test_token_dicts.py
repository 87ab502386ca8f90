"""Dicts of tokens, string labels, unequal classes and ranges of shots, by public names alone."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl

WORDS, LENGTH = 50, 12


def texts():
    """Ten topics of 2 to 30 texts; most words of a text are among the four of its topic."""
    rng = np.random.default_rng(0)
    labels, tokens, lengths = [], [], []
    for topic in range(10):
        favourites = rng.integers(0, WORDS, 4)
        for _ in range([2, 30, 7, 21, 3, 15, 9, 26, 12, 5][topic]):
            of_topic = rng.random(LENGTH) < 0.7
            words = np.where(
                of_topic, rng.choice(favourites, LENGTH), rng.integers(0, WORDS, LENGTH)
            )
            tokens.append(words)
            lengths.append(rng.integers(6, LENGTH + 1))
            labels.append(f"topic {topic}")
    return {"tokens": np.array(tokens), "length": np.array(lengths)}, labels


def bag_of_words(outputs):
    """The mean embedding of the words of a text, and a linear layer. An empty text gives NaN."""

    def init(key, x):
        first, second = jax.random.split(key)
        return {
            "embedding": 0.3 * jax.random.normal(first, (WORDS, 16)),
            "kernel": 0.3 * jax.random.normal(second, (16, outputs)),
            "bias": jnp.zeros(outputs),
        }

    def apply(params, x, *, key=None, weight=None):
        there = (jnp.arange(LENGTH)[None] < x["length"][:, None])[..., None]
        words = (params["embedding"][x["tokens"]] * there).sum(axis=1)
        return words / there.sum(axis=1) @ params["kernel"] + params["bias"][None]

    return jaxdl.Model(init, apply)


@pytest.mark.parametrize("name", [pytest.param("maml", marks=pytest.mark.slow), "protonet"])
def test_it_is_learnt(name):
    loss = jaxdl.cross_entropy
    learner = {
        "maml": lambda: jaxdl.maml(bag_of_words(3), loss, tx=optax.sgd(1.0), steps=3),
        "protonet": lambda: jaxdl.protonet(bag_of_words(16), loss, ways=3),
    }[name]()
    x, labels = texts()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # each topic has a support text and a query
        sample = jaxdl.few_shot(x, labels, ways=3, shots=(1, 5), queries=5)
    options = {"tx": optax.adam(1e-2), "steps": 150, "tasks": 4}
    params = jaxdl.fit(learner, sample, key=jax.random.key(0), **options).params
    options = {"episodes": 100, "key": jax.random.key(1)}
    found = jaxdl.score(learner, params, loss, sample, **options)["accuracy"]
    assert found.mean > 0.9
