"""Checkpoints of any pytree of arrays: the only file that knows Orbax.

A checkpoint is written in the background under a temporary name and renamed when complete, so a
process that is killed while it saves leaves the checkpoint before intact. Only the first process of
a multi-process run writes; every process reads.
"""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdl.errors import RunError


class Checkpoints:
    """The numbered checkpoints of one directory, the newest `keep` of them.

    Closing waits for the save under way; use it as a context manager.
    """

    def __init__(self, directory: Path, *, keep: int = 2) -> None:
        self.directory = Path(directory).absolute()
        self._keep = keep
        self._opened: Any = None

    @property
    def _manager(self) -> Any:
        # Opened on first use: importing Orbax takes a second, and `--help` needs no checkpoint.
        if self._opened is None:
            import orbax.checkpoint as ocp

            process = jax.process_index()
            alone = ocp.options.MultiprocessingOptions(
                primary_host=process,
                active_processes={process},
                barrier_sync_key_prefix=f"process{process}",
            )
            self._opened = ocp.CheckpointManager(
                self.directory,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=self._keep,
                    create=False,
                    multiprocessing_options=alone,
                    enable_async_checkpointing=True,
                ),
            )
        return self._opened

    def steps(self) -> list[int]:
        """The steps that have a complete checkpoint, oldest first."""
        if not self.directory.is_dir():
            return []
        names = [path.name for path in self.directory.iterdir() if path.is_dir()]
        return sorted(int(name) for name in names if name.isdigit())

    def save(self, step: int, tree: Any) -> None:
        """Copies `tree` off the device and writes it in the background, waiting for the last save.

        Raises:
            RunError: if this save, or the one before it, could not be written.
        """
        if jax.process_index() != 0 or step in self.steps():
            return
        import orbax.checkpoint as ocp

        # A copy: the training loop will overwrite the buffers while the files are being written.
        arrays = jax.tree.map(lambda leaf: np.array(jax.device_get(leaf)), tree)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._manager.wait_until_finished()
            self._manager.save(step, args=ocp.args.StandardSave(arrays))
        except Exception as error:
            raise self._unwritable(step, error) from error

    def wait(self) -> None:
        """Returns when the last save is complete.

        Raises:
            RunError: if it could not be written.
        """
        if self._opened is None:
            return
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._unwritable(None, error) from error

    def restore(self, like: Any, step: int | None = None) -> Any:
        """The checkpoint of `step` (None: the newest), with the structure and shapes of `like`.

        Restoring into a target makes it independent of the devices that wrote it.

        Raises:
            RunError: if there is no such checkpoint, or it is damaged or of another shape.
        """
        steps = self.steps()
        if not steps or (step is not None and step not in steps):
            raise RunError(
                f"there is no checkpoint {'' if step is None else step} in {self.directory}"
            )
        step = steps[-1] if step is None else step
        target = jax.tree.map(np.asarray, like)
        try:
            import orbax.checkpoint as ocp

            restored = self._manager.restore(step, args=ocp.args.StandardRestore(target))
            for wanted, found in zip(
                jax.tree.leaves(target), jax.tree.leaves(restored), strict=True
            ):
                if wanted.shape != np.shape(found):
                    raise ValueError(f"shape {np.shape(found)} where {wanted.shape} is expected")
        except Exception as error:
            others = [other for other in steps if other < step]
            cure = (
                f"move {self.directory / str(step)} away to go on from step {others[-1]}"
                if others
                else "start anew under another --name"
            )
            raise RunError(
                f"checkpoint {self.directory / str(step)} cannot be read"
                f" ({_first_line(error)}); {cure}"
            ) from error
        return jax.tree.map(jax.numpy.asarray, restored)

    def delete_after(self, step: int) -> None:
        """Forgets checkpoints newer than `step`."""
        for later in [other for other in self.steps() if other > step]:
            shutil.rmtree(self.directory / str(later))

    def close(self) -> None:
        """Waits for the last save and lets go of the directory."""
        if self._opened is not None:
            try:
                self.wait()
            finally:
                manager, self._opened = self._opened, None
                manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _unwritable(self, step: int | None, error: Exception) -> RunError:
        what = "the last checkpoint" if step is None else f"checkpoint {step}"
        kept = self.steps()
        rest = f"checkpoint {kept[-1]} is safe" if kept else "nothing was saved before"
        return RunError(
            f"{what} could not be written to {self.directory} ({_first_line(error)}); {rest};"
            " make room or mend the permissions and run the same command again"
        )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
