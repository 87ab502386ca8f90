"""The best parameters on validation, for each seed, however often a run stops and resumes.

    best/8/     the best of the validations up to step 8; it exists if step 8 changed the best

Readers take the newest folder. Older folders stay because a choice may have to be taken back:

- A run that resumes from a checkpoint repeats the validations after it. They must not count yet.
- A run validates at its last step. If it is continued, that step may be no validation step of the
  longer run, and then it must not count.

So the newest two folders stay, and the newest folder up to each checkpoint.
"""

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdl.errors import InputError
from jaxdl.files import leaves
from jaxdl.files.atomic import writing
from jaxdl.runs.checkpoint import Checkpoints
from jaxdl.types import Params

ERRORS = {
    *("loss", "losses", "error", "errors", "err", "nll", "negative", "mse", "rmse", "mae"),
    *("entropy", "perplexity", "regret", "wer", "cer", "kl", "brier", "distance"),
}
"""Words in the names of metrics whose lowest value is the best."""


def lowest_is_best(metric: str) -> bool:
    """Whether a metric is a loss or an error: one of `ERRORS` is a word of its name.

    >>> [lowest_is_best(name) for name in ("valLoss", "squared_error", "MSE", "log_likelihood")]
    [True, True, True, False]
    """
    words = re.findall("[A-Z]?[a-z]+|[A-Z]+", metric)
    return not ERRORS.isdisjoint(word.lower() for word in words)


def refuse_statistics(state: Any, best: str) -> None:
    """Refuses a state of which the parameters are only a part.

    Raises:
        InputError: if it has running statistics, which `Best` would not keep.
    """
    if jax.tree.leaves(getattr(state, "stats", ())):
        raise InputError(
            f"`best={best!r}` keeps parameters alone, without the running statistics that this net"
            " has beside them. Leave `best=` out, or take a net that has none"
        )


def validation(found: Any, best: str) -> dict[str, np.ndarray]:
    """What a validation found, as arrays by the names of the metrics.

    >>> validation({"loss": [0.5, 0.25]}, "loss")["loss"].tolist()
    [0.5, 0.25]

    Raises:
        InputError: if it is no dict, or has no metric `best`.
    """
    if not isinstance(found, Mapping):
        raise InputError(
            f"`validate` returned {type(found).__name__}. Let it return a dict of metrics, such as"
            ' {"loss": losses}, each with a number per seed'
        )
    if best and best not in found:
        raise InputError(
            f"`best={best!r}` is none of the metrics that `validate` returned:"
            f" {', '.join(map(repr, found)) or 'there are none'}. Choose one of them"
        )
    return {name: np.asarray(values) for name, values in found.items()}


_MANY = 1_000_000  # Orbax deletes none: this file alone knows which may go


class Best:
    """The best parameters in `directory`, written by the first process alone."""

    def __init__(self, directory: Path) -> None:
        self._stored = Checkpoints(directory, keep=_MANY)

    def keep(
        self, step: int, scores: np.ndarray, params: Params, checkpoints: Sequence[int]
    ) -> None:
        """Keeps, for each seed, the parameters with the highest score so far; NaN is the lowest.

        Args:
            step: the step of `scores` `[seeds]` and `params` `[seeds, ...]`. A step that was
                evaluated before is ignored.
            checkpoints: the steps from which the run may go on.

        Raises:
            RunError: if they could not be written.
        """
        scores = np.where(np.isnan(scores), -np.inf, scores).astype(np.float32)
        now = {"score": scores, "step": np.full(scores.shape, step, np.int32), "params": params}
        found = self._stored.steps()
        if found:
            if found[-1] >= step:
                return
            best = self._stored.restore(now)
            # `forget` renames a folder to an older step. A choice later than the name is void.
            better = (scores > np.asarray(best["score"])) | (np.asarray(best["step"]) > found[-1])
            if not better.any():
                return
            now = jax.tree.map(
                lambda new, old: np.where(better.reshape(-1, *[1] * (np.ndim(new) - 1)), new, old),
                now,
                best,
            )
        self._stored.save(step, now)
        self._stored.wait()
        # `step` may be a last step, which does not count in a longer run. So one older best stays.
        wanted = {max((n for n in found if n <= at), default=step) for at in [*checkpoints, step]}
        for n in found:
            if n not in wanted:
                self._remove(n)

    def forget(self, counts: Callable[[int], bool]) -> None:
        """Takes back the choices of steps that do not count, and restores the best before them.

        Earlier versions of this file kept the newest folder alone. With such a folder, a seed whose
        choice counts keeps its choice. The other seeds wait for the next validation.

        Raises:
            RunError: if the files are damaged or cannot be changed.
        """
        steps = self._stored.steps()
        void = [n for n in steps if not counts(n)]
        if not void:
            return
        if void == steps:
            stored = {
                leaves.name(leaf.path): array for leaf, array in self._stored.arrays(void[-1])
            }
            choices = stored["step"].tolist()
            if kept := [n for n in choices if n < void[-1] and counts(n)]:
                self._move(void.pop(), str(max(kept)))
        for n in reversed(void):
            self._remove(n)
        self._stored.close()  # its list of the files is stale; reopening makes a new list

    def close(self) -> None:
        """Closes the directory."""
        self._stored.close()

    def _remove(self, step: int) -> None:
        """Removes a folder; a kill leaves the folder whole, or under a name that nobody reads."""
        name = f"{step}.orbax-checkpoint-tmp-gone"
        gone = self._stored.directory / name
        shutil.rmtree(gone, ignore_errors=True)  # left by a process that was killed
        self._move(step, name)
        shutil.rmtree(gone, ignore_errors=True)

    def _move(self, step: int, name: str) -> None:
        path = self._stored.directory / str(step)
        with writing(path):
            path.rename(path.with_name(name))
