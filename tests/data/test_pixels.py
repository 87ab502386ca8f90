import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.data.augment import normalise
from jaxdl.data.episodes import few_shot
from jaxdl.data.examples import examples
from jaxdl.data.pixels import check_images, white
from jaxdl.errors import InputError
from jaxdl.recipes.few_labels import seen

BYTES = np.arange(0, 256, 17, dtype=np.uint8).reshape(16, 1, 1, 1)
LABELS = np.arange(16) % 2


def test_white_is_255_in_bytes_and_1_in_floats():
    assert white(BYTES) == white(jnp.asarray(BYTES)) == 255
    for dtype in (jnp.bfloat16, np.float16, np.float32, np.float64):
        assert white(BYTES.astype(dtype)) == 1
    assert jax.eval_shape(lambda x: x / white(x), jnp.asarray(BYTES)).dtype == jnp.float32


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, np.int32, np.int64, complex])
def test_other_types_are_refused(dtype):
    for function in (white, check_images):
        with pytest.raises(InputError, match=r"images are .*, but must be uint8 or float\. Conv"):
            function(BYTES.astype(dtype))


@pytest.mark.parametrize("images", [np.zeros((0, 3, 3, 1)), np.zeros((4, 0)), np.float32(3)])
def test_no_images_are_refused(images):
    with pytest.raises(InputError, match="there are no images"):
        check_images(images)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e300])
def test_floats_must_be_finite_as_float32(wrong):
    images = BYTES.astype(np.float64)
    images[3] = wrong
    with pytest.raises(InputError, match="NaN or infinity"), np.errstate(over="ignore"):
        check_images(images)


def drawn_by_examples(images):
    draw = examples(images, LABELS)
    return jax.vmap(draw)(jax.random.split(jax.random.key(0), 400)).x


def drawn_by_few_shot(images):
    return few_shot(images, LABELS, ways=2, shots=4, queries=4)(jax.random.key(0)).support.x


def normalised(images):
    return normalise(jnp.asarray(images), np.zeros(1), np.ones(1))


@pytest.mark.parametrize("maker", [drawn_by_examples, drawn_by_few_shot, normalised, seen])
def test_bytes_and_the_floats_that_they_stand_for_are_the_same_to_every_maker(maker):
    """255 times too dark is what floats were to half of them."""
    as_bytes, as_floats = maker(BYTES), maker(BYTES.astype(np.float32) / 255)
    np.testing.assert_allclose(as_bytes, as_floats, rtol=1e-6)
    assert 0.4 < float(jnp.max(as_floats)) <= 1
    if maker is drawn_by_few_shot:  # there, other integers are tokens
        return
    for maker_type in (np.int64, np.uint16):
        with pytest.raises(InputError, match="must be uint8 or float"):
            maker(BYTES.astype(maker_type))


def test_floats_that_were_bytes_are_divided_where_that_is_said():
    mean, std = np.array([0.3]), np.array([0.2])
    one = normalise(jnp.asarray(BYTES), mean, std)
    two = normalise(jnp.asarray(BYTES, jnp.float32), mean, std, full=255)
    np.testing.assert_array_equal(one, two)
