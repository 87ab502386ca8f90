"""A whole training in one call, for notebooks and for first experiments.

It stores nothing on disk. Use `open_run` for a training that must survive a restart. Both use the
loop `jaxdl.loop`.
"""

from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdl.errors import InputError, RunError
from jaxdl.grads import over_tasks
from jaxdl.meta.tried import check_learner
from jaxdl.optim.check import check_tx
from jaxdl.parallel import axis_name, count_devices
from jaxdl.recipes.arguments import check_key, check_sampler, drawn
from jaxdl.train.divergence import can_go_on, first_bad_loss, suspect
from jaxdl.train.loop import copy_state, loop, per_seed
from jaxdl.train.steps import init_states, make_step
from jaxdl.train.streams import task_stream
from jaxdl.types import Array, Key, MetaLearner, Params, Sampler, TrainState, TransferLearner

CACHE = 6e6
"""On a CPU, tasks run faster one by one if the gradient of one task moves more bytes than this.

The bytes are counted before XLA fuses operations. The limit was measured on twelve learners that
move 0.6 to 1,000 MB. It is wrong for one of them, a ProtoNet on a wide dense net, which is 1.7
times as slow with it."""


class Fitted(NamedTuple):
    """The result of `fit`.

    - `params`: those of the last step, or the best on validation. Leaves are `[seeds, ...]` if
      `seeds` was given.
    - `history`: NumPy arrays by name, one row per log point. `step` is `[points]`. Each metric of
      the learner is its mean since the last row. Metrics and `validation` are `[points, seeds]`,
      or `[points]` without `seeds`.

    >>> import jaxdl
    >>> params, history = jaxdl.Fitted({"w": 0.0}, {"step": [100], "loss": [0.5]})
    """

    params: Params
    history: dict[str, np.ndarray]


def fit(
    learner: MetaLearner,
    sample: Sampler,
    *,
    tx: optax.GradientTransformation,
    steps: int,
    tasks: int,
    key: Key,
    seeds: int | None = None,
    validate: Callable[[Params], Array | float] | None = None,
    every: int | None = None,
    chunk: int | None = None,
    devices: int = 1,
    report: Callable[[str], None] | None = None,
) -> Fitted:
    """Trains a learner for `steps` steps of `tasks` episodes each.

    Args:
        sample: draws an episode inside jit. If it holds data, it is a `jax.tree_util.Partial`.
        key: the source of all random numbers. Of several seeds, seed s has the key
            `jax.random.split(key, seeds)[s]`.
        seeds: number of seeds to train, in one compiled program. None trains one, without an axis.
        validate: `params -> score`, where higher is better. It is called for each seed at each log
            point. `fit` returns the parameters with the highest score (the first of equal ones).
            NaN is the lowest score. It should call a function that compiles once, such as that of
            `jaxdl.evaluate`.
        every: steps between log points. By default a twentieth of all. The last step is one, too.
        chunk: tasks that are differentiated together, a divisor of the tasks per device. By default
            all. On a CPU it is 1 if the gradient of one task moves more bytes than a cache holds.
        devices: number of devices that share the tasks.
        report: a function such as `print`. It gets one line per log point.

    Raises:
        InputError: if a number is out of range or does not divide the tasks, if an argument is of
            another kind, or if the learner does not train on episodes or has fewer outputs than
            they have classes.
        RunError: if the loss or the parameters are not finite.

    >>> import jax, optax, jaxdl
    >>> learner = jaxdl.maml(
    ...     jaxdl.mlp((40, 40, 1)), jaxdl.mean_squared_error, tx=optax.sgd(0.01), steps=1
    ... )
    >>> fitted = jaxdl.fit(
    ...     learner, jaxdl.sinusoid(shots=10, queries=10),
    ...     tx=optax.adam(1e-3), steps=40, tasks=4, key=jax.random.key(0),
    ... )
    >>> int(fitted.history["step"][-1]), fitted.history["loss"].shape
    (40, (20,))
    """
    for name, value in {"steps": steps, "tasks": tasks, "seeds": seeds, "every": every}.items():
        if value is not None and (not isinstance(value, Integral) or value < 1):
            raise InputError(f"`{name}={value!r}`: choose a whole number of at least 1")
    if isinstance(learner, TransferLearner):
        raise InputError(
            "fit trains on episodes, and a TransferLearner on labelled examples. Train it by"
            " jaxdl.loop with its own grad"
        )
    check_tx(tx)
    check_key(key)
    check_sampler(sample)
    devices = count_devices(devices)
    every = every or max(1, steps // 20)
    keys = jax.random.split(key, seeds) if seeds else key[None]
    episode = drawn(sample, keys[0])
    check_learner(learner, episode)
    inputs = episode.support.x
    state = init_states(lambda key: learner.init(key, inputs), keys, tx)
    if chunk is None and jax.default_backend() == "cpu":
        start = per_seed(state.params)[0]
        work = jax.jit(learner.grad).lower(keys[0], state.step, start, episode).cost_analysis()
        chunk = 1 if work is not None and work["bytes accessed"] > CACHE else None
    grad = over_tasks(learner.grad, chunk=chunk, axis_name=axis_name(devices))
    stream = task_stream(sample, tasks)

    best, highest = None, np.full(len(keys), -np.inf)
    rows: list[dict[str, np.ndarray]] = []
    window: list[dict[str, np.ndarray]] = []
    step = make_step(grad, tx)
    chunks = loop(step, stream, keys, state, steps=steps, every=every, devices=devices)
    done = 0
    for i, state, metrics in chunks:
        _refuse_divergence(done, state, metrics)
        done = i
        window.append(metrics)
        if i % every and i != steps:
            continue
        row = {name: _means(window, name) for name in metrics} | {"step": np.asarray(i)}
        window = []
        if validate is not None:
            scores = np.array([_number(validate(each)) for each in per_seed(state.params)])
            row["validation"] = scores
            better = np.nan_to_num(scores, nan=-np.inf) > highest
            highest = np.where(better, scores, highest)
            best = copy_state(state.params) if best is None else _where(better, state.params, best)
        rows.append(row)
        if report is not None:
            report(_line(row))

    params = copy_state(state.params) if best is None else best
    history = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    if seeds is None:
        alone = {name: v if v.ndim == 1 else v[:, 0] for name, v in history.items()}
        return Fitted(per_seed(params)[0], alone)
    return Fitted(params, history)


def _means(window: list[dict[str, np.ndarray]], name: str) -> np.ndarray:
    """The means `[seeds]` of a metric, from several chunks `[seeds, steps]`."""
    return np.concatenate([chunk[name] for chunk in window], axis=1).mean(axis=1)


def _number(score: Any) -> float:
    try:
        return float(score)
    except (TypeError, ValueError) as error:
        shape = f" of shape {list(np.shape(score))}" if hasattr(score, "shape") else ""
        raise InputError(
            f"`validate` returned {type(score).__name__}{shape}. Let it return one number, higher"
            ' for better: test(key, params)["accuracy"].mean(), say'
        ) from error


def _where(better: np.ndarray, new: Params, old: Params) -> Params:
    def chosen(new: Array, old: Array) -> Array:
        return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(chosen, new, old)


def _refuse_divergence(done: int, state: TrainState, metrics: dict[str, np.ndarray]) -> None:
    """Raises for a chunk of steps after step `done` whose loss, or last state, is not finite."""
    step, what = int(state.step), "state"
    if (found := first_bad_loss(metrics)) is not None:
        step, what = done + found[0] + 1, found[1]
    elif can_go_on(state):
        return
    raise RunError(
        f"training diverged: the {what} is not finite at step {step:,}. Try a lower learning rate"
        f" or clipping. {suspect(metrics, done)}".rstrip(". ")
    )


def _line(row: dict[str, np.ndarray]) -> str:
    values = [f"{name} {value.mean():.4f}" for name, value in row.items() if name != "step"]
    return f"step {int(row['step']):,}  " + ", ".join(values)
