"""That the suite checks the shapes in annotations, and what the checker refuses and lets pass."""

import importlib
import re
import sys
from collections.abc import Iterator
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError, install_import_hook

from jaxdl.optim.qp import min_norm
from jaxdl.replay.nstep import Step, n_step, n_step_return
from jaxdl.types import Sample

SOURCE = """
from typing import NamedTuple
import jax.numpy as jnp
from jaxtyping import Float, Int
from jax import Array

class Pair(NamedTuple):
    a: Float[Array, " n"]
    b: Int[Array, " n"]

def product(x: Float[Array, "n k"], w: Float[Array, "k m"]) -> Float[Array, "n m"]:
    return x @ w

def transposed(x: Float[Array, "n k"]) -> Float[Array, "n k"]:
    return x.T

def summed(x: Float[Array, "n k"]) -> Float[Array, " n"]:
    return x.sum(axis=1, keepdims=True)

def ranks(x: Float[Array, " n"]) -> Int[Array, " n"]:
    return x

def zeros(count: int) -> Float[Array, " {count}"]:
    return jnp.zeros(3)

def halves(x: Float[Array, "2*n"], n: Int[Array, " n"]) -> tuple[Float[Array, " n"], ...]:
    return x[: len(n)], x[len(n) :]

def optional(x: Float[Array, " n"], weight: Float[Array, " n"] | None = None) -> None:
    return None

def every(*xs: Float[Array, " n"]) -> list[Float[Array, ""]]:
    return [x.sum() for x in xs]

def pair(n: Float[Array, " n"], both: Pair) -> Pair:
    return both
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A module that the checker has gone through as it goes through those of jaxdl."""
    folder = tmp_path_factory.mktemp("module")
    (folder / "module_with_shapes.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        with install_import_hook("module_with_shapes", "tests.shapes.checked"):
            yield importlib.import_module("module_with_shapes")
        del sys.modules["module_with_shapes"]


ONE, TWO, THREE = jnp.zeros(1), jnp.zeros(2), jnp.zeros(3)


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda made: made.product(jnp.zeros((2, 3)), jnp.zeros((2, 3))), "parameter 'w'"),
        (lambda made: made.product(jnp.zeros((2, 3)), jnp.zeros(3)), "parameter 'w'"),
        (lambda made: made.product(jnp.zeros((2, 3), int), jnp.zeros((3, 4))), "parameter 'x'"),
        (lambda made: made.product([[1.0]], jnp.zeros((1, 4))), "parameter 'x'"),
        (lambda made: made.transposed(jnp.zeros((2, 3))), "return value"),
        (lambda made: made.summed(jnp.zeros((2, 3))), "return value"),
        (lambda made: made.ranks(TWO), "return value"),
        (lambda made: made.zeros(2), "return value"),
        (lambda made: made.optional(TWO, THREE), "parameter 'weight'"),
        (lambda made: made.every(TWO, THREE), "parameter 'xs'"),
        (lambda made: made.pair(TWO, made.Pair(THREE, TWO.astype(int))), "parameter 'both'"),
        (lambda made: made.pair(TWO, made.Pair(TWO, TWO)), "parameter 'both'"),
        (lambda made: jax.jit(made.transposed)(jnp.zeros((2, 3))), "return value"),
        (lambda made: jax.vmap(made.optional)(jnp.zeros((5, 2)), jnp.zeros((5, 3))), "'weight'"),
    ],
)
def test_a_wrong_shape_or_dtype_is_refused(made, call, why):
    with pytest.raises(TypeCheckError, match=re.escape(why)):
        call(made)


def test_what_an_annotation_says_passes(made):
    assert made.product(jnp.zeros((2, 3)), jnp.zeros((3, 4))).shape == (2, 4)
    assert made.product(np.zeros((2, 3)), np.zeros((3, 4))).shape == (2, 4)
    assert made.transposed(jnp.zeros((2, 2))).shape == (2, 2)
    assert made.zeros(3).shape == (3,)
    assert made.optional(TWO) is None
    assert made.optional(TWO, weight=TWO) is None
    assert len(made.every(TWO, TWO)) == 2
    # The axes of a NamedTuple are its own, and a tree of it may hold anything.
    assert made.pair(TWO, made.Pair(THREE, THREE.astype(int))).a is THREE
    assert made.pair(TWO, made.Pair(None, 0)) == (None, 0)
    assert jax.vmap(made.optional)(jnp.zeros((5, 2)), jnp.zeros((5, 2))) is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: min_norm(jnp.zeros((2, 3))),
        lambda: min_norm(jnp.zeros((2, 2), int)),
        lambda: n_step_return(TWO, jnp.zeros(3, bool), jnp.zeros(2, bool), gamma=1.0),
        lambda: n_step(steps=1, gamma=1.0).init(Step(TWO, TWO, ONE[0], TWO, ONE[0], ONE[0])),
    ],
)
def test_the_suite_checks_the_functions_of_jaxdl(call):
    """Nested ones too: they are those that a maker returns."""
    with pytest.raises(TypeCheckError, match="Type-check error whilst checking the parameters of"):
        call()


def test_making_a_named_tuple_checks_nothing():
    assert Sample(None, weights=0, indices=object()).weights == 0
