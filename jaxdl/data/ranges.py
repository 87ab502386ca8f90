"""How many ways, shots and queries an episode has, where they vary from one to the next."""

from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, Integer, Shaped, UInt

from jaxdl.errors import InputError
from jaxdl.types import Array, Count

Range = int | tuple[int, int]
"""A number, or the fewest and the most of them, both included."""


class Span(NamedTuple):
    """A checked `Range`; `fewest` equals `most` for a plain number."""

    fewest: int
    most: int

    def draw(self, bits: UInt[Array, ""]) -> Count:
        """A number of the range by a random uint32, each as likely as the others."""
        return self.fewest + (bits % (self.most - self.fewest + 1)).astype(jnp.int32)

    def __str__(self) -> str:
        """As a user gives it."""
        return str(self.most if self.fewest == self.most else tuple(self))


def check_count(name: str, given: Any) -> int:
    """A count.

    Raises:
        InputError: if it is no whole number of at least 1.
    """
    if not isinstance(given, Integral) or int(given) < 1:
        raise InputError(f"{name}={given} must be a whole number of at least 1. Choose one")
    return int(given)


def check_range(name: str, given: Any) -> Span:
    """The limits of a `Range`.

    Raises:
        InputError: if they are not whole numbers of at least 1, the smaller one first.
    """
    if isinstance(given, str) or not isinstance(given, Sequence):
        count = check_count(name, given)
        return Span(count, count)
    if len(given) != 2 or check_count(name, given[0]) > check_count(name, given[1]):
        raise InputError(
            f"{name}={given} is no range. Give two numbers, the smaller one first, as {name}=(1, 5)"
        )
    return Span(int(given[0]), int(given[1]))


class Asked(NamedTuple):
    """What a user asks of episodes."""

    ways: Span
    shots: Span
    queries: Span

    @property
    def vary(self) -> bool:
        """Whether any of the numbers is a range."""
        return any(fewest < most for fewest, most in self)

    @property
    def points(self) -> int:
        """The most examples that an episode takes of a class."""
        return self.shots.most + self.queries.most

    @property
    def least(self) -> int:
        """How many examples a class needs."""
        return self.shots.fewest + 1

    def of_classes(self, classes: int, total: int) -> "Asked":
        """The same with no more ways than the `classes` that have examples enough, of `total`.

        Raises:
            InputError: if a plain number of ways, or the fewest of a range, is more than that.
        """
        fewest, most = self.ways
        if fewest > classes == total:
            raise InputError(
                f"ways={self.ways}, but there are only {classes} classes. Choose fewer ways"
            )
        if fewest > classes:
            least = f", or {self.least} at least" if self.least < self.points else ""
            raise InputError(
                f"shots={self.shots} and queries={self.queries} need {self.points} examples per"
                f" class{least}, which leaves {classes} of {total} classes for ways={self.ways}."
                " Choose fewer of them"
            )
        return self._replace(ways=Span(fewest, min(most, classes)))

    def warnings(
        self, names: Shaped[np.ndarray, " classes"], sizes: Int[np.ndarray, " classes"]
    ) -> Iterator[str]:
        """What a user must know of classes `[classes]` that are too small."""
        if (small := sizes < self.least).any():
            yield (
                f"{told(names, sizes, small)} fewer than {self.least} examples and are left out. "
                + ("Choose fewer shots" if self.least > 2 else "Give them more examples")
                + " to keep them"
            )
        plain = self.points == self.shots.fewest + self.queries.fewest
        if plain and (small := (sizes >= self.least) & (sizes < self.points)).any():
            yield (
                f"{told(names, sizes, small)} fewer than {self.points} examples and give fewer"
                " shots and queries, so batches are padded and have weights. Choose fewer of both"
                " for episodes of one size"
            )


def divide(
    sizes: Integer[Array, " ways"], shots: Count | int, queries: Count | int
) -> tuple[Int[Array, " ways"], Int[Array, " ways"]]:
    """How many support and query examples classes of these sizes, each at least 2, give.

    A class of at least `shots + queries` examples gives what is asked. A smaller class gives all
    its examples: `size * shots / (shots + queries)` support examples, rounded half up, and the
    others as queries, with at least one in each. It never gives more than is asked.
    """
    asked = shots + queries
    given = jnp.minimum(sizes, asked)
    support = jnp.clip((2 * given * shots + asked) // (2 * asked), 1, given - 1)
    return support, given - support


def told(
    names: Shaped[np.ndarray, " classes"],
    sizes: Int[np.ndarray, " classes"],
    which: Bool[np.ndarray, " classes"],
) -> str:
    """The first words of a sentence on some classes, which names a few of them."""
    some = np.flatnonzero(which)
    first = ", ".join(f"{names[c]} ({sizes[c]})" for c in some[:5])
    more = f" and {len(some) - 5} more" if len(some) > 5 else ""
    return f"{len(some)} of {len(names)} classes, {first}{more}, have"
