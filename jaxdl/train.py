"""Training: `make_step` joins a `GradFn` and Optax, `loop` repeats it in compiled chunks.

The loop is a generator, so logging, evaluation and checkpoints are ordinary code in its body:

    state = init_state(params, tx)
    for i, state, metrics in loop(make_step(grad, tx), stream, keys, state, steps=1000):
        ...

What step i does is a pure function of (key, i, state): a run that was stopped and resumed equals
one that never stopped, bit for bit, and no iterator has a state to save.
"""

import time
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.tree_util import Partial

from jaxdl import parallel
from jaxdl.grads import leading_axis
from jaxdl.parallel import Share
from jaxdl.types import GradFn, Key, Metrics, Params, Sampler, StepFn, TrainState

Stream = Callable[[Key, Any, Share], Any]
"""`(key, step, share) -> batch`: this device's share of the batch of one step."""

MOST_STEPS = 10_000
"""Steps that one dispatch runs at most: their metrics take memory in the compiled program."""


def task_stream(sample: Sampler, tasks: int) -> Stream:
    """`tasks` draws of `sample` a step, stacked along a leading axis and shared among devices."""

    def draw(sample: Sampler, key: Key, step: Any, share: Share) -> Any:
        del step  # tasks are drawn afresh at every step, from its key
        return jax.vmap(sample)(share.of(jax.random.split(key, tasks)))

    # A Partial carries the sampler's data set into the compiled program as an argument.
    return Partial(draw, sample if isinstance(sample, Partial) else Partial(sample))


def init_state(params: Params, tx: optax.GradientTransformation) -> TrainState:
    """The state before step 0."""
    return TrainState(jnp.int32(0), params, tx.init(params))


def init_states(
    init: Callable[[Key], Params], keys: Key, tx: optax.GradientTransformation
) -> TrainState:
    """One state a seed, stacked along a leading axis `[seeds]`; they share the step counter."""
    states = lax.map(lambda key: init_state(init(key), tx), keys)
    return states._replace(step=jnp.int32(0))


def make_step(grad: GradFn, tx: optax.GradientTransformation) -> StepFn:
    """A training step: the gradient of a batch, and Optax's update."""

    def step(key: Key, state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        grads, metrics = grad(key, state.step, state.params, batch)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state._replace(step=state.step + 1, params=params, opt_state=opt_state), metrics

    return step


def loop(
    step: StepFn,
    stream: Stream,
    keys: Key,
    state: Any,
    *,
    steps: int,
    every: int = 1000,
    seconds: float = 2.0,
    devices: int = 1,
    on_compile: Callable[[float], None] | None = None,
) -> Iterator[tuple[int, Any, dict[str, np.ndarray]]]:
    """Runs `step` from `state.step` to `steps`, many steps a dispatch, for all seeds at once.

    Args:
        stream: a `jax.tree_util.Partial`, so that its data sets are arguments of the program.
        keys: one run key a seed `[seeds]`. Seed s of many computes what it computes alone, up to
            the rounding of batched kernels.
        state: a NamedTuple whose leaves have a leading axis `[seeds]`, except the scalar `step`.
        every: a chunk never crosses a multiple of `every`, and holds at most that many steps.
        seconds: how long a chunk should last; the number of steps adapts to it. Chunk borders do
            not change the result.
        devices: how many devices share the tasks of a step.
        on_compile: told how many seconds compilation took, before the first step.

    Yields:
        `(i, state, metrics)` after each chunk: steps done, the state, and the metrics of every step
        of the chunk, `[seeds, steps of the chunk]`. The state's buffers are reused: it is valid
        until the generator is resumed; `keep` copies it.
    """
    # A copy: the caller's own buffers must survive the donation.
    state = keep(state)
    done = int(state.step)
    if done >= steps:
        return

    most = min(every, MOST_STEPS)

    def run(share: Share, state: Any, stream: Stream, keys: Key, count: Any) -> Any:
        return _steps_of_all_seeds(step, stream, share, keys, state, count, most=most)

    began = time.perf_counter()
    chunk = parallel.compile_on(run, devices, (state, stream, keys, jnp.int32(1)), donate=0)
    if on_compile is not None:
        on_compile(time.perf_counter() - began)

    count = 1
    while done < steps:
        count = min(count, most, every - done % every, steps - done)
        began = time.perf_counter()
        state, filled = chunk(state, stream, keys, jnp.int32(count))
        metrics = {name: np.asarray(v)[:, :count] for name, v in parallel.local(filled).items()}
        per_step = (time.perf_counter() - began) / count
        done += count
        yield done, state, metrics
        # At most fourfold growth: the first steps after a start are not yet typical.
        count = parallel.agree(max(1, min(4 * count, int(seconds / per_step))))


def per_seed(tree: Any) -> list[Any]:
    """The parts of a tree whose leaves have a leading axis `[seeds]`, one a seed."""
    seeds = leading_axis(tree)
    return [jax.tree.map(itemgetter(seed), tree) for seed in range(seeds)]


def keep(state: Any) -> Any:
    """A copy of the state on the device, which later steps will not overwrite."""
    return jax.tree.map(jnp.copy, state)


def _steps_of_all_seeds(
    step: StepFn, stream: Stream, share: Share, keys: Key, state: Any, count: Any, *, most: int
) -> tuple[Any, Metrics]:
    """`count` (traced, at most `most`) steps of every seed, and their metrics `[seeds, most]`.

    The step counter stays a scalar: batched, it would turn each `lax.cond` on it into a select that
    runs both branches.
    """
    first = state.step

    def one_seed(seed: Any) -> Any:
        key, rest = seed

        def one_step(i: Any, rest: Any) -> Any:
            batch_key, step_key = jax.random.split(jax.random.fold_in(key, first + i))
            batch = stream(batch_key, first + i, share)
            state, metrics = step(step_key, rest._replace(step=first + i), batch)
            return state._replace(step=None), metrics

        def body(i: Any, carry: Any) -> Any:
            rest, metrics = one_step(i, carry[0])
            return rest, jax.tree.map(lambda row, value: row.at[i].set(value), carry[1], metrics)

        shapes = jax.eval_shape(one_step, 0, rest)[1]
        rows = jax.tree.map(lambda leaf: jnp.zeros((most, *leaf.shape), leaf.dtype), shapes)
        # A loop bound that is an argument: one program serves chunks of any length.
        return lax.fori_loop(0, count, body, (rest, rows))

    seeds = keys, state._replace(step=None)
    # A CPU has no idle hardware for a second seed, and one seed at a time stays in its cache.
    if jax.default_backend() == "cpu":
        rest, metrics = lax.map(one_seed, seeds)
    else:
        rest, metrics = jax.vmap(one_seed)(seeds)
    return rest._replace(step=first + count), metrics
