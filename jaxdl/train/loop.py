"""The training loop: a step, repeated in compiled chunks.

The loop is a generator, so logging, evaluation and checkpoints are ordinary code in its body:

    state = init_state(params, tx)
    for i, state, metrics in loop(make_step(grad, tx), stream, keys, state, steps=1000):
        ...

Step i is a pure function of (key, i, state). So a run that was stopped and resumed equals a run
that never stopped, bit for bit, and no iterator has a state to save.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl import parallel
from jaxdl.errors import InputError
from jaxdl.grads import leading_axis
from jaxdl.train.feed import Feed, HostStream
from jaxdl.train.memory import refuse_program
from jaxdl.train.streams import step_keys
from jaxdl.types import (
    Array,
    Key,
    Metrics,
    PyTree,
    Shard,
    StepFn,
    Stream,
)
from jaxdl.xla import size_in_bytes

MOST_STEPS = 10_000
"""The most steps per dispatch, because their metrics take memory in the compiled program."""

MOST_AHEAD, AHEAD_BYTES = 64, 2**20
"""The most batches that are drawn at once, and the most bytes."""


def loop(
    step: StepFn,
    stream: Stream | HostStream,
    keys: Key,
    state: PyTree,
    *,
    steps: int,
    every: int = 1000,
    seconds: float = 2.0,
    devices: int = 1,
    on_compile: Callable[[float], None] | None = None,
) -> Iterator[tuple[int, Any, dict[str, np.ndarray]]]:
    """Runs `step` from `state.step` to `steps`, many steps per dispatch, for all seeds at once.

    >>> import jaxdl, jax.numpy as jnp, optax
    >>> tx, keys = optax.sgd(0.5), jaxdl.run_keys(seed=0, seeds=2)
    >>> grad = lambda key, step, params, batch: (params - batch.mean(), {"at": params})
    >>> step = jaxdl.make_step(grad, tx)
    >>> stream = jaxdl.task_stream(lambda key: jnp.float32(8), tasks=3)  # each target is 8
    >>> state, seen = jaxdl.init_states(lambda key: jnp.float32(0), keys, tx), []
    >>> for i, state, metrics in jaxdl.loop(step, stream, keys, state, steps=4):
    ...     seen += metrics["at"][0].tolist()  # first seed; a chunk has any number of steps
    >>> seen, i, int(state.step), state.params.tolist()  # each step goes half the way to 8
    ([0.0, 4.0, 6.0, 7.0], 4, 4, [7.5, 7.5])

    Args:
        stream: a `jax.tree_util.Partial`, so that its data sets are arguments of the program; or a
            `HostStream`, for data that do not fit on the device.
        keys: one run key per seed `[seeds]`. A seed computes the same alone as among others, up to
            the rounding of batched kernels.
        state: a NamedTuple whose leaves have a leading axis `[seeds]`, except the scalar `step`.
        every: a chunk never crosses a multiple of `every`, and holds at most `every` steps.
        seconds: how long a chunk should last; its number of steps adapts. Chunk borders do not
            change the result.
        devices: how many devices share the tasks of a step.
        on_compile: called before the first step, with the seconds that compilation took.

    Yields:
        `(i, state, metrics)` after each chunk: steps done, the state, and the metrics of every step
        of the chunk, `[seeds, steps of the chunk]`. The next chunk overwrites the state's buffers,
        so use the state before the next iteration, or copy it by `copy_state`.

    Raises:
        InputError: if the metrics of the step are not arrays by name, or the program does not fit
            into memory.
        Any error of the `fetch` of a `HostStream`, unchanged.
    """
    # A copy, because each chunk donates its input buffers, and the caller keeps the first state.
    state = copy_state(state)
    done = int(state.step)
    if done >= steps:
        return

    with contextlib.ExitStack() as stack:
        most, most_ahead, feed = min(every, MOST_STEPS), MOST_AHEAD, None
        if isinstance(stream, HostStream):
            feed = Feed(stream, done, steps)
            stack.callback(feed.close)  # also if the caller leaves the loop early
            most, most_ahead, stream = min(every, feed.ahead), 1, feed.stream(done)

        def run(shard: Shard, state: PyTree, stream: Stream, keys: Key, count: Array) -> PyTree:
            return _steps_of_all_seeds(
                step, stream, shard, keys, state, count, most=most, most_ahead=most_ahead
            )

        began = time.perf_counter()
        given = (state, stream, keys, jnp.int32(1))
        chunk = parallel.compile_on(run, devices, given, donate=0, check=refuse_program)
        if on_compile is not None:
            on_compile(time.perf_counter() - began)

        count = 1
        while done < steps:
            count = min(count, most, every - done % every, steps - done)
            began = time.perf_counter()
            if feed is not None:
                stream, count = feed.stream(done), min(count, feed.left(done))
            # `filled`: [seeds, most], of which the first `count` columns are this chunk's metrics.
            state, filled = chunk(state, stream, keys, jnp.int32(count))
            metrics = {name: np.asarray(v)[:, :count] for name, v in parallel.local(filled).items()}
            per_step = (time.perf_counter() - began) / count
            done += count
            yield done, state, metrics
            # At most fourfold growth, because the first steps after a start are not yet typical.
            count = parallel.agree(max(1, min(4 * count, int(seconds / per_step))))


def per_seed(tree: PyTree) -> list[Any]:
    """Splits a tree whose leaves have a leading axis `[seeds]` into one tree per seed.

    >>> import jaxdl, jax.numpy as jnp
    >>> params = {"kernel": jnp.zeros((3, 4, 2)), "bias": jnp.zeros((3, 2))}  # of 3 seeds
    >>> [one["kernel"].shape for one in jaxdl.per_seed(params)]
    [(4, 2), (4, 2), (4, 2)]
    """
    seeds = leading_axis(tree)
    return [jax.tree.map(itemgetter(seed), tree) for seed in range(seeds)]


def copy_state(state: PyTree) -> PyTree:
    """A copy of the state on the device, which later steps do not overwrite.

    >>> import jax.numpy as jnp, jaxdl
    >>> params = {"w": jnp.ones(2)}
    >>> jaxdl.copy_state(params)["w"] is params["w"]
    False
    """
    return jax.tree.map(jnp.copy, state)


def _steps_of_all_seeds(
    step: StepFn,
    stream: Stream,
    shard: Shard,
    keys: Key,
    state: PyTree,
    count: Array,
    *,
    most: int,
    most_ahead: int,
) -> tuple[Any, Metrics]:
    """`count` (traced, at most `most`) steps of every seed, and their metrics `[seeds, most]`.

    Small batches are drawn in blocks of many steps, because drawing a few hundred random bytes
    costs as much as drawing a megabyte. Blocks begin at multiples of their size, wherever a chunk
    begins. So a resumed run draws the same batches.

    The step counter stays a scalar. A counter `[seeds]` would turn each `lax.cond` on it into a
    select that runs both branches.
    """
    first = state.step

    # Below: `rest` is the state without `step`. Inside one_seed, nothing has the axis [seeds].
    def one_seed(seed: PyTree) -> PyTree:
        key, rest = seed

        def one_step(i: Array, rest: PyTree, batch: PyTree) -> PyTree:
            _, step_key = step_keys(key, i)
            state, metrics = step(step_key, rest._replace(step=i), batch)
            return state._replace(step=None), metrics

        # Batches of the steps `block * size` to `block * size + size - 1`: [size, ...].
        def drawn(block: Array) -> Any:
            return jax.vmap(lambda i: stream(key, i, shard))(block * size + jnp.arange(size))

        def one_block(block: Array, carry: PyTree) -> PyTree:
            batches, start = drawn(block), block * size

            # Step i of the block. `rows` are the metrics so far: [most, ...], row 0 is `first`.
            def body(i: Array, carry: PyTree) -> PyTree:
                rest, rows = carry
                batch = jax.tree.map(lambda leaf: leaf[i - start], batches)
                rest, metrics = one_step(i, rest, batch)
                write = lambda row, value: row.at[i - first].set(value)  # noqa: E731
                return rest, jax.tree.map(write, rows, metrics)

            # A chunk may begin or end inside a block: run only the steps that belong to both.
            until = jnp.minimum(first + count, start + size)
            return lax.fori_loop(jnp.maximum(first, start), until, body, carry)

        batch = jax.eval_shape(lambda: stream(key, first, shard))
        size = max(1, min(most_ahead, AHEAD_BYTES // max(1, size_in_bytes(batch))))
        shapes = jax.eval_shape(one_step, first, rest, batch)[1]
        _check_metrics(shapes)
        rows = jax.tree.map(lambda leaf: jnp.zeros((most, *leaf.shape), leaf.dtype), shapes)
        # The loop bounds are traced, so one program serves chunks of any length.
        blocks = first // size, (first + count - 1) // size + 1
        return lax.fori_loop(*blocks, one_block, (rest, rows))

    seeds = keys, state._replace(step=None)
    # A CPU has no idle hardware for a second seed, and one seed at a time stays in its cache.
    if jax.default_backend() == "cpu":
        rest, metrics = lax.map(one_seed, seeds)
    else:
        rest, metrics = jax.vmap(one_seed)(seeds)
    return rest._replace(step=first + count), metrics


def _check_metrics(metrics: Any) -> None:
    """Refuses metrics that are not arrays by name.

    Raises:
        InputError: naming the first that is not.
    """
    if not isinstance(metrics, dict):
        raise InputError(
            f"the metrics of a step are a {type(metrics).__name__}: give a dict of arrays by name"
        )
    for name, value in metrics.items():
        if not hasattr(value, "shape"):
            raise InputError(
                f"the metric {name!r} is a {type(value).__name__} and not an array: give each"
                ' number a name of its own, say {"loss/support": ..., "loss/query": ...}'
            )
