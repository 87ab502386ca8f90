"""What stands in a picture is what the arrays say."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxdl.errors import InputError
from jaxdl.report import pictures

NAMES = ("cat", "dog", "frog")


def logits(predicted, confidence):
    """Logits whose softmax gives the predicted class this probability."""
    values = np.zeros((len(predicted), 3))
    p = np.asarray(confidence)
    values[np.arange(len(predicted)), predicted] = np.log(2 * p / (1 - p))
    return values


def titles(axes):
    return [(axis.get_title(), axis.title.get_color()) for axis in axes if axis.get_title()]


@pytest.mark.parametrize("channels", [1, 3])
def test_predictions_name_class_confidence_and_error(channels):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, channels), np.uint8)
    figure = Figure()
    pictures.predictions(
        images,
        [0, 1, 2, 0, 0],
        logits([0, 2, 2, 1, 2], [0.9, 0.6, 0.5, 0.7, 0.8]),
        NAMES,
        figure,
        columns=2,
        rows=1,
    )
    figure.draw_without_rendering()
    first, worst = figure.subfigs
    assert first.get_suptitle() == "the first images (3 of 5 wrong, 60.00%)"
    assert titles(first.axes) == [("cat (90%)", "0.2"), ("frog (60%)\ntrue: dog", "C3")]
    # The two of three errors that are the most confident, in that order.
    expected = [("frog (80%)\ntrue: cat", "C3"), ("dog (70%)\ntrue: cat", "C3")]
    assert titles(worst.axes) == expected
    shown = worst.axes[0].images[0].get_array()
    np.testing.assert_allclose(np.reshape(shown, images[4].shape), images[4] / 255)


def test_a_net_without_errors_has_no_errors_to_show():
    figure = Figure()
    pictures.predictions(np.zeros((2, 4, 4, 1)), [0, 1], logits([0, 1], [0.9, 0.9]), NAMES, figure)
    assert len(figure.subfigs) == 1


def test_confusion_counts_rows_of_true_classes():
    figure = Figure()
    pictures.confusion([0, 0, 0, 2, 2], [0, 1, 1, 2, 0], NAMES, figure)
    axis = figure.axes[0]
    found = {text.get_position(): text.get_text() for text in axis.texts}  # (column, row)
    assert found == {(0, 0): "1", (1, 0): "2", (0, 2): "1", (2, 2): "1"}
    assert axis.get_title() == "accuracy 40.00%"
    shares = np.asarray(axis.images[0].get_array())
    np.testing.assert_allclose(shares, [[0, 200 / 3, 0], [0, 0, 0], [50, 0, 0]])
    assert axis.get_ylabel() == "true class"


def test_learning_curve_shows_mean_and_range_over_seeds():
    lines = {"step": np.array([1, 2]), "loss": np.array([[1.0, 3], [1, 2]])}
    lines["accuracy"] = np.array([[0.5, 0.7], [0.8, 0.9]])
    figure = Figure()
    pictures.learning_curve({"train": lines}, figure)
    loss, error = figure.axes
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [2, 1.5])
    np.testing.assert_allclose(error.lines[0].get_ydata(), [40, 15])
    band = error.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(10)
    assert band.max() == pytest.approx(50)
    figure.draw_without_rendering()


def test_confusion_of_bytes_does_not_wrap():
    """20 * 20 + 19 is 163 in a byte."""
    figure, names = Figure(), [f"class {i}" for i in range(21)]
    labels = np.array([20, 20, 0], np.uint8)
    pictures.confusion(labels, np.array([19, 20, 0], np.uint8), names, figure)
    found = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert found == {(19, 20): "1", (20, 20): "1", (0, 0): "1"}


def test_labels_without_a_name_are_refused():
    with pytest.raises(InputError, match="example 1 has the label -1"):
        pictures.confusion([0, -1], [0, 1], NAMES, Figure())
    with pytest.raises(InputError, match="example 1 has the label 3"):
        pictures.predictions(np.zeros((2, 4, 4, 1)), [0, 3], np.zeros((2, 3)), NAMES, Figure())
