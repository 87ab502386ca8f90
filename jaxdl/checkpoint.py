"""Checkpoints of any pytree of arrays: the only file that knows Orbax.

A checkpoint is written in the background under a temporary name and renamed when complete, so a
process that is killed while it saves leaves the checkpoint before intact. Only the first process of
a multi-process run writes; every process reads.
"""

import contextlib
import json
import logging
import re
import shutil
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdl.errors import RunError

# A part of a leaf's path as JAX writes it: an attribute, a name, or a number.
_PART = re.compile(r"\.(\w+)|\['(.*?)'\]|\[(\d+)\]")


class Checkpoints:
    """The numbered checkpoints of one directory, the newest `keep` of them.

    Closing waits for the save under way; use it as a context manager.
    """

    def __init__(self, directory: Path, *, keep: int = 2) -> None:
        self.directory = Path(directory).absolute()
        self._keep = keep
        self._opened: Any = None
        self._swept = False

    def steps(self) -> list[int]:
        """The steps that have a complete checkpoint, oldest first."""
        if not self.directory.is_dir():
            return []
        names = [path.name for path in self.directory.iterdir() if path.is_dir()]
        return sorted(int(name) for name in names if name.isdecimal())

    def save(self, step: int, tree: Any, notes: Mapping[str, Any] | None = None) -> None:
        """Copies `tree` off the device and writes it in the background, waiting for the last save.

        `notes` are values that JSON holds, see `restore_with_notes`. A step that has a checkpoint
        already keeps it.

        Raises:
            RunError: if this save, or the one before it, could not be written.
        """
        if jax.process_index() != 0 or step in self.steps():
            return
        # A copy: the training loop will overwrite the buffers while the files are being written.
        arrays = jax.tree.map(lambda leaf: np.array(jax.device_get(leaf)), tree)
        record = {
            "notes": dict(notes or {}),
            "leaves": _leaves(arrays),
            "crc32": _crc32(arrays),
        }
        try:
            import orbax.checkpoint as ocp

            self.directory.mkdir(parents=True, exist_ok=True)
            self._sweep()
            self._manager.wait_until_finished()
            args = ocp.args.Composite(
                tree=ocp.args.StandardSave(jax.tree.map(_storable, arrays)),
                record=ocp.args.JsonSave(record),
            )
            if not self._manager.save(step, args=args):
                raise ValueError(f"it comes after checkpoint {self._manager.latest_step()}")
        except Exception as error:
            raise self._unwritable(f"checkpoint {step}", error) from error

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
            raise self._unwritable("the last checkpoint", error) from error

    def restore(self, like: Any, step: int | None = None) -> Any:
        """The checkpoint of `step` (None: the newest), with the structure and shapes of `like`.

        Restoring into a target makes it independent of the devices that wrote it.

        Raises:
            RunError: if there is no such checkpoint, or it is damaged or of another shape.
        """
        return self.restore_with_notes(like, step)[0]

    def restore_with_notes(self, like: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """`restore`, and the notes that were saved beside it.

        Raises:
            RunError: as `restore`.
        """
        step = self._chosen(step)
        target = jax.tree.map(np.asarray, like)
        try:
            record, tree = self._read(step, target)
            # Orbax does not look: a flipped bit in a file would become a wrong parameter.
            if tree is not None and _crc32(tree) != record["crc32"]:
                raise ValueError("its checksum is wrong")
            wanted, found, notes = _leaves(target), dict(record["leaves"]), dict(record["notes"])
        except Exception as error:
            raise self._unreadable(step, error) from error
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                raise RunError(
                    f"checkpoint {self.directory / str(step)} is of another net or optimiser:"
                    f" {name} is {found.get(name, 'absent')} there and"
                    f" {wanted.get(name, 'absent')} here; start anew under another --name"
                )
        return jax.tree.map(jax.numpy.asarray, tree), notes

    def arrays(self, step: int | None = None) -> dict[str, np.ndarray]:
        """All arrays of a checkpoint (None: the newest) by path, as "params/Dense_0/kernel".

        Raises:
            RunError: if there is no such checkpoint, or it is damaged.
        """
        step = self._chosen(step)
        try:
            import orbax.checkpoint as ocp

            record = self._items(step, record=ocp.args.JsonRestore())["record"]
            with _without_stray_tracebacks():
                tree = self._items(step, tree=ocp.args.StandardRestore())["tree"]
            leaves = jax.tree_util.tree_leaves_with_path(tree)
            keystr = partial(jax.tree_util.keystr, simple=True, separator="/")
            stored = {keystr(path): np.asarray(leaf) for path, leaf in leaves}
            # The record has the order of the tree that was saved, and its empty leaves as they are.
            found = {}
            for path, kind in record["leaves"].items():
                dtype, _, shape = kind.partition("[")
                name = "/".join("".join(parts) for parts in _PART.findall(path))
                empty = np.zeros(json.loads(f"[{shape}"), jax.numpy.dtype(dtype))
                found[name] = stored[name] if empty.size else empty
            if _crc32(list(found.values())) != record["crc32"]:
                raise ValueError("its checksum is wrong")
            return found
        except Exception as error:
            raise self._unreadable(step, error) from error

    def close(self) -> None:
        """Waits for the last save and lets go of the directory."""
        if self._opened is not None:
            try:
                self.wait()
            finally:
                manager, self._opened = self._opened, None
                with contextlib.suppress(Exception):  # `wait` has told what went wrong
                    manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _manager(self) -> Any:
        # Opened on first use: importing Orbax takes a second, and `--help` needs no checkpoint.
        if self._opened is None:
            import orbax.checkpoint as ocp

            logging.getLogger("absl").addFilter(_is_not_orbax)
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

    def _read(self, step: int, target: Any) -> tuple[dict[str, Any], Any]:
        """The record, and the arrays if they are such as `target` has, else None."""
        import orbax.checkpoint as ocp

        record = self._items(step, record=ocp.args.JsonRestore())["record"]
        if record["leaves"] != _leaves(target):
            return record, None
        with _without_stray_tracebacks():
            stored = jax.tree.map(_storable, target)
            tree = self._items(step, tree=ocp.args.StandardRestore(stored))["tree"]
        return record, jax.tree.map(
            lambda new, old: np.asarray(new) if old.size else old, tree, target
        )

    def _items(self, step: int, **items: Any) -> Any:
        import orbax.checkpoint as ocp

        return self._manager.restore(step, args=ocp.args.Composite(**items))

    def _chosen(self, step: int | None) -> int:
        steps = self.steps()
        if not steps or (step is not None and step not in steps):
            which = "no checkpoint" if step is None else f"no checkpoint {step}"
            raise RunError(f"there is {which} in {self.directory}")
        return steps[-1] if step is None else step

    def _sweep(self) -> None:
        """Removes what processes that were killed while saving left behind."""
        if not self._swept:
            for path in self.directory.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(path, ignore_errors=True)
        self._swept = True

    def _unwritable(self, what: str, error: Exception) -> RunError:
        kept = self.steps()
        rest = f"checkpoint {kept[-1]} is safe" if kept else "nothing was saved before"
        return RunError(
            f"{what} could not be written to {self.directory} ({_first_line(error)}); {rest};"
            " make room or mend the permissions and run the same command again"
        )

    def _unreadable(self, step: int, error: Exception) -> RunError:
        path = self.directory / str(step)
        others = [other for other in self.steps() if other < step]
        cure = (
            f"move {path} away to go on from step {others[-1]}"
            if others
            else "start anew under another --name"
        )
        return RunError(f"checkpoint {path} cannot be read ({_first_line(error)}); {cure}")


def _is_not_orbax(record: logging.LogRecord) -> bool:
    """Keeps Orbax from printing the tracebacks of errors that it raises, too."""
    return "orbax" not in Path(record.pathname).parts


@contextlib.contextmanager
def _without_stray_tracebacks() -> Iterator[None]:
    """While Orbax reads arrays side by side and one of them is damaged, hides that the others
    report to an event loop that is gone; the error itself is raised."""
    hook = sys.unraisablehook

    def other_than_that(raised: Any) -> None:
        if "Event loop is closed" not in str(raised.exc_value):
            hook(raised)

    sys.unraisablehook = other_than_that
    try:
        yield
    except Exception:
        time.sleep(0.2)  # for the others to end
        raise
    finally:
        sys.unraisablehook = hook


def _leaves(arrays: Any) -> dict[str, str]:
    """Each leaf of a tree of NumPy arrays by its path, as `float32[2, 3]`."""
    return {
        jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(arrays)
    }


def _storable(leaf: np.ndarray) -> np.ndarray:
    """The leaf, or a stand-in for an empty one, which Orbax would refuse."""
    return leaf if leaf.size else np.zeros(1, leaf.dtype)


def _crc32(arrays: Any) -> int:
    """A checksum of the leaves of a tree of NumPy arrays, in the order of the tree."""
    value = 0
    for leaf in jax.tree.leaves(arrays):
        value = zlib.crc32(leaf.tobytes(), value)
    return value


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:120].rstrip(" .;:")
