"""docs/learners.md says what the table of learners holds."""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.models.mlp import mlp
from jaxdl.recipes.choice import build
from jaxdl.recipes.learners import LEARNERS, PROCESSES, REGRESSORS
from jaxdl.runs.keywords import hints_of
from jaxdl.types import Embedding
from tests.project import ROOT

TEXT = (ROOT / "docs" / "learners.md").read_text("utf-8")
ROWS = [
    [cell.strip(" `") for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if line.startswith("| ") and "arxiv" in line
]


def test_each_learner_has_its_row():
    numbers = REGRESSORS | PROCESSES
    assert {name for _, name, *_ in ROWS} == LEARNERS.keys() | numbers.keys()
    for _, name, paper, net, regression, _ in ROWS:
        make = LEARNERS.get(name) or numbers[name]
        first = next(iter(hints_of(make).values()))
        assert net == ("embedding" if first == Embedding else "model"), name
        said = {"yes": {True}, "no": {False}, "only": {True}}[regression]
        assert said == {name in numbers}, name
        assert (regression == "only") == (name not in LEARNERS), name
        title = (sys.modules[getattr(jaxdl, name).__module__].__doc__ or "").splitlines()[0]
        assert paper[1:11] in title or name == "finetune", name


def test_the_parameters_that_depend_on_ways_are_told():
    told = TEXT.partition("The parameters of")[2].partition("depend on the ways")[0]
    x, found = jnp.ones((4, 3)), set()

    def net(outputs):
        return mlp((6,) if outputs is None else (6, outputs))

    for name, make in LEARNERS.items():
        options = {"classes": 9, "own": {}}
        shapes = [
            jax.eval_shape(build(make, net, cross_entropy, ways=ways, **options).init, KEY, x)
            for ways in (2, 5)
        ]
        found |= {name} if shapes[0] != shapes[1] else set()
    assert found == set(re.findall("`(.*?)`", told))


def episode_of_three_classes(key):
    x = jax.random.normal(key, (2, 6, 4))
    y = jnp.tile(jnp.arange(3), 2)
    return jaxdl.Episode(jaxdl.Batch(x[0], y), jaxdl.Batch(x[1], y))


@pytest.mark.parametrize(
    ("learners", "loss", "sample", "outputs"),
    [
        (LEARNERS, cross_entropy, episode_of_three_classes, 3),
        (REGRESSORS, mean_squared_error, jaxdl.sinusoid(shots=4, queries=4), 1),
    ],
    ids=["classes", "numbers"],
)
def test_fomaml_is_the_public_function(learners, loss, sample, outputs):
    episode = sample(KEY)
    net = mlp((6, outputs))

    def gradient(learner):
        params = jax.jit(learner.init)(KEY, episode.support.x)
        return jax.jit(learner.grad)(KEY, jnp.int32(0), params, episode)[0]

    named = learners["fomaml"](net, loss, ways=outputs, inner_steps=2, inner_lr=0.1)
    ours = gradient(named)
    theirs = gradient(jaxdl.fomaml(net, loss, tx=optax.sgd(0.1), steps=2))
    exact = gradient(jaxdl.maml(net, loss, tx=optax.sgd(0.1), steps=2))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert any(map(jnp.any, jax.tree.leaves(jax.tree.map(jnp.not_equal, ours, exact))))


KEY = jax.random.key(0)
