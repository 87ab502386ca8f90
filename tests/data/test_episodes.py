"""Every image of these tests says who it is: [[class + 1, example + 1], [0, 0]] before rotation."""

import hashlib
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdl.data.episodes import few_shot
from jaxdl.errors import InputError

ROTATIONS = ("none", "augment", "classes")


def signed_images(counts, order_seed=0):
    """Images in random order with `counts[c]` examples of class c, and labels 10 c + 3."""
    who = [(c, e) for c, count in enumerate(counts) for e in range(count)]
    who = np.random.default_rng(order_seed).permutation(who)
    images = np.zeros((len(who), 2, 2, 1), np.uint8)
    images[:, 0, :, 0] = who + 1
    return images, 10 * who[:, 0] + 3


def read(x):
    """`[..., 2, 2, 1]` -> class, example and number of right angles, each `[...]`."""
    x = np.asarray(x)[..., 0].round().astype(int)
    turned = [np.rot90(x, -k, axes=(-2, -1)) for k in range(4)]
    upright = [(t[..., 1, 0] == 0) & (t[..., 1, 1] == 0) for t in turned]
    assert (sum(u.astype(int) for u in upright) == 1).all()
    turns = np.argmax(upright, axis=0)
    straight = np.choose(turns[..., None, None], turned)
    return straight[..., 0, 0] - 1, straight[..., 0, 1] - 1, turns


def draw_many(episodes, counts, *, seed=0, **arguments):
    """`episodes` episodes of signed images, decoded: x as `[episodes, ways, shots, ...]`."""
    ways, shots, queries = (arguments[name] for name in ("ways", "shots", "queries"))
    sample = few_shot(*signed_images(counts), scale=1.0, **arguments)
    keys = jax.random.split(jax.random.key(seed), episodes)
    episode = jax.jit(jax.vmap(sample))(keys)
    for batch, n in zip(episode, (shots, queries), strict=True):
        assert batch.x.shape == (episodes, ways * n, 2, 2, 1)
        assert batch.x.dtype == jnp.float32
        assert batch.y.dtype == jnp.int32
        np.testing.assert_array_equal(
            batch.y, np.tile(np.repeat(np.arange(ways), n), (episodes, 1))
        )
    x = [
        b.x.reshape(episodes, ways, n, 2, 2, 1)
        for b, n in zip(episode, (shots, queries), strict=True)
    ]
    return read(np.concatenate(x, axis=2))


def assert_uniform(values, n):
    observed = np.bincount(np.ravel(values), minlength=n)
    assert len(observed) == n
    assert stats.chisquare(observed).pvalue > 1e-3, observed


# Classes, examples and labels.


@pytest.mark.parametrize("rotations", ROTATIONS)
@pytest.mark.parametrize(
    ("counts", "ways", "shots", "queries"),
    [
        ([5] * 7, 5, 1, 3),
        ([4] * 3, 3, 2, 2),  # everything is used: each episode is a permutation of the data
        ([3, 9, 4, 30, 3], 4, 1, 2),
        ([6], 1, 3, 3),
        ([2] * 40, 20, 1, 1),
    ],
)
def test_rows_of_a_label_are_distinct_examples_of_one_class(
    counts, ways, shots, queries, rotations
):
    classes, examples, turns = draw_many(
        300, counts, ways=ways, shots=shots, queries=queries, rotations=rotations
    )
    assert (classes == classes[:, :, :1]).all()
    assert (turns == turns[:, :, :1]).all()
    assert (examples >= 0).all()
    assert (examples < np.asarray(counts)[classes]).all()
    ordered = np.sort(examples, axis=2)
    assert (ordered[:, :, 1:] != ordered[:, :, :-1]).all()
    drawn = np.sort(
        classes[:, :, 0] + (turns[:, :, 0] * len(counts) if rotations == "classes" else 0)
    )
    assert (drawn[:, 1:] != drawn[:, :-1]).all()


def test_each_class_is_equally_likely_for_each_label():
    classes, _, _ = draw_many(3000, [2, 5, 2, 2, 8, 2], ways=3, shots=1, queries=1)
    for label in range(3):
        assert_uniform(classes[:, label, 0], 6)
    # So is each ordered pair: the class of label 0 says nothing about that of label 1.
    pairs = classes[:, 0, 0] * 5 + classes[:, 1, 0] - (classes[:, 1, 0] > classes[:, 0, 0])
    assert_uniform(pairs, 30)


def test_each_example_is_equally_likely_in_each_place():
    counts = [4, 7]
    classes, examples, _ = draw_many(3000, counts, ways=2, shots=1, queries=2)
    for c, place in itertools.product(range(2), range(3)):
        assert_uniform(examples[:, :, place][classes[:, :, place] == c], counts[c])


def test_classes_are_drawn_anew_for_each_key_and_examples_independently_of_them():
    classes, examples, _ = draw_many(3000, [3, 3, 3], ways=2, shots=1, queries=1)
    assert_uniform(examples[:, 0, 0] * 3 + examples[:, 1, 0], 9)
    assert_uniform(classes[:, 0, 0] * 3 + examples[:, 0, 0], 9)


# Rotations.


def test_augmentation_turns_each_class_of_each_episode_by_its_own_angle():
    classes, _, turns = draw_many(2000, [3] * 4, ways=2, shots=1, queries=1, rotations="augment")
    assert (classes[:, 0, 0] != classes[:, 1, 0]).all()
    assert_uniform(turns[:, 0, 0] * 4 + turns[:, 1, 0], 16)
    assert_uniform(classes[:, 0, 0] * 4 + turns[:, 0, 0], 16)


def test_rotations_make_new_classes_that_may_meet():
    classes, _, turns = draw_many(6000, [3] * 3, ways=2, shots=1, queries=1, rotations="classes")
    new = classes[:, :, 0] * 4 + turns[:, :, 0]
    assert_uniform(new[:, 0] * 11 + new[:, 1] - (new[:, 1] > new[:, 0]), 12 * 11)
    assert (classes[:, 0, 0] == classes[:, 1, 0]).any()


def test_rotation_classes_give_four_times_the_ways():
    classes, _, turns = draw_many(20, [2] * 2, ways=8, shots=1, queries=1, rotations="classes")
    everything = np.sort(classes[:, :, 0] * 4 + turns[:, :, 0], axis=1)
    np.testing.assert_array_equal(everything, np.tile(np.arange(8), (20, 1)))


@pytest.mark.parametrize("rotations", ROTATIONS[1:])
def test_rotation_is_that_of_numpy(rotations):
    image = np.random.default_rng(0).normal(size=(5, 5, 3)).astype(np.float32)
    sample = few_shot(
        np.stack([image] * 2), [0, 0], ways=1, shots=1, queries=1, rotations=rotations
    )
    episode = jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(0), 60))
    expected = {np.rot90(image, k).tobytes() for k in range(4)}
    assert {np.asarray(x).tobytes() for x in episode.support.x[:, 0]} == expected
    np.testing.assert_array_equal(episode.support.x, episode.query.x)


# Pixels.


def test_uint8_becomes_zero_to_one_and_floats_stay_as_they_are():
    levels = np.arange(256, dtype=np.uint8).reshape(4, 64)
    arguments = {"labels": [0] * 4, "ways": 1, "shots": 3, "queries": 1}

    def pixels(images, **more):
        episode = jax.jit(few_shot(images, **arguments, **more))(jax.random.key(0))
        return np.sort(np.ravel(jnp.concatenate([episode.support.x, episode.query.x])))

    x = pixels(levels)
    assert x.dtype == np.float32
    assert (x[0], x[-1]) == (0.0, 1.0)
    np.testing.assert_allclose(x, np.arange(256) / 255, rtol=2e-7)
    floats = levels / 7 - 10
    np.testing.assert_array_equal(pixels(floats), np.sort(floats.ravel().astype(np.float32)))
    np.testing.assert_allclose(pixels(floats, scale=0.5), np.sort(floats.ravel()) / 2, rtol=1e-6)
    np.testing.assert_array_equal(pixels(levels, scale=2.0), 2 * np.arange(256))


@pytest.mark.parametrize("trailing", [(), (3,), (2, 3), (1, 2, 3, 4)])
def test_any_trailing_shape_will_do_without_rotations(trailing):
    sample = few_shot(np.ones((6, *trailing)), [0, 1] * 3, ways=2, shots=1, queries=2)
    episode = jax.eval_shape(sample, jax.random.key(0))
    assert episode.support.x.shape == (2, *trailing)
    assert episode.query.x.shape == (4, *trailing)


# Compilation.


@pytest.mark.parametrize("rotations", ROTATIONS)
def test_many_keys_at_once_give_the_same_episodes_as_one_at_a_time(rotations):
    sample = few_shot(*signed_images([4, 3, 6]), ways=2, shots=1, queries=2, rotations=rotations)
    keys = jax.random.split(jax.random.key(2), 5)
    one = jax.jit(sample)
    together = jax.jit(jax.vmap(sample))(keys)
    alone = jax.tree.map(lambda *values: jnp.stack(values), *[one(key) for key in keys])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), together, alone)
    again = jax.jit(jax.vmap(sample))(keys)
    jax.tree.map(np.testing.assert_array_equal, together, again)


def test_the_data_set_is_an_argument_of_the_program_and_no_constant_in_it():
    def program(sample, key):
        return sample(key)

    images = np.random.default_rng(0).integers(0, 256, (400, 9, 9, 1)).astype(np.uint8)
    sample = few_shot(images, np.arange(400) // 4, ways=2, shots=1, queries=1)
    lowered = jax.jit(program).lower(sample, jax.random.key(0)).as_text()
    assert "tensor<400x9x9x1xui8>" in lowered
    assert len(lowered) < images.size


# Episodes of plain numbers never change, because stored results hang on them.

DIGESTS = {
    ("uint8", "none"): "d957df33b4c4377e",
    ("uint8", "augment"): "c88e7327985b75d0",
    ("uint8", "classes"): "689e14bca16f615c",
    ("float32", "none"): "52f08b66138d3903",
    ("float32", "augment"): "0269a7c2f9fbdb5e",
    ("float32", "classes"): "c15512014bd3d4f2",
}
"""Made by the sampler as it was before it knew ranges and other types."""


@pytest.mark.parametrize(("dtype", "rotations"), DIGESTS)
def test_episodes_of_plain_numbers_are_the_same_bit_for_bit_as_ever(dtype, rotations):
    labels = np.random.default_rng(3).permutation(np.repeat([4, 0, 9, 31], [7, 5, 12, 6]))
    numbers = np.arange(30 * 3 * 3 * 2).reshape(30, 3, 3, 2)
    x = (numbers % 256).astype(np.uint8)
    if dtype == "float32":
        x = numbers.astype(np.float32) / 7 - 20
    sample = few_shot(x, labels, ways=3, shots=2, queries=3, rotations=rotations)
    episode = jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(7), 6))
    assert episode.support.weight is episode.query.weight is None
    leaves = map(np.asarray, jax.tree.leaves(episode))
    digest = hashlib.sha256(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest()
    assert digest.startswith(DIGESTS[dtype, rotations])


# Requests that the data cannot meet.

GOOD = {
    "x": np.zeros((8, 4, 4, 1), np.uint8),
    "labels": np.array([3, 3, 3, 8, 8, 8, 8, 8]),
    "ways": 2,
    "shots": 1,
    "queries": 2,
}
WRONG = [
    ({"ways": 3}, "ways=3, but there are only 2 classes"),
    ({"ways": 9, "rotations": "classes"}, "ways=9, but there are only 8 classes"),
    (
        {"shots": 3},
        "shots=3 and queries=2 need 5 examples per class, or 4 at least, which leaves 1 of 2",
    ),
    ({"shots": (3, 5), "ways": (2, 9)}, r"shots=\(3, 5\) .* 7 .* or 4 at .* ways=\(2, 9\)\."),
    ({"ways": (3, 5)}, r"ways=\(3, 5\), but there are only 2 classes\. Choose fewer ways"),
    ({"shots": (2, 1)}, r"shots=\(2, 1\) is no range\. Give two numbers, the smaller one first"),
    ({"shots": (1, 2, 3)}, "is no range"),
    ({"shots": ()}, "is no range"),
    ({"queries": (0, 3)}, "queries=0 must be a whole number of at least 1"),
    ({"queries": (1, 3.0)}, "queries=3.0 must be"),
    ({"queries": "12"}, "queries=12 must be"),
    ({"ways": 0}, "ways=0 must be a whole number of at least 1"),
    ({"shots": 0}, "shots=0"),
    ({"queries": -1}, "queries=-1"),
    ({"ways": 2.0}, "ways=2.0"),
    ({"x": np.zeros((8, 4, 5, 1), np.uint8), "rotations": "augment"}, "needs square images"),
    ({"x": np.zeros((8, 16), np.uint8), "rotations": "classes"}, "needs square images"),
    ({"rotations": "flip"}, 'rotations="flip" is not one of'),
    ({"labels": np.zeros(7, int)}, "8 examples and 7 labels make no data set"),
    ({"labels": np.zeros((8, 1), int)}, r"labels have the shape \[8, 1\]"),
    ({"x": np.float32(1.0)}, "there are no images"),
    ({"labels": np.zeros(8)}, "labels are float64, but must be integers"),
    ({"labels": np.array([3, 3, 3, -1, -1, -1, -1, -1])}, "example 3 has the label -1"),
    ({"x": {"a": np.zeros((8, 4, 4))}, "rotations": "augment"}, "turns images, but x is a struct"),
    ({"weights": np.ones(7)}, r"weights are float64 \[7\], but there are 8 examples"),
    ({"weights": ["a"] * 8}, r"weights are <U1 \[8\], but there are 8 examples"),
    ({"weights": -np.ones(8)}, "weights must be finite and not negative"),
    ({"weights": np.full(8, np.nan)}, "weights must be finite"),
    ({"x": [[1, 2], [3]] * 4}, "x has rows of unequal length. Pad them to one length"),
    ({"weights": np.zeros(8)}, "one must be larger than 0"),
    ({"x": np.zeros((8, 4), int), "scale": 0.5}, "scale=0.5 is for uint8 and floats, but x is int"),
    ({"x": np.full((8, 4), np.nan)}, "inputs contain NaN or infinity"),
    ({"x": np.zeros((0, 4)), "labels": np.zeros(0, int)}, "there are no images"),
    ({"x": np.zeros((8, 0))}, "there are no images"),
]


@pytest.mark.parametrize(("change", "sentence"), WRONG)
def test_a_request_that_cannot_be_met_is_refused_in_one_sentence(change, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        few_shot(**GOOD | change)
    assert "\n" not in str(error.value)


def test_the_old_name_of_x_is_told_the_new_one():
    old = {"images" if name == "x" else name: given for name, given in GOOD.items()}
    with pytest.warns(DeprecationWarning, match=r"Write few_shot\(x=\.\.\.\)"):
        sample = few_shot(**old)
    jax.tree.map(
        np.testing.assert_array_equal,
        sample(jax.random.key(0)),
        few_shot(**GOOD)(jax.random.key(0)),
    )


def test_the_limits_themselves_are_allowed():
    for change in ({}, {"ways": 8, "rotations": "classes"}):
        jax.eval_shape(few_shot(**GOOD | change), jax.random.key(0))
