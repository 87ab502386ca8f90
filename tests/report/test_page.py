"""The page of a report as a parser reads it."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxdl.report import curves, pictures
from jaxdl.report.page import page
from jaxdl.report.tables import markdown

PNG = b"\x89PNG\r\n\x1a\nnot really"
LINES = {
    "train": {"step": np.arange(1, 4), "loss": np.arange(6.0).reshape(3, 2)},
    "validation": {"step": np.array([3]), "loss": np.ones((1, 2)), "accuracy": np.zeros((1, 2))},
}


class Reader(HTMLParser):
    """What a browser would show and load. It fails at an element that is closed wrongly."""

    VOID = ("meta", "img", "!doctype")

    def __init__(self, text):
        super().__init__()
        self.open, self.loaded, self.tables, self.words, self.tags = [], [], [], [], set()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.loaded += [
            value for name, value in attributes if name in ("src", "href", "xlink:href")
        ]
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1].append(data)
        elif self.open and self.open[-1] == "p":
            self.words.append(data)


@pytest.fixture(scope="module")
def shown():
    draw = lambda figure: curves.by_split(LINES, figure)  # noqa: E731
    svg = pictures.svg(draw, size=(4, 3), salt="Training")
    report = markdown(["shots", "a < b"], [["5", "0.5 ± 0.1"], ["10", "<script>"]])
    return page(
        "few_shot: <script>",
        f"{report}\nTwo seeds & more.",
        curves={"Training": svg},
        pictures={"episode": PNG},
        settings={"Configuration": {"lr": 0.1, "name": "<b>"}},
    )


def test_tables_lines_and_settings_are_there_as_they_were_given(shown):
    found = Reader(shown)
    assert found.tables[0] == [["shots", "a < b"], ["5", "0.5 ± 0.1"], ["10", "<script>"]]
    assert found.tables[1] == [["lr", "0.1"], ["name", "<b>"]]
    assert found.words == ["Two seeds & more."]
    assert not {"script", "b", "link"} & found.tags


def test_nothing_is_loaded_from_elsewhere(shown):
    loaded = Reader(shown).loaded
    picture = [each for each in loaded if not each.startswith("#")]
    assert [base64.b64decode(each.partition("base64,")[2]) for each in picture] == [PNG]
    assert "@import" not in shown
    assert "url(http" not in shown


def test_a_curve_has_the_numbers_of_each_seed():
    figure = Figure()
    curves.by_split(LINES, figure)
    loss, accuracy = (axis for axis in figure.axes if axis.get_title())
    assert (loss.get_title(), accuracy.get_title()) == ("loss", "accuracy")
    drawn = [(*line.get_xdata(), *line.get_ydata()) for line in loss.lines]
    assert drawn == [(1, 2, 3, 0, 2, 4), (1, 2, 3, 1, 3, 5), (3, 1), (3, 1)]
    assert len({line.get_color() for line in loss.lines}) == 2
    assert [text.get_text() for text in figure.legends[0].texts] == ["train", "validation"]


def test_long_curves_are_thinned():
    figure, count = Figure(), 10 * curves.MOST_POINTS
    lines = {"step": np.arange(count), "loss": np.arange(count)[:, None]}
    curves.by_split({"train": lines}, figure)
    drawn = figure.axes[0].lines[0].get_xdata()
    assert len(drawn) == curves.MOST_POINTS + 1
    assert drawn[-1] == count - 1


def test_runs_side_by_side_are_drawn_over_steps_and_over_minutes():
    """A run that has not noted its time is on the left alone, and all have their name below."""
    step = np.arange(1, 4)
    one = {"step": step, "minutes": step / 10, "loss": np.array([[1, 3], [2, 4], [3, 5]])}
    other = {"step": step, "accuracy": np.zeros((3, 1))}
    figure = Figure()
    curves.side_by_side({"one": one, "$other": other}, figure)
    found = [
        [(*line.get_xdata(), *line.get_ydata()) for line in axis.lines] for axis in figure.axes
    ]
    loss = (2, 3, 4)  # the means over seeds
    assert found[0] == [(1, 2, 3, *loss)]
    np.testing.assert_allclose(found[1], [(0.1, 0.2, 0.3, *loss)])
    assert found[2] == [(1, 2, 3, 0, 0, 0)]
    assert found[3] == []
    assert [text.get_text() for text in figure.legends[0].texts] == ["one", "$other"]


def test_a_lone_line_that_begins_as_a_table_is_a_paragraph():
    shown = page("a", "|x| is 3\n\n| a |\n| :- |\n| 1 |\n|x|", curves={}, pictures={}, settings={})
    found = Reader(shown)
    assert found.words == ["|x| is 3"]
    assert found.tables == [[["a"], ["1"], ["x"]]]


def test_two_tables_without_a_line_between_them_are_two():
    first, second = "| a |\n| -: |\n| 1 |\n", "| b | c |\n| :- | :- |\n| 2 | - |"
    found = Reader(page("a", first + second, curves={}, pictures={}, settings={}))
    assert found.tables == [[["a"], ["1"]], [["b", "c"], ["2", "-"]]]


def test_settings_inside_of_settings_have_a_line_each():
    settings = {"Run": {"packages": {"jax": "0.10", "numpy": {"version": 2}}, "empty": {}}}
    found = Reader(page("a", "", curves={}, pictures={}, settings=settings))
    assert found.tables == [[["packages.jax", "0.10"], ["packages.numpy.version", "2"]]]


def test_names_are_no_formulas():
    figure = Figure()
    curves.by_split({"$\\frac$": {"step": np.arange(2), "$\\frac$": np.zeros((2, 1))}}, figure)
    figure.savefig(io.BytesIO())


def test_two_drawings_are_one_text_and_other_salts_have_other_names():
    draw = lambda figure: curves.by_split(LINES, figure)  # noqa: E731
    one, again, other = (pictures.svg(draw, size=(4, 3), salt=salt) for salt in "aab")
    assert one == again
    names = [set(re.findall('<clipPath id="(.*?)"', svg)) for svg in (one, other)]
    assert names[0]
    assert not names[0] & names[1]
