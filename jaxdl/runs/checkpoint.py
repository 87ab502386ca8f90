"""Checkpoints of any pytree of arrays: the only file that knows Orbax.

A checkpoint is written in the background under a temporary name, and renamed when complete. So a
process that is killed while it saves leaves the previous checkpoint intact. In a run of several
processes the first process writes, and every process reads.

Orbax gets a dict of numbered arrays, and a record that describes them (`jaxdl.files.leaves`).
Orbax would make the same name for `{'a.b': x}` and `{'a': {'b': y}}`. Format 1 used such names.
Format 1 is still read, but no longer written.
"""

import contextlib
import logging
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdl.errors import RunError
from jaxdl.files import leaves
from jaxdl.files.leaves import Leaf
from jaxdl.types import PyTree

_FORMAT = 2
# The reader of a record's leaves, by format. Records of format 1 have no format number.
_LEAVES = {1: leaves.from_format_1, 2: leaves.from_json}


class Checkpoints:
    """The numbered checkpoints of one directory, the newest `keep` of them.

    Closing waits for the save in progress. Use it as a context manager.
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

    def save(self, step: int, tree: PyTree, notes: Mapping[str, Any] | None = None) -> None:
        """Copies `tree` to the host and writes it in the background, after the previous save.

        The leaves are numbers, booleans or typed random keys. `notes` are values that JSON can
        hold; `restore_with_notes` returns them. An existing checkpoint of this step stays as it is.

        Raises:
            InputError: if a leaf is something else.
            RunError: if this save, or the previous one, could not be written.
        """
        described = leaves.described(tree)
        if jax.process_index() != 0 or step in self.steps():
            return
        # A copy, because the training loop overwrites the buffers during the write.
        arrays = leaves.on_host(tree)
        record = {
            "format": _FORMAT,
            "notes": dict(notes or {}),
            "leaves": described,
            "leaves_crc32": leaves.crc32_of_record(described),
            "crc32": leaves.crc32(arrays),
        }
        try:
            import orbax.checkpoint as ocp

            self.directory.mkdir(parents=True, exist_ok=True)
            self._sweep()
            self._manager.wait_until_finished()
            args = ocp.args.Composite(
                tree=ocp.args.StandardSave(leaves.numbered(arrays)),
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

    def restore(self, like: PyTree, step: int | None = None) -> PyTree:
        """The checkpoint of `step` (None: the newest), with the structure and shapes of `like`.

        The leaves are JAX arrays, whatever devices wrote them. A leaf that JAX would cast (float64
        without x64) stays a NumPy array.

        Raises:
            InputError: if `like` has a leaf that cannot be saved.
            RunError: if there is no such checkpoint, or it is damaged, or its leaves differ from
                those of `like` in path, dtype, shape or the implementation of keys.
        """
        return self.restore_with_notes(like, step)[0]

    def restore_with_notes(
        self, like: PyTree, step: int | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """The checkpoint as `restore` gives it, and the notes saved with it.

        Raises:
            InputError, RunError: as `restore`.
        """
        step = self._chosen(step)
        wanted = leaves.described(like)
        record, paths = self._record(step), [leaf.path for leaf in wanted]
        if record["format"] == 1:
            wanted = leaves.as_in_format_1(like, wanted)
        if record["leaves"] != wanted:
            raise self._of_another(step, record["leaves"], wanted)
        return leaves.as_tree(like, self._read(step, record, paths)), record["notes"]

    def arrays(self, step: int | None = None) -> list[tuple[Leaf, np.ndarray]]:
        """All arrays of a checkpoint (None: the newest) with their descriptions, in order.

        A typed key comes as its raw data.

        Raises:
            RunError: if there is no such checkpoint, or it is damaged.
        """
        step = self._chosen(step)
        record = self._record(step)
        paths = [leaf.path for leaf in record["leaves"]]
        return list(zip(record["leaves"], self._read(step, record, paths), strict=True))

    def close(self) -> None:
        """Waits for the last save and closes the directory."""
        if self._opened is not None:
            try:
                self.wait()
            finally:
                manager, self._opened = self._opened, None
                with contextlib.suppress(Exception):  # `wait` has raised the cause
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
            if not isinstance(sys.unraisablehook, _NoStrayTracebacks):
                sys.unraisablehook = _NoStrayTracebacks(sys.unraisablehook)
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

    def _record(self, step: int) -> dict[str, Any]:
        try:
            found = self._item(step, "record")
            number = found.get("format", 1)
            if number not in _LEAVES:
                raise ValueError(f"it has format {number}, which a later jaxdl wrote")
            notes, crc32 = dict(found["notes"]), int(found["crc32"])
            described = _LEAVES[number](found["leaves"])
            if number > 1 and leaves.crc32_of_record(described) != found["leaves_crc32"]:
                raise ValueError("the checksum of its record is wrong")
        except Exception as error:
            raise self._unreadable(step, error) from error
        return {"format": number, "notes": notes, "leaves": described, "crc32": crc32}

    def _read(
        self, step: int, record: dict[str, Any], paths: list[leaves.Path]
    ) -> list[np.ndarray]:
        """The arrays of a record's leaves; format 1 finds them by the texts of their paths."""
        try:
            stored = self._item(step, "tree")
            if record["format"] == 1:
                pairs = jax.tree.leaves_with_path(stored)
                named = {leaves.texts(leaves.path_of(keys)): array for keys, array in pairs}
                stored = {str(i): named[leaves.texts(path)] for i, path in enumerate(paths)}
            arrays = leaves.from_numbered(stored, record["leaves"])
            # Orbax does not check: a flipped bit in a file would become a wrong parameter.
            if leaves.crc32(arrays) != record["crc32"]:
                raise ValueError("its checksum is wrong")
        except Exception as error:
            raise self._unreadable(step, error) from error
        return arrays

    def _item(self, step: int, name: str) -> Any:
        import orbax.checkpoint as ocp

        # No target, because Orbax silently casts to the dtypes of a target.
        kinds = {"record": ocp.args.JsonRestore(), "tree": ocp.args.StandardRestore()}
        return self._manager.restore(step, args=ocp.args.Composite(**{name: kinds[name]}))[name]

    def _chosen(self, step: int | None) -> int:
        steps = self.steps()
        if not steps or (step is not None and step not in steps):
            which = "no checkpoint" if step is None else f"no checkpoint {step}"
            raise RunError(
                f"there is {which} in {self.directory}. Give the folder of a run that saved one"
            )
        return steps[-1] if step is None else step

    def _sweep(self) -> None:
        """Removes the temporary files of processes that were killed while they saved."""
        if not self._swept:
            for path in self.directory.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(path, ignore_errors=True)
        self._swept = True

    def _unwritable(self, what: str, error: Exception) -> RunError:
        kept = self.steps()
        rest = f"checkpoint {kept[-1]} is safe" if kept else "nothing was saved before"
        return RunError(
            f"{what} could not be written to {self.directory} ({_first_line(error)}); {rest}."
            " Free disk space or correct the permissions, then run the same command again"
        )

    def _of_another(self, step: int, found: list[Leaf], wanted: list[Leaf]) -> RunError:
        there, here = (
            {leaf.path: f"{leaf.dtype}{list(leaf.shape)}" for leaf in each}
            for each in (found, wanted)
        )
        differ = [path for path in sorted({**there, **here}) if there.get(path) != here.get(path)]
        what, why = "net or optimiser", "it holds the same arrays in another order"
        if differ:
            one, other = (each.get(differ[0], "absent") for each in (there, here))
            why = f"{leaves.shown(differ[0])} is {one} there and {other} here"
            if one.startswith("key<") and other.startswith("key<"):
                what = "random number generator (jax_default_prng_impl)"
        return RunError(
            f"checkpoint {self.directory / str(step)} is of another {what}: {why}. Choose another"
            " `name=` to start a new run, or give what it was made with"
        )

    def _unreadable(self, step: int, error: Exception) -> RunError:
        path = self.directory / str(step)
        others = [other for other in self.steps() if other < step]
        cure = (
            f"Move {path} away to go on from step {others[-1]}"
            if others
            else "Choose another `name=` to start a new run"
        )
        return RunError(f"checkpoint {path} cannot be read ({_first_line(error)}). {cure}")


def _is_not_orbax(record: logging.LogRecord) -> bool:
    """Whether a log record is not from Orbax, which logs a traceback of each error it raises."""
    return "orbax" not in Path(record.pathname).parts


class _NoStrayTracebacks:
    """`sys.unraisablehook` without the tracebacks of Orbax that only follow from an error.

    Orbax reads and writes arrays concurrently, and raises the first error. By then the event loop
    is closed, and the other reads or writes, which may end later, report to it.
    """

    def __init__(self, others: Callable[[Any], object]) -> None:
        self._others = others

    def __call__(self, raised: Any) -> None:
        if "Event loop is closed" not in str(raised.exc_value):
            self._others(raised)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:120].rstrip(" .;:")
