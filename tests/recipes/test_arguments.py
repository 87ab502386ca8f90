"""What a user gives by mistake, to fit, to score and to a loaded learner."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.data.sets.sinusoid import sinusoid
from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.meta.nearest_centroid import nearest_centroid
from jaxdl.meta.support_mean import support_mean
from jaxdl.recipes.arguments import check_images, check_rows, check_task
from jaxdl.recipes.fit import Fitted, fit
from jaxdl.recipes.score import score
from jaxdl.types import Batch

KEY = jax.random.key(0)
SAMPLE = sinusoid(shots=2, queries=2)
LEARNER = support_mean(mean_squared_error)
FIT = {"tx": optax.sgd(0.1), "steps": 1, "tasks": 1, "key": KEY}
BAD = [
    ({"key": 0}, r"`key=0` is no key of JAX. Give jax.random.key\(0\), say"),
    ({"sample": jnp.ones((3, 3))}, "`sample=` is ArrayImpl. Give a function of a key that draws"),
    ({"sample": mean_squared_error}, "`sample=` takes other arguments. Give a function of a key"),
]


@pytest.mark.parametrize(("changed", "words"), [*BAD, ({"tx": optax.adam}, "is the function adam")])
def test_of_fit(changed, words):
    given = {"sample": SAMPLE, **FIT, **changed}
    with pytest.raises(InputError, match=words):
        fit(support_mean(mean_squared_error), given.pop("sample"), **given)


@pytest.mark.parametrize(("changed", "words"), BAD)
def test_of_score(changed, words):
    given = {"sample": SAMPLE, "key": KEY, **changed}
    loss, learner = mean_squared_error, support_mean(mean_squared_error)
    with pytest.raises(InputError, match=words):
        score(learner, (), loss, given.pop("sample"), episodes=2, **given)


def test_a_key_of_the_old_kind_passes():
    learner, options = support_mean(mean_squared_error), {"episodes": 2}
    found = score(learner, (), mean_squared_error, SAMPLE, key=jax.random.PRNGKey(0), **options)
    assert np.isfinite(found["loss"].mean)


IMAGES = jnp.ones((3, 4, 4, 1))


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (IMAGES, [0, 1, 2], r"labels go from 0 to 2, but the learner has 2 classes. Give la"),
        (IMAGES, [-1, 0, 1], r"labels go from -1 to 1"),
        (IMAGES, np.array(["a", "b", "b"]), r"labels are <U1. Give integers from 0 to 1: np.uniqu"),
        (IMAGES, [[0], [1], [1]], r"labels are \[3, 1\]. Give one integer per input"),
        (IMAGES, [0, 1], "there are 3 inputs and 2 targets"),
        (IMAGES[:, 1:], [0, 1, 1], r"are float32 \[3, 3, 4, 1\], but .* \['n', 4, 4, 1\]. Resize"),
        (IMAGES.astype(jnp.uint8), [0, 1, 1], r"the images are uint8 \[3, 4, 4, 1\], but"),
        (255 * IMAGES, [0, 1, 1], r"inputs go up to 255, which is not plausible. Give floats in"),
        (jnp.nan * IMAGES, [0, 1, 1], r"inputs go up to nan"),
        (-IMAGES, [0, 1, 1], r"images go down to -1, and .* Undo their normalisation"),
    ],
)
def test_of_a_loaded_learner(x, y, words):
    check = partial(check_images, shape=(4, 4, 1))
    learner = check_task(nearest_centroid(cross_entropy, ways=2), 2, check)
    with pytest.raises(InputError, match=words):
        learner.adapt(KEY, (), Batch(x, np.array(y)))
    adapted = learner.adapt(KEY, (), Batch(IMAGES, jnp.array([0, 1, 1])))
    assert jax.jit(learner.predict)(adapted, IMAGES).shape == (3, 2)
    if x is not IMAGES:
        with pytest.raises(InputError, match=words):
            learner.predict(adapted, x)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (
            np.ones((3, 3)),
            r"rows are \[3, 3\], but the learner was trained on 2 columns. Give a,",
        ),
        (1000 * np.ones((3, 2)), "go up to 1000, .* Standardise the columns by `scaling`"),
    ],
)
def test_of_a_loaded_learner_of_a_table(x, words):
    check = partial(check_rows, columns=("a", "b=c"))
    learner = check_task(support_mean(mean_squared_error), None, check)
    with pytest.raises(InputError, match=words):
        learner.adapt(KEY, (), Batch(x, np.ones((3, 1))))


@pytest.mark.parametrize("steps", ["20", 1e2, 0])
def test_counts_of_fit_are_whole_numbers(steps):
    with pytest.raises(InputError, match="choose a whole number of at least 1"):
        fit(support_mean(mean_squared_error), SAMPLE, **{**FIT, "steps": steps})


def test_all_that_fit_returned_is_no_parameters():
    fitted = Fitted((), {})
    with pytest.raises(InputError, match=r"Give its \.params"):
        score(LEARNER, fitted, mean_squared_error, SAMPLE, episodes=2, key=KEY)


def test_targets_of_a_loaded_regression_are_in_its_units():
    learner = check_task(support_mean(mean_squared_error), None, lambda x: None)
    with pytest.raises(InputError, match=r"the targets go up to 1e.04, .* in the units of the run"):
        learner.adapt(KEY, (), Batch(np.ones((3, 2)), np.full((3, 1), 1e4)))


def test_what_a_loaded_learner_takes_as_before():
    learner = check_task(support_mean(mean_squared_error), None, lambda x: None)
    y = np.array([[1.0], [2.0], [np.nan]], np.float32)
    adapted = learner.adapt(KEY, (), Batch(jnp.ones((3, 2)), jnp.asarray(y), jnp.array([1, 1, 0])))
    assert np.isfinite(jax.tree.leaves(adapted)[0]).all()
    check_images(np.zeros((0, 4, 4, 1), np.float32), (4, 4, 1))
    with pytest.raises(InputError, match=r"images go down to -0.5"):
        check_images(np.full((2, 4, 4, 1), -0.5, np.float32), (4, 4, 1))
