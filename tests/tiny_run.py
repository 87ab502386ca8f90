"""A tiny training, compiled once for many tests, for tests of what surrounds a training."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from jaxdl import parallel
from jaxdl.runs.run import Run, RunFlags, open_run
from jaxdl.train.loop import loop
from jaxdl.train.steps import init_states, make_step


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 6
    lr: float = 0.1
    seeds: int = 2
    nan_from: int = 1_000_000
    run: RunFlags = dataclasses.field(default_factory=RunFlags)


def config(folder: Path, **changes: Any) -> Config:
    """Fields of `Config` and of its `RunFlags` alike."""
    names = {field.name for field in dataclasses.fields(Config)}
    own = {name: value for name, value in changes.items() if name in names}
    flags = {name: value for name, value in changes.items() if name not in names}
    flags = {"runs_dir": folder, "name": "a", "devices": 1, **flags}
    return Config(**own, run=RunFlags(**flags))


def grad(key: Any, step: Any, params: Any, batch: Any, *, nan_from: int) -> Any:
    """A noisy quadratic whose loss is NaN from a step on."""
    error = params["w"] - batch + 0.1 * jax.random.normal(key, (3,))
    loss = jnp.where(step >= nan_from, jnp.nan, jnp.sum(error**2))
    return {"w": error}, {"loss": loss, "accuracy": jnp.exp(-loss)}


def draw(key: Any, step: Any, shard: Any) -> Any:
    del shard
    return jax.random.normal(jax.random.fold_in(key, step), (3,))


def start(settings: Config) -> tuple[Any, Any]:
    return _start(settings.seeds, settings.lr)


@functools.lru_cache
def _start(seeds: int, lr: float) -> tuple[Any, Any]:
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    tx = optax.adam(lr)
    return keys, init_states(lambda key: {"w": jax.random.normal(key, (3,))}, keys, tx)


def no_page() -> Any:
    """Runs without report.html, which would take longer to draw than they take."""
    return mock.patch("jaxdl.runs.run.write_page")


PROGRAMS: dict[Any, Any] = {}


def compile_once(settings: Config) -> Any:
    """`compile_on` that compiles once what depends on these fields alone; `steps` is none of them.

    The program takes the state and the number of steps as arguments, in a run as in a resumed one.
    """
    key = settings.seeds, settings.lr, settings.nan_from, settings.run.log_every

    def compile_on(run: Any, devices: int, args: Any, **options: Any) -> Any:
        if (key, devices) not in PROGRAMS:
            PROGRAMS[key, devices] = parallel.compile_on(run, devices, args, **options)
        return PROGRAMS[key, devices]

    return compile_on


def train(
    settings: Config,
    *,
    at_log_point: Callable[[Run, int, Any], None] = lambda run, i, state: None,
    signal_after: tuple[int, int] | None = None,
) -> Any:
    """Trains, or resumes, and returns the last state; `signal_after`: a step and a signal."""
    with no_page(), open_run("tiny", settings) as run:
        result = run.result()
        keys, state = start(settings)
        state = run.restore(state)
        step = make_step(partial(grad, nan_from=settings.nan_from), optax.adam(settings.lr))
        chunks = loop(
            step,
            Partial(draw),
            keys,
            state,
            steps=settings.steps,
            every=settings.run.log_every,
            seconds=0.0,  # chunks of one step
            on_compile=run.compiled,
        )
        if signal_after is not None:
            chunks = signalling(chunks, *signal_after)
        with mock.patch("jaxdl.train.loop.parallel", mock.Mock(wraps=parallel)) as patched:
            patched.compile_on = compile_once(settings)
            for i, state in run.watch(chunks):
                at_log_point(run, i, state)
        state = jax.tree.map(np.asarray, state)
        if result is None:
            run.finish({"last": state.params})
        return state


def score(step: int, seeds: int) -> np.ndarray:
    """What a validation of `validated` finds; it rises and falls, and equal scores occur."""
    return np.random.default_rng(100 + step).integers(0, 9, seeds).astype(np.float32)


def validated(settings: Config, *, part: str = "") -> dict[str, Any]:
    """Trains as experiments do, validated every 4 steps; what result.json holds."""
    with no_page(), open_run("tiny", settings) as whole:
        if (found := whole.result()) is not None:
            return found
        run = whole.part(part) if part else whole
        keys, state = start(settings)
        with mock.patch("jaxdl.train.loop.parallel", mock.Mock(wraps=parallel)) as patched:
            patched.compile_on = compile_once(settings)
            last = run.train(
                make_step(partial(grad, nan_from=settings.nan_from), optax.adam(settings.lr)),
                Partial(draw),
                keys,
                run.restore(state),
                validate=lambda state: {"score": score(int(state.step), settings.seeds)},
                eval_every=4,
                best="score",
            )
        params, steps = run.best(last.params)
        return whole.finish({"steps": steps, "best": params, "last": last})


def signalling(chunks: Any, step: int, number: int) -> Iterator[Any]:
    """The chunks; before the one that ends at `step` is handed on, the process gets a signal."""
    for i, state, metrics in chunks:
        if i == step:
            os.kill(os.getpid(), number)
        yield i, state, metrics
