"""The tests. The type checker in `shapes` must be there wherever pytest imports jaxdl."""

from tests import shapes as shapes
