"""The input of nets that learn in context: labelled examples to read, and queries to answer."""

from typing import NamedTuple

from jaxtyping import Bool, Float, Shaped

from jaxdl.types import Array


class Context(NamedTuple):
    """One task for a net that reads: tokens of examples and of queries.

    A token of an example is its features, its label, and a 1. In the token of a query, zeros stand
    for the label and for the 1. A net answers each query apart from the others. An example of
    weight 0 counts for nothing, whatever its token is.
    """

    examples: Float[Array, "n token"]
    weight: Shaped[Array, " n"]
    queries: Float[Array, "m token"]

    @property
    def counts(self) -> Bool[Array, " n"]:
        """Which examples count."""
        return self.weight > 0
