"""Labels that are none are refused by whatever takes them, with label, example and cure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.data.episodes import few_shot
from jaxdl.data.epochs import epochs
from jaxdl.data.examples import examples
from jaxdl.data.labels import check_labels, name_classes
from jaxdl.data.sets.images import choose_classes
from jaxdl.data.sets.multimnist import overlaid_epochs, overlaid_pairs
from jaxdl.data.sets.rotated_permuted import permutations, task_after_task
from jaxdl.data.subsets import by_class, divided
from jaxdl.errors import InputError

LABELS = np.array([2, 0, 1, 1, 0, 2])


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]
)
def test_any_integers_become_int32_and_keep_their_values(dtype):
    found = check_labels(LABELS.astype(dtype), 6, classes=3)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, LABELS)


def test_lists_and_device_arrays_are_labels_too():
    np.testing.assert_array_equal(check_labels([0, 3], 2), [0, 3])
    np.testing.assert_array_equal(check_labels(jnp.array([0, 3])), [0, 3])


def test_bytes_above_127_do_not_wrap():
    labels = np.array([0, 200, 255], np.uint8)
    assert (check_labels(labels, classes=256) * 256).tolist() == [0, 51200, 65280]


def test_several_labels_an_example_where_they_are_allowed():
    labels = np.array([[0, 1], [1, 0]])
    np.testing.assert_array_equal(check_labels(labels, 2, classes=2, several=True), labels)
    with pytest.raises(InputError, match="example 1 has the label 2, but the 2 classes have"):
        check_labels([[0, 1], [2, 0]], 2, classes=2, several=True)


def test_the_limits_themselves_are_allowed():
    assert check_labels([0, 9], classes=10).tolist() == [0, 9]
    assert check_labels([2**31 - 1]).tolist() == [2**31 - 1]


WRONG = [
    (LABELS.astype(np.float32), "labels are float32, but must be integers"),
    (LABELS > 0, "labels are bool, but must be integers"),
    (LABELS.astype(str), "but must be integers"),
    (LABELS.astype(object), "labels are object, but must be integers"),
    (np.array([2, 0, 1, 1, -1, 2]), "example 4 has the label -1"),
    (LABELS.astype(np.uint32) + 2**31, "example 0 has the label 2147483650"),
    (LABELS[:, None], r"labels have the shape \[6, 1\]\. Give one per example"),
    (np.int32(3), r"labels have the shape \[\]"),
    (LABELS[:5], "6 examples and 5 labels make no data set"),
]


@pytest.mark.parametrize(("labels", "words"), WRONG)
def test_what_is_no_label_is_refused_in_one_sentence(labels, words):
    with pytest.raises(InputError, match=words) as caught:
        check_labels(labels, 6)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", [-1, 3, 255])
def test_a_label_without_a_class_is_named_with_the_range(label):
    with pytest.raises(
        InputError, match=f"example 2 has the label {label}, .* 3 classes .* 0 to 2"
    ):
        check_labels([0, 2, label, 1], 4, classes=3)


def test_no_labels_are_refused():
    with pytest.raises(InputError, match="there are no labels"):
        check_labels(np.zeros(0, int), 0)


# --- Labels that name classes

WORDS = ["owl", "cat", "dog", "dog", "cat", "owl"]


@pytest.mark.parametrize(
    "labels",
    [
        WORDS,
        tuple(WORDS),
        np.array(WORDS),
        np.array(WORDS, object),
        np.array([np.str_(word) for word in WORDS], object),
        np.array(WORDS, np.dtypes.StringDType()),
    ],
)
def test_strings_are_named_in_the_order_of_numpy(labels):
    names, places = name_classes(labels, 6)
    assert names.tolist() == ["cat", "dog", "owl"]
    np.testing.assert_array_equal(places, LABELS)


def test_integers_name_themselves():
    names, places = name_classes([70, 3, 70], 3)
    assert (names.tolist(), places.tolist()) == ([3, 70], [1, 0, 1])


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.array([*WORDS[:5], 3], object), "labels are objects of the kinds int, str. Give"),
        (np.array([*WORDS[:5], None], object), "labels are objects of the kinds NoneType, str"),
        ([*WORDS[:5], float("nan")], "labels are objects of the kinds float, str. Give all"),
        ([1, *WORDS[:5]], "labels are objects of the kinds int, str"),
        (np.array(WORDS, bytes), r"labels are \|S3, but must be integers"),
        (np.array(WORDS)[:, None], r"labels have the shape \[6, 1\]"),
        (np.array("owl"), r"labels have the shape \[\]"),
        (WORDS[:5], "6 examples and 5 labels make no data set"),
        (np.zeros(6), "labels are float64, but must be integers"),
    ],
)
def test_what_names_no_class_is_refused(labels, words):
    with pytest.raises(InputError, match=words):
        name_classes(labels, 6)
    with pytest.raises(InputError, match="there are no labels"):
        name_classes(np.array([], object), 0)


@pytest.mark.parametrize("labels", [WORDS, np.array(WORDS), np.array(WORDS, object)])
def test_episodes_of_strings_are_those_of_their_places(labels):
    found = [few_shot(X, of, ways=2, shots=1, queries=1)(KEY) for of in (labels, LABELS)]
    jax.tree.map(np.testing.assert_array_equal, *found)


# --- Whatever takes labels -----------------------------------------------------------------------

X = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2, 1)
KEY = jax.random.key(0)


def as_it_is(key, x):
    return x


MAKERS = {
    "epochs": lambda y, **more: epochs(X, y, batch=6, transform=as_it_is, **more),
    "examples": lambda y, **more: examples(X, y, **more),
    "few_shot": lambda y: few_shot(X, y, ways=3, shots=1, queries=1),
    "by_class": lambda y, **more: by_class(X, y, **more),
    "divided": lambda y: divided(y, 1, 1),
    "overlaid_epochs": lambda y, **more: overlaid_epochs(
        X, y, batch=6, transform=lambda image: image, **more
    ),
    "overlaid_pairs": lambda y, **more: overlaid_pairs(KEY, X, y, **more),
    "task_after_task": lambda y, **more: task_after_task(
        X, y, permutations(0, 2, 4), examples=6, **more
    ),
    "choose_classes": lambda y: choose_classes(X, y, ["a", "b", "c"], ("a", "c")),
}
KNOW_CLASSES = sorted(set(MAKERS) - {"few_shot", "divided", "choose_classes"})


OTHER_WORDS = {
    ("epochs", "float32"): r"y is float32 of shape \[n\]\. Give class labels as integers",
    ("epochs", "()"): "6 examples and no labels make no data set",
}
ALLOWED = {
    ("divided", "(5,)"),  # it gets no examples to compare the number with
    ("few_shot", str(LABELS.astype(str).dtype)),  # it names classes
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(("labels", "words"), WRONG)
def test_every_maker_refuses_it(maker, labels, words):
    kinds = {(maker, str(labels.dtype)), (maker, str(labels.shape))}
    if kinds & ALLOWED:
        MAKERS[maker](labels)
        return
    for kind in kinds & OTHER_WORDS.keys():
        words = OTHER_WORDS[kind]
    with pytest.raises(InputError, match=words):
        MAKERS[maker](labels)


@pytest.mark.parametrize("maker", KNOW_CLASSES)
def test_every_maker_that_may_know_the_classes_refuses_a_label_beyond_them(maker):
    MAKERS[maker](LABELS, classes=3)
    with pytest.raises(
        InputError, match="example 0 has the label 2, but the 2 classes have the la"
    ):
        MAKERS[maker](LABELS, classes=2)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_what_comes_out_has_the_labels_that_went_in(dtype):
    """200 and 255 are where arithmetic on bytes goes wrong."""
    labels = np.array([200, 255, 200, 255, 0, 0]).astype(dtype)
    at = jax.jit(lambda stream: stream(KEY, jnp.int32(3)))
    batch = at(MAKERS["epochs"](labels))
    np.testing.assert_array_equal(batch.y, labels[np.asarray(batch.x)[:, 0, 0, 0] // 4])
    pairs = at(MAKERS["overlaid_epochs"](labels))
    _, fixed = MAKERS["overlaid_pairs"](labels)
    one = MAKERS["examples"](labels)(KEY)
    assert int(one.y) == labels[round(float(one.x[0, 0, 0] * 255)) // 4]
    later = at(MAKERS["task_after_task"](labels))
    for y in (batch.y, pairs.y, fixed, one.y, later.y):
        assert y.dtype == jnp.int32
        assert set(np.unique(y).tolist()) <= {0, 200, 255}
    first, second, rest = divided(labels, 1, 1)
    assert (first.tolist(), second.tolist(), rest.tolist()) == ([4, 0, 1], [5, 2, 3], [])


def test_gaps_between_labels_are_nothing_to_an_episode():
    """What is drawn depends on the order of the classes and not on their numbers."""
    names = np.array([1000, 3, 70]), np.array([2, 0, 1])
    found = [few_shot(X, of[LABELS], ways=2, shots=1, queries=1)(KEY) for of in names]
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_strings_of_numpy_in_a_list_are_strings():
    names, places = name_classes([np.array("b"), np.array("a"), np.array("b")], 3)
    assert (names.tolist(), places.tolist()) == (["a", "b"], [1, 0, 1])
