"""Losses against NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdl.errors import InputError
from jaxdl.losses import (
    Normal,
    cross_entropy,
    gaussian_nll,
    mean_squared_error,
    weighted_mean,
    without_void,
)
from jaxdl.types import Batch

RNG = np.random.default_rng(0)
LOGITS, LABELS = RNG.normal(size=(5, 4)).astype(np.float32), np.array([0, 3, 1, 1, 2])
WEIGHT = np.array([1, 0, 2, 1, 0], np.float32)


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_cross_entropy(weight):
    loss, metrics = cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), weight)
    probabilities = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    expected = -np.log(probabilities[np.arange(5), LABELS])
    np.testing.assert_allclose(loss, np.average(expected, weights=weight), rtol=1e-6)
    right = LOGITS.argmax(1) == LABELS
    np.testing.assert_allclose(metrics["accuracy"], np.average(right, weights=weight), rtol=1e-6)


def test_smoothing_mixes_the_label_with_all_classes():
    loss, metrics = cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), WEIGHT, smoothing=0.2)
    logits = LOGITS.astype(np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = 0.8 * np.eye(4)[LABELS] + 0.2 / 4
    expected = np.average(-(target * log_probabilities).sum(1), weights=WEIGHT)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert metrics["loss"] == loss


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_mean_squared_error_has_no_factor_one_half(weight):
    prediction, target = RNG.normal(size=(2, 5, 3)).astype(np.float32)
    loss, metrics = mean_squared_error(jnp.asarray(prediction), jnp.asarray(target), weight)
    expected = np.average(((prediction - target) ** 2).mean(1), weights=weight)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert metrics["loss"] == loss


def masked_out(array, rows, value):
    return jnp.asarray(array).at[np.asarray(rows)].set(value)


@pytest.mark.parametrize("smoothing", [0, 0.2])
@pytest.mark.parametrize("label", [-100, -1, 4, 2**31 - 1])
def test_what_stands_in_a_row_of_weight_zero_counts_for_nothing(label, smoothing):
    """Neither a target outside the classes nor a prediction that is NaN; in value and gradient."""
    void = WEIGHT == 0

    def loss(prediction, target):
        return cross_entropy(prediction, target, WEIGHT, smoothing=smoothing)

    run = jax.value_and_grad(loss, has_aux=True)
    plain = run(jnp.asarray(LOGITS), jnp.asarray(LABELS))
    for value in (np.nan, np.inf, 3.0):
        found = run(masked_out(LOGITS, void, value), masked_out(LABELS, void, label))
        jax.tree.map(np.testing.assert_array_equal, found, plain)


def test_the_cases_that_were_nan():
    logits = jnp.array([[0.2, 0.1, 0.4]] * 2)
    loss, _ = cross_entropy(logits, jnp.array([0, -100]), jnp.array([1, 0]))
    np.testing.assert_allclose(loss, -0.2 + np.log(np.exp([0.2, 0.1, 0.4]).sum()), rtol=1e-6)
    loss, _ = mean_squared_error(jnp.zeros((2, 1)), jnp.array([[1], [np.nan]]), jnp.array([1, 0]))
    assert loss == 1


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_missing_number_of_weight_zero_counts_for_nothing(value):
    prediction, target = jnp.asarray(RNG.normal(size=(2, 5, 3)).astype(np.float32))
    run = jax.value_and_grad(mean_squared_error, argnums=(0, 1), has_aux=True)
    plain, void = run(prediction, target, WEIGHT), WEIGHT == 0
    found = run(masked_out(prediction, void, 7), masked_out(target, void, value), WEIGHT)
    jax.tree.map(np.testing.assert_array_equal, found, plain)


def test_inputs_are_cleared_where_they_have_no_weight_and_nowhere_else():
    x = {"a": jnp.array([[np.nan, 1], [np.inf, 2], [3, -np.inf]]), "b": jnp.array([7, 8, 9])}
    found = without_void(x, jnp.array([1, 0, 0.5]))
    expected = {"a": [[np.nan, 1], [0, 2], [3, -np.inf]], "b": [7, 8, 9]}
    jax.tree.map(
        np.testing.assert_array_equal,
        found,
        jax.tree.map(np.asarray, expected, is_leaf=lambda v: isinstance(v, list)),
    )
    assert without_void(x, None) is x


@pytest.mark.parametrize("label", [-100, -1, 4])
def test_a_label_outside_the_classes_is_not_taken_for_another(label):
    """Indexing would take -1 for the last class."""
    loss, _ = cross_entropy(jnp.asarray(LOGITS), masked_out(LABELS, [1], label))
    assert np.isnan(loss)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("label", [-1, 4])
def test_such_a_label_reaches_the_gradient_too(label, smoothing):
    """An inner loop shows no loss. It went on with the other examples, and its result was finite.
    The value alone was a constant NaN, whose gradient is zero."""
    value = partial(cross_entropy, smoothing=smoothing)
    grad, _ = jax.grad(value, has_aux=True)(jnp.asarray(LOGITS), masked_out(LABELS, [1], label))
    assert np.isnan(grad[1]).all()
    weight = jnp.ones(len(LABELS)).at[1].set(0)
    grad, _ = jax.grad(value, has_aux=True)(
        jnp.asarray(LOGITS), masked_out(LABELS, [1], label), weight
    )
    assert np.isfinite(grad).all()


def test_a_prediction_that_is_nan_is_no_answer():
    """The first NaN is the largest to `argmax`: the share of class 0 was taken for an accuracy."""
    logits = jnp.zeros((3, 2)).at[1].set(jnp.array([0.0, jnp.nan]))
    labels = jnp.zeros(3, jnp.int32)
    assert np.isnan(cross_entropy(logits, labels)[1]["accuracy"])
    assert cross_entropy(logits, labels, jnp.array([1, 0, 1]))[1]["accuracy"] == 1
    impossible = jnp.array([[0.0, -jnp.inf], [0.0, -jnp.inf], [0.0, 1.0]])
    np.testing.assert_allclose(cross_entropy(impossible, labels)[1]["accuracy"], 2 / 3)


def test_the_mean_of_nothing_is_zero_where_the_weights_are_constants_of_a_program():
    """XLA computed 0 / tiny of constants ahead, as NaN."""
    nothing = jnp.zeros(6)
    run = jax.jit(lambda rows: jax.lax.map(lambda row: weighted_mean(row, nothing), rows))
    assert run(jnp.ones((3, 6))).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("loss", "prediction", "target", "weight", "sentence"),
    [
        (mean_squared_error, (4, 1), (4,), None, r"one shape, not \[4, 1\] and \[4\]"),
        (mean_squared_error, (4,), (4, 1), None, "one shape"),
        (mean_squared_error, (4, 3), (3,), None, "one shape"),
        (mean_squared_error, (4, 3), (1, 3), None, "one shape"),
        (mean_squared_error, (4, 3), (), None, "one shape"),
        (mean_squared_error, (4, 1), (4, 1), (4, 1), r"one per example, not \[4, 1\]"),
        (mean_squared_error, (4, 4), (4, 4), (3,), "one per example"),
        (mean_squared_error, (4, 4), (4, 4), (), "one per example"),
        (cross_entropy, (4, 3), (4, 1), None, r"and labels \[n, ...\], not \[4, 3\] and \[4, 1\]"),
        (cross_entropy, (4, 3), (1,), None, "labels"),
        (cross_entropy, (4, 3), (), None, "labels"),
        (cross_entropy, (1, 3), (4,), None, "labels"),
        (cross_entropy, (4, 5, 3), (4,), None, "labels"),
        (cross_entropy, (3,), (), None, "labels"),
        (cross_entropy, (4, 3), (4,), (4, 1), "one per example"),
        (cross_entropy, (4, 3), (4,), (1,), "one per example"),
    ],
)
def test_shapes_that_would_broadcast_are_refused(loss, prediction, target, weight, sentence):
    """Else the error of every prediction against every target is averaged."""
    kind = int if loss is cross_entropy else float
    weight = None if weight is None else jnp.ones(weight)
    with pytest.raises(InputError, match=sentence):
        loss(jnp.zeros(prediction), jnp.zeros(target, kind), weight)


@pytest.mark.parametrize("kind", [np.float32, bool])
def test_labels_that_are_no_integers_are_refused(kind):
    with pytest.raises(InputError, match="takes integer class labels, not"):
        cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS).astype(kind))


@pytest.mark.parametrize("kind", ["uint8", "int8", "int16", "uint32"])
@pytest.mark.parametrize("classes", [4, 300, 70_000])
def test_labels_of_any_integer_type(kind, classes):
    logits = jnp.asarray(RNG.normal(size=(5, classes)).astype(np.float32))
    expected = cross_entropy(logits, jnp.asarray(LABELS))
    assert cross_entropy(logits, jnp.asarray(LABELS.astype(kind))) == expected


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_short_floats_are_weighed_in_float32(kind):
    logits = jnp.zeros((70_000, 2), kind)
    weight = jnp.ones(70_000, kind)  # whose sum float16 does not hold
    loss, metrics = cross_entropy(logits, jnp.zeros(70_000, int), weight)
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-2)
    assert metrics["accuracy"] == 1


def test_labels_of_each_step_of_a_sequence():
    logits = RNG.normal(size=(5, 2, 4)).astype(np.float32)
    labels = np.stack([LABELS, LABELS[::-1]], axis=1)
    found, _ = cross_entropy(jnp.asarray(logits), jnp.asarray(labels), WEIGHT)
    each = [
        cross_entropy(jnp.asarray(logits[:, t]), jnp.asarray(labels[:, t]), WEIGHT)[0]
        for t in (0, 1)
    ]
    np.testing.assert_allclose(found, np.mean(each), rtol=1e-6)


def test_a_batch_of_nothing_but_padding_weighs_nothing():
    loss, metrics = cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.zeros(5))
    assert loss == 0
    assert metrics["accuracy"] == 0


# ---- distributions


def normals(*more):
    mean, raw = RNG.normal(size=(2, 5, 2, *more)).astype(np.float32)
    return Normal(jnp.asarray(mean), jnp.exp(jnp.asarray(raw)))


NUMBERS = RNG.normal(size=(5, 2)).astype(np.float32)


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_a_normal_has_the_log_likelihood_of_scipy(weight):
    prediction = normals()
    loss, metrics = gaussian_nll(prediction, jnp.asarray(NUMBERS), weight)
    each = stats.norm.logpdf(NUMBERS, *map(np.asarray, prediction)).sum(axis=1)
    np.testing.assert_allclose(metrics["log_likelihood"], np.average(each, weights=weight), 1e-5)
    squared = np.average((np.square(prediction.mean - NUMBERS)).mean(1), weights=weight)
    np.testing.assert_allclose(metrics["squared_error"], squared, rtol=1e-5)
    assert loss == metrics["loss"] == -metrics["log_likelihood"]
    assert "joint_log_likelihood" not in metrics


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_samples_are_a_mixture_per_point_and_jointly(weight):
    """Jointly: the likelihood of all points together is the mean over samples of its product."""
    prediction = normals(7)
    _, metrics = gaussian_nll(prediction, jnp.asarray(NUMBERS), weight)
    each = np.exp(stats.norm.logpdf(NUMBERS[..., None], *map(np.asarray, prediction)).sum(axis=1))
    of_points = np.log(each.mean(axis=1))
    expected = np.average(of_points, weights=weight)
    np.testing.assert_allclose(metrics["log_likelihood"], expected, rtol=1e-5)
    powers = np.ones(5) if weight is None else weight
    joint = np.log(np.prod(each ** powers[:, None], axis=0).mean()) / powers.sum()
    np.testing.assert_allclose(metrics["joint_log_likelihood"], joint, rtol=1e-5)
    mean = np.asarray(prediction.mean).mean(axis=-1)
    squared = np.average(np.square(mean - NUMBERS).mean(1), weights=weight)
    np.testing.assert_allclose(metrics["squared_error"], squared, rtol=1e-5)


@pytest.mark.parametrize("more", [(), (3,)])
def test_a_normal_in_a_row_of_weight_zero_counts_for_nothing(more):
    """A scale of 0, NaN or infinity; in value and gradient. No weight at all gives zeros."""

    @jax.jit
    def run(prediction, target, weight):
        return jax.value_and_grad(gaussian_nll, has_aux=True)(prediction, target, weight)

    prediction, void = normals(*more), WEIGHT == 0
    plain = run(prediction, jnp.asarray(NUMBERS), WEIGHT)
    for value in (0.0, np.nan, np.inf):
        hidden = Normal(*(masked_out(leaf, void, value) for leaf in prediction))
        found = run(hidden, masked_out(NUMBERS, void, value), WEIGHT)
        jax.tree.map(np.testing.assert_array_equal, found, plain)
    nothing = run(prediction, jnp.asarray(NUMBERS), jnp.zeros(5))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(nothing))


def test_what_is_no_normal_of_the_targets_is_refused():
    with pytest.raises(InputError, match=r"a prediction Normal\(mean, scale\), not ArrayImpl"):
        gaussian_nll(jnp.zeros((5, 2)), jnp.asarray(NUMBERS))
    with pytest.raises(InputError, match=r"not \[5, 2\], \[5, 2\] and \[5, 1\]"):
        gaussian_nll(normals(), jnp.asarray(NUMBERS[:, :1]))


@pytest.mark.parametrize("loss", [cross_entropy, mean_squared_error, gaussian_nll])
def test_a_batch_in_place_of_targets_is_refused(loss):
    prediction = Normal(jnp.zeros((2, 1)), jnp.ones((2, 1))) if loss is gaussian_nll else 0
    with pytest.raises(InputError, match=f"{loss.__name__} takes targets, not a Batch"):
        loss(prediction, Batch(jnp.zeros((2, 1)), jnp.zeros((2, 1))))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 1.5])
def test_smoothing_is_a_share(smoothing):
    with pytest.raises(InputError, match=r"is a share of each label. Choose it in \[0, 1\)"):
        cross_entropy(jnp.zeros((2, 3)), jnp.array([0, 1]), smoothing=smoothing)
