"""Each flag of a learner reaches the method: with another value, the method is made otherwise."""

import dataclasses
import inspect
import types
import typing
from functools import partial

import jax.numpy as jnp
import optax
import pytest

from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.models.mlp import mlp
from jaxdl.recipes import gradient_learners, labelled_learners, metric_learners
from jaxdl.recipes.choice import own_keywords
from jaxdl.recipes.learners import LEARNERS, REGRESSORS


def other(value, hint):
    """Another value of the type of a flag."""
    if typing.get_origin(hint) is typing.Literal:
        return next(each for each in typing.get_args(hint) if each != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return tuple(3 * each for each in value)
    if isinstance(value, int):
        return value + 3
    return 0.9 if value is None or value == 0 else value / 2


def plain(value):
    """What can be compared of an argument: of an optimiser, two of its steps."""
    if isinstance(value, optax.GradientTransformation):
        state = value.init(jnp.float32(1))
        first, state = value.update(jnp.float32(1), state, jnp.float32(1))
        return float(first), float(value.update(jnp.float32(0.25), state, jnp.float32(1))[0])
    if isinstance(value, partial):
        return value.func, value.args, tuple(sorted(value.keywords.items()))
    return value


CASES = [
    pytest.param(make, loss, id=f"{name}-{kind}")
    for kind, table, loss in (
        ("classes", LEARNERS, cross_entropy),
        ("numbers", REGRESSORS, mean_squared_error),
    )
    for name, make in table.items()
    if make.__module__.startswith("jaxdl.recipes")  # others are methods themselves
]


@pytest.fixture
def calls(monkeypatch):
    """What the methods of `jaxdl.meta` are called with: their losses and keyword arguments."""
    made = []

    def record(model, loss, **options):
        made.append((loss, {name: plain(value) for name, value in options.items()}))

    for module in (gradient_learners, labelled_learners, metric_learners):
        for name, method in vars(module).items():
            if isinstance(method, types.ModuleType) and name.endswith("_"):
                monkeypatch.setattr(method, name[:-1], record)
            elif name == "r2d2":
                monkeypatch.setattr(module, name, record)
    return made


@pytest.mark.parametrize(("make", "loss"), CASES)
def test_each_flag_changes_what_the_method_gets(make, loss, calls):
    known = {"ways": 3, "classes": 5}
    given = {name: known[name] for name in inspect.signature(make).parameters if name in known}
    make(mlp((4, 3)), loss, **given)
    (default,) = calls
    for field in dataclasses.fields(own_keywords(make)):
        make(mlp((4, 3)), loss, **given, **{field.name: other(field.default, field.type)})
        assert calls[-1] != default, field.name
