"""The parameters that were best on validation, for each seed, however often a run is stopped.

    best/8/     what was best of the validations up to step 8; it is there if step 8 changed it

The newest is what readers want. A run that goes on from a checkpoint comes by later validations a
second time, so these must not count yet. And the last step of a run may be none at which a longer
one validates. What was best before must come back then, so the newest two stay, and the newest up
to each checkpoint.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from jaxdl.files import leaves
from jaxdl.files.atomic import writing
from jaxdl.runs.checkpoint import Checkpoints
from jaxdl.types import Params

_MANY = 1_000_000  # this file alone knows which of them may go


class Best:
    """The best parameters in `directory`, written by the first process alone."""

    def __init__(self, directory: Path) -> None:
        self._stored = Checkpoints(directory, keep=_MANY)

    def keep(
        self, step: int, scores: np.ndarray, params: Params, checkpoints: Sequence[int]
    ) -> None:
        """Keeps, for each seed, the parameters with the highest score so far; NaN is the lowest.

        Args:
            step: the step of `scores` `[seeds]` and `params` `[seeds, ...]`. What was judged at
                this step once is not judged again.
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
            # A choice later than the name is one that `forget` took back.
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
        # This may be a last step, which counts no longer if the run goes on: one more must stay.
        wanted = {max((n for n in found if n <= at), default=step) for at in [*checkpoints, step]}
        for n in found:
            if n not in wanted:
                self._remove(n)

    def forget(self, counts: Callable[[int], bool]) -> None:
        """Takes back the choices of the steps that do not count; what was best before comes back.

        Earlier versions of this file kept the newest alone. There the seeds whose choice counts
        keep it, and the others wait for the next validation.

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
        self._stored.close()  # it holds a list of the files, and makes a new one when opened again

    def close(self) -> None:
        """Lets go of the directory."""
        self._stored.close()

    def _remove(self, step: int) -> None:
        """A process that is killed here leaves it whole, or under a name that nobody reads."""
        name = f"{step}.orbax-checkpoint-tmp-gone"
        gone = self._stored.directory / name
        shutil.rmtree(gone, ignore_errors=True)  # of a process that was killed
        self._move(step, name)
        shutil.rmtree(gone, ignore_errors=True)

    def _move(self, step: int, name: str) -> None:
        path = self._stored.directory / str(step)
        with writing(path):
            path.rename(path.with_name(name))
