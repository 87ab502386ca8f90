"""What a learner says of its inner optimiser when it is made: nothing, a warning, or no."""

import os
import subprocess
import sys
import warnings

import jax
import optax
import pytest
from optax import contrib

from jaxdl.errors import InputError
from jaxdl.losses import mean_squared_error
from jaxdl.meta import estimators, inner
from jaxdl.meta.inner import InnerOptimiserWarning
from jaxdl.meta.maml import fomaml, maml
from jaxdl.meta.rates import scale_by_rates
from jaxdl.models.mlp import mlp
from jaxdl.optim.transfer import only
from jaxdl.types import Batch
from tests.project import ROOT

NET = mlp((4, 1))


def made(tx, *, steps=3, make=maml, **options):
    return make(NET, mean_squared_error, tx=tx, steps=steps, **options)


def said(tx, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made(tx, **options)
    assert all(each.category is InnerOptimiserWarning for each in caught)
    return [str(each.message) for each in caught]


QUIET = {
    "sgd": optax.sgd(0.1),
    "a small learning rate": optax.sgd(1e-6, momentum=0.9),
    "a schedule from 0": optax.sgd(optax.linear_schedule(0.0, 0.1, 10)),
    "yogi": optax.yogi(0.1),
    "adagrad": optax.adagrad(0.1),
    "every second step": optax.chain(optax.apply_every(2), optax.sgd(0.1)),
    "adam with eps_root": optax.adam(0.1, eps_root=1e-8),
    "inner.adam": inner.adam(0.1),
    "inner.rmsprop": inner.rmsprop(0.1),
    "inner.radam": inner.radam(0.1),
    "inner.clip": optax.chain(inner.clip_by_global_norm(1.0), optax.sgd(0.1)),
    "rates": scale_by_rates(),
    "nothing": optax.set_to_zero(),
    "for one layer": only(optax.adam(0.1), ["Dense_1"]),
}


@pytest.mark.parametrize("name", QUIET)
def test_nothing_is_said_of_what_works(name):
    assert said(QUIET[name]) == []


@pytest.mark.parametrize("bound", [0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 10.0])
@pytest.mark.parametrize("clip", [optax.clip, inner.clip_by_global_norm], ids=["clip", "norm"])
def test_nothing_is_said_of_a_kink(clip, bound):
    """Gradients of the probe lie on both sides of these bounds, and some beside one."""
    assert said(optax.chain(clip(bound), optax.sgd(0.1))) == []


@pytest.mark.parametrize(
    ("tx", "cure"),
    [
        (optax.radam(0.1), "Use jaxdl.meta.inner.radam"),
        (optax.chain(optax.clip(1.0), optax.radam(0.1)), "Use jaxdl.meta.inner.radam"),
        (contrib.dog(), "Use optax.sgd"),
        (contrib.mechanize(optax.sgd(0.1)), "Use optax.sgd"),
    ],
    ids=["radam", "chain", "dog", "mechanize"],
)
@pytest.mark.parametrize("steps", [1, 3])
def test_nan_everywhere_is_refused(tx, cure, steps):
    with pytest.raises(InputError, match="every meta-gradient is NaN") as refused:
        made(tx, steps=steps)
    assert cure in str(refused.value)


def test_what_cannot_be_differentiated_is_refused():
    with pytest.raises(InputError, match=r"no meta-gradient can be taken .*scale_by_lbfgs.*Use"):
        made(optax.lbfgs())


@pytest.mark.parametrize(
    ("tx", "where", "cure"),
    [
        (optax.adam(0.1), "as of a dead unit", "jaxdl.meta.inner.adam, or give eps_root=1e-8"),
        (optax.lamb(0.1), "as of a dead unit", "Use optax.sgd"),
        (optax.rmsprop(0.1, eps_in_sqrt=False), "as of a dead unit", "eps_in_sqrt=True"),
        (
            optax.chain(optax.clip_by_global_norm(1e6), optax.sgd(0.1)),
            "where the gradient of a task is exactly zero",
            "Use jaxdl.meta.inner.clip_by_global_norm",
        ),
        (contrib.prodigy(), "makes the parameters NaN", "Use optax.sgd"),
        (optax.adabelief(0.1), "outweighs 100,000 others", "jaxdl.meta.inner.adam"),
        (optax.sm3(0.1), "is wrong where the gradient of a task", "Use optax.sgd"),
        (
            optax.lbfgs(0.1, linesearch=None),
            "The second-order part of the meta-gradient is wrong",
            "scale_by_lbfgs(scale_init_precond=False)",
        ),
    ],
    ids=["adam", "lamb", "rmsprop", "clip", "prodigy", "adabelief", "sm3", "lbfgs"],
)
def test_a_fault_at_some_points_is_warned_of_with_its_cure(tx, where, cure):
    (text,) = [text for text in said(tx) if where in text]
    assert cure in text


@pytest.mark.parametrize(
    ("tx", "steps", "cure"),
    [
        (optax.lion(0.1), 3, "Use jaxdl.fomaml"),
        (optax.sign_sgd(0.1), 1, "Use jaxdl.fomaml"),
        (optax.rprop(0.1), 3, "Use jaxdl.fomaml"),
        (inner.adam(0.1), 1, "Use more inner steps, or jaxdl.fomaml"),
        (inner.rmsprop(0.1), 1, "Use more inner steps, or jaxdl.fomaml"),
    ],
    ids=["lion", "sign", "rprop", "adam", "rmsprop"],
)
def test_a_lost_second_order_is_warned_of(tx, steps, cure):
    (text,) = said(tx, steps=steps)
    assert text.startswith("This is first-order MAML at second-order cost")
    assert cure in text
    assert said(tx, steps=steps, make=fomaml) == []
    assert said(tx, steps=steps, estimator=estimators.first_order) == []


@pytest.mark.parametrize("tx", [optax.adam(0.1), optax.sm3(0.1)], ids=["adam", "sm3"])
def test_with_gradients_as_constants_zeros_do_no_harm(tx):
    assert said(tx, make=fomaml) == []


def test_no_inner_steps_need_no_derivative():
    assert said(optax.radam(0.1), steps=0) == []


def test_the_warning_points_at_the_line_that_asks(tmp_path):
    """In a program of the user's, where nothing is wrapped around the functions of jaxdl."""
    program = tmp_path / "program.py"
    program.write_text(
        "import jaxdl, optax\n"
        "model, loss = jaxdl.mlp((4, 1)), jaxdl.mean_squared_error\n"
        "for _ in range(2):\n"
        "    jaxdl.fomaml(model, loss, tx=optax.contrib.prodigy(), steps=3)\n"
        "jaxdl.maml(model, loss, tx=optax.adam(0.1), steps=3)\n"
    )
    found = subprocess.run(
        [sys.executable, program],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    places = [line for line in found.stderr.splitlines() if "InnerOptimiserWarning:" in line]
    assert [place.split(": ")[0] for place in places] == [f"{program}:4", f"{program}:5"]


def test_a_learner_may_be_made_inside_a_traced_function(key):
    """With a traced learning rate nothing is said, and the meta-gradient is there."""

    def grad(rate, key):
        learner = made(optax.adam(rate, eps_root=1e-8), steps=2)
        x = jax.numpy.ones((3, 2))
        params = learner.init(key, x)
        return learner.adapt(key, params, Batch(x, x[:, :1]))["Dense_0"]["kernel"]

    assert jax.jit(grad)(0.1, key).shape == (2, 4)
    assert jax.vmap(grad, (0, None))(jax.numpy.array([0.1, 0.2]), key).shape == (2, 2, 4)


@pytest.mark.parametrize("make", [maml, fomaml], ids=["maml", "fomaml"])
def test_fewer_than_no_steps_are_refused(make):
    with pytest.raises(InputError, match="`steps=-1`: choose 0 or more inner steps"):
        made(optax.sgd(0.1), steps=-1, make=make)
