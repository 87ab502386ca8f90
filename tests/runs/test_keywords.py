"""The keyword arguments of a function become the flags of a command line, with their help."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from jaxdl.errors import InputError
from jaxdl.runs.config import Count, check
from jaxdl.runs.keywords import fits, keywords_of


def learner(
    model,
    loss,
    *,
    ways: int,
    steps: Count = 3,
    rate: float = 0.5,
    how: Literal["fast", "slow"] = "fast",
    sizes: tuple[int, ...] = (4, 4),
    path: Path | None = None,
):
    """A learner of one's own.

    It has a second paragraph.

    Args:
        ways: Not a flag.
        steps: Inner steps, of which
            there may be many.
        rate: Their rate.

    >>> example = 1
    """


def test_a_field_for_each_keyword_that_is_not_known():
    kind = keywords_of(learner, known=["ways"])
    assert kind().__dict__ == {
        "steps": 3,
        "rate": 0.5,
        "how": "fast",
        "sizes": (4, 4),
        "path": None,
    }
    assert kind(rate=2.0) == keywords_of(learner, known=["ways"])(rate=2.0) != kind()


def test_ranges_of_annotations_are_checked():
    kind = keywords_of(learner, known=["ways"])
    check(kind())
    with pytest.raises(InputError, match="`steps=0`: choose at least 1"):
        check(kind(steps=0))


def test_help_is_the_first_paragraph_and_the_arguments(capsys):
    import tyro

    kind = keywords_of(learner, known=["ways"])
    with pytest.raises(SystemExit):
        tyro.cli(kind, args=["--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "A learner of one's own." in shown
    assert "Inner steps, of which there may be many. (default: 3)" in shown
    assert "second paragraph" not in shown
    assert ">>>" not in shown
    made: Any = tyro.cli(kind, args=["--steps", "7", "--how", "slow", "--sizes", "1", "2"])
    assert (made.steps, made.how, made.sizes) == (7, "slow", (1, 2))


def no_default(*, ways: int): ...


def no_annotation(*, rate=3): ...


def no_flag(*, distance: Callable[[int], int] = abs): ...


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (no_default, "the argument ways of no_default has no default. Write `ways: float = 1.0`"),
        (no_annotation, "the argument rate of no_annotation has no annotation. Write"),
        (no_flag, "distance of no_flag has the type .*, which no flag can express. Choose int"),
    ],
)
def test_what_cannot_be_a_flag(function, words):
    with pytest.raises(InputError, match=words):
        keywords_of(function)


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (3, int, True),
        (3, float, True),
        (3.0, int, False),
        (True, int, False),
        (True, bool, True),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        (["a"], Literal["a", "b"], False),
        (None, Count | None, True),
        ("3", Annotated[int, "any"], False),
        ([1, 2], tuple[int, ...], True),
        ([1, "2"], tuple[int, ...], False),
    ],
)
def test_fits(value, hint, expected):
    assert fits(value, hint) is expected
