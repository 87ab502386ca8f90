"""docs/learners.md says what the table of learners holds."""

import re

import jax
import jax.numpy as jnp

from jaxdl.losses import cross_entropy
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
        source = (ROOT / "jaxdl" / "meta" / f"{name}.py").read_text("utf-8").splitlines()[0]
        assert paper[1:11] in source or name == "finetune", name


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


KEY = jax.random.key(0)
