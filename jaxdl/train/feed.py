"""Batches from the host for a compiled loop; a thread fetches them while the device computes."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial, keystr

from jaxdl.data.inputs import check_fits
from jaxdl.data.labels import check_labels
from jaxdl.errors import InputError
from jaxdl.types import WHOLE, Array, Batch, Key, PyTree, Shard


class HostStream(NamedTuple):
    """Batches that come from the host, for data larger than the device's memory.

    `fetch(step)` returns the batch of a step as NumPy arrays. It is a pure function of the step, as
    is `stream(...).__getitem__` of `jaxdl.data.prepare.tfds.stream`. The host sends blocks of
    `ahead` batches, at least 1, and fetches the next block while the device works on the current
    one. All seeds see the same batches.

    `classes` is the number of the net's outputs. With it, integers in the `y` of a `Batch` are
    class labels and become int32. A label outside `[0, classes)` raises `InputError`, unless its
    example has weight 0. With None, integers stay as they are: targets of a regression, say. One
    that does not fit into 32 bits raises `InputError`.

    >>> import jaxdl, jax.numpy as jnp, numpy as np, optax
    >>> table = np.arange(8, dtype=np.float32).reshape(4, 2)  # np.load(..., mmap_mode="r"), say
    >>> stream = jaxdl.HostStream(fetch=lambda step: table[step % 4], ahead=2)
    >>> tx, keys = optax.sgd(1.0), jaxdl.run_keys(seed=0, seeds=1)
    >>> step = jaxdl.make_step(lambda key, step, params, row: (-row, {"sum": row.sum()}), tx)
    >>> state = jaxdl.init_states(lambda key: jnp.zeros(2), keys, tx)
    >>> for i, state, metrics in jaxdl.loop(step, stream, keys, state, steps=4):
    ...     pass
    >>> state.params.tolist()  # the sum of all rows
    [[12.0, 16.0]]
    """

    fetch: Callable[[int], Any]
    ahead: int = 16
    classes: int | None = None


class Feed:
    """A `HostStream` as streams on the device, one per block of `ahead` batches.

    `stream` raises the errors of `fetch` unchanged, and `InputError` for a label out of range.
    `close` ends the thread.

    Raises:
        InputError: if `ahead` is below 1.
    """

    def __init__(self, source: HostStream, first: int, steps: int) -> None:
        if source.ahead < 1:
            raise InputError(f"HostStream with ahead={source.ahead}: choose at least 1")
        self.ahead = source.ahead
        self._source = source
        self._steps = steps
        self._first = first - self.ahead  # before the first block
        self._stream: Any
        self._closed = False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="jaxdl-feed")
        self._next: Future[Any] = self._pool.submit(self._fetch, first)

    def stream(self, step: int) -> Any:
        """The `train.Stream` that holds the batch of this step; ask for steps in order."""
        if step >= self._first + self.ahead:
            batches = self._next.result()
            self._first = step
            self._stream = Partial(_from_block, batches, jnp.int32(step))
            if step + self.ahead < self._steps:
                self._next = self._pool.submit(self._fetch, step + self.ahead)
        return self._stream

    def left(self, step: int) -> int:
        """How many steps the current block still serves."""
        return self._first + self.ahead - step

    def close(self) -> None:
        """Waits for a fetch in progress, and ends the thread."""
        self._closed = True
        self._pool.shutdown(cancel_futures=True)

    def _fetch(self, first: int) -> Any:
        batches: list[Any] = []
        for step in range(first, min(first + self.ahead, self._steps)):
            if self._closed:
                return None
            batches.append(_checked(self._source.fetch(step), self._source.classes))
        # Padding: the last block has the shape of the others, so one program serves all.
        batches += batches[-1:] * (self.ahead - len(batches))
        return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *batches)


def _checked(batch: PyTree, classes: int | None) -> PyTree:
    is_labelled = classes is not None and isinstance(batch, Batch)
    looked_at = batch._replace(y=()) if is_labelled else batch  # labels are looked at below
    for path, leaf in jax.tree.leaves_with_path(looked_at):
        check_fits(np.asarray(leaf), f"the batch{keystr(path)}")
    if not is_labelled:
        return batch

    def checked(leaf: Any) -> Any:
        leaf = np.asarray(leaf)
        if not np.issubdtype(leaf.dtype, np.integer):
            return leaf
        if batch.weight is not None:  # an example of weight 0 may have any number as label
            void = np.asarray(batch.weight) == 0
            leaf = np.where(void.reshape(void.shape + (1,) * (leaf.ndim - void.ndim)), 0, leaf)
        return check_labels(leaf, classes=classes, several=True)

    return batch._replace(y=jax.tree.map(checked, batch.y))


def _from_block(
    batches: PyTree, first: Array, key: Key, step: Array, shard: Shard = WHOLE
) -> PyTree:
    del key  # the host drew the batch
    return shard.of(jax.tree.map(lambda leaf: leaf[step - first], batches))
