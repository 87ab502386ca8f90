"""Single examples: uniform, with their own labels, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdl.data.examples import examples
from jaxdl.errors import InputError

IMAGES = np.arange(10, dtype=np.uint8).reshape(10, 1, 1) * 20
LABELS = np.arange(10, dtype=np.uint8) + 100


def drawn(count=3000, **options):
    draw = jax.jit(jax.vmap(examples(IMAGES, LABELS, **options)))
    return draw(jax.random.split(jax.random.key(0), count))


def test_each_example_comes_as_often_as_another_with_its_own_label():
    found = drawn(scale=1.0)
    assert (found.x.dtype, found.y.dtype) == (jnp.float32, jnp.int32)
    np.testing.assert_array_equal(found.x[:, 0, 0], (found.y - 100) * 20)
    assert stats.chisquare(np.bincount(found.y - 100)).pvalue > 1e-4


def test_bytes_are_divided_by_255_and_by_what_is_asked_for():
    np.testing.assert_array_equal(drawn(50).x, drawn(50, scale=1 / 255).x)
    np.testing.assert_allclose(drawn(50).x * 255, drawn(50, scale=1.0).x, rtol=1e-6)


def test_each_array_of_a_dict_comes_from_one_row_by_the_rule_of_its_type():
    """A row each for its bytes, tokens and floats, as in `few_shot`."""
    row = np.arange(10)
    x = {"bytes": IMAGES, "tokens": row + 1000, "floats": (row / 4, row > 4)}
    draw = jax.jit(jax.vmap(examples(x, LABELS)))
    found = draw(jax.random.split(jax.random.key(0), 100))
    row = np.asarray(found.y) - 100
    np.testing.assert_allclose(found.x["bytes"][:, 0, 0] * 255, row * 20, rtol=1e-6)
    np.testing.assert_array_equal(found.x["tokens"], row + 1000)
    np.testing.assert_array_equal(found.x["floats"][0], row / 4)
    np.testing.assert_array_equal(found.x["floats"][1], row > 4)
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(found.x)]
    assert dtypes == [np.float32, np.float32, bool, np.int32]


def test_the_data_are_an_argument_of_the_program_and_no_constant_in_it():
    images = np.random.default_rng(0).integers(0, 256, (400, 9, 9, 1)).astype(np.uint8)
    program = jax.jit(lambda sample, key: sample(key))
    lowered = program.lower(examples(images, np.zeros(400, int)), jax.random.key(0)).as_text()
    assert "tensor<400x9x9x1xui8>" in lowered
    assert len(lowered) < images.size


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (IMAGES, LABELS[:9], "10 examples and 9 labels make no data set"),
        (IMAGES[:0], LABELS[:0], "there are no images"),
        (IMAGES.astype(np.int64), LABELS, "images are int64, but must be uint8 or float"),
        ({"a": IMAGES.astype(complex)}, LABELS, "complex128, but must be numbers or bools"),
        ({"a": IMAGES, "b": IMAGES[:9]}, LABELS, r"x\['b'\] has 9 rows, but x\['a'\] has 10"),
        (IMAGES * np.nan, LABELS, "NaN or infinity"),
    ],
)
def test_what_is_no_data_set_is_refused(images, labels, words):
    with pytest.raises(InputError, match=words):
        examples(images, labels)
