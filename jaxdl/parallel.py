"""Several devices and several processes: only this file uses `pmap` and `jax.distributed`.

State goes in and comes out as an ordinary un-stacked pytree, equal on every device. So no other
file needs the number of devices. A device takes its `Shard` of the tasks by index. Keys are
divided, not data, so any number of devices trains on the same tasks.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Compiled
from jaxtyping import Float, Shaped

from jaxdl.errors import InputError, RunError
from jaxdl.types import WHOLE, Array, Batch, Key, Params, PyTree, Scalar, Shard

JOIN, LEAST_JOIN, SILENCE = 30, 15, 30
"""Seconds: since the start of the command in which all processes must have started, the least that
a slow start leaves of them, and after which a silent process counts as dead."""

AXIS = "devices"
"""The name of the pmap axis."""


def split_cores(tasks: int, wanted: int = 0) -> None:
    """On a CPU, makes devices of its cores: `wanted` of them, or the most that divide `tasks`.

    Whole tasks use several cores better than the kernels of one task do. Conv-4 with ten images per
    task takes 75 ms per step instead of 95, on two cores (more cores were not measured). Each
    device keeps a copy of the data. Call it before JAX starts; the devices stay until the process
    ends. It does nothing for accelerators, in one of several processes, after JAX has started, or
    if the number of CPU devices is already set. NPROC in the environment, XLA's limit of threads,
    limits the devices too.
    """
    limit = os.environ.get("NPROC", "")
    cores = max(1, min(_cores(), int(limit))) if limit.isdecimal() else _cores()
    most = max(n for n in range(1, cores + 1) if tasks % n == 0)
    count = min(wanted, cores) if wanted else most
    if count > 1 and not _devices_given():
        with contextlib.suppress(RuntimeError):  # JAX has started
            jax.config.update("jax_num_cpu_devices", count)


def one_thread() -> None:
    """On a CPU, limits XLA to one thread, unless the environment variable NPROC is set.

    Use it for small nets, in which a kernel is faster than its hand-over to another thread (sine
    waves: 0.22 ms per step instead of 0.28, on two cores). Call it before JAX starts. It sets NPROC
    for child processes too. With an accelerator, it limits only the threads of the host.
    """
    if not os.environ.get("NPROC") and not _devices_given():  # devices need a thread each
        os.environ["NPROC"] = "1"


def _cores() -> int:
    """The logical cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cores_per_device() -> int:
    """The cores of this process, within NPROC, for each of its devices; at least 1."""
    limit = os.environ.get("NPROC", "")
    cores = min(_cores(), int(limit)) if limit.isdecimal() else _cores()
    return max(1, cores // jax.local_device_count())


def _devices_given() -> bool:
    """Whether the number of devices of this process is already set."""
    config: Any = jax.config  # its attributes are made at run time
    return (
        jax.distributed.is_initialized()
        or config.jax_num_cpu_devices > 0
        or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    )


def count_devices(wanted: int = 0) -> int:
    """How many of the `jax.device_count()` devices to use; 0 means all.

    Raises:
        InputError: if there are fewer than `wanted`, or some process would have none.
    """
    present = jax.device_count()
    if wanted < 0 or wanted > present:
        raise InputError(f"`devices={wanted}`: choose 0 (all) to {present}, the devices present")
    if jax.process_count() > 1 and wanted not in (0, present):
        raise InputError("several processes must use all devices. Leave `devices=` at 0")
    return wanted or present


def axis_name(devices: int) -> str | None:
    """The pmap axis to average over, or None for a single device."""
    return AXIS if devices > 1 else None


def compile_on(
    run: Callable[..., Any],
    devices: int,
    args: Sequence[Any],
    *,
    donate: int | None = None,
    check: Callable[[Compiled, int], None] = lambda compiled, devices: None,
) -> Callable[..., Any]:
    """Compiles `run(shard, *args)` for one device, or replicated for several.

    Arguments and results are un-stacked pytrees, the same on every device. The compiled function
    takes only `*args`. `donate` is the position in `args` of a buffer that may be overwritten.
    `check` gets the compiled program and its devices; with several processes, it is not called.
    """
    donated = () if donate is None else (donate,)
    if devices == 1:
        alone = jax.jit(partial(run, WHOLE), donate_argnums=donated)
        program = alone.lower(*args).compile()
        check(program, 1)
        return cast(Callable[..., Any], program)
    mapped = jax.pmap(
        lambda *args: run(Shard(lax.axis_index(AXIS), devices), *args[:-1]),
        axis_name=AXIS,
        in_axes=(*(None for _ in args), 0),
        out_axes=None,
        devices=jax.devices()[:devices],
        # With several processes, pmap itself moves each process's part, so nothing is donated.
        donate_argnums=donated if jax.process_count() == 1 else (),
    )
    # `run` does not read this last argument; pmap takes the number of devices from it.
    indices = np.arange(devices // jax.process_count())
    if jax.process_count() > 1:
        return lambda *args: mapped(*args, indices)
    compiled = mapped.lower(*args, indices).compile()
    check(compiled, devices)
    everywhere = NamedSharding(Mesh(np.asarray(jax.devices()[:devices]), (AXIS,)), PartitionSpec())
    # device_put does not copy an array that is already on all devices.
    return lambda *args: compiled(*jax.device_put(args, everywhere), indices)


def divided(run: Callable[..., PyTree], devices: int) -> Callable[..., PyTree]:
    """`run(*args, items)` compiled, with the leading axis of `items` divided over devices.

    `run` treats each item alone, and its results have the same leading axis. The devices are at
    most `devices` of this process, and at most as many as there are items. So several processes do
    the same work, without messages.

    >>> import jax.numpy as jnp
    >>> divided(lambda factor, items: factor * items, 1)(2, jnp.arange(3)).tolist()
    [0, 2, 4]
    """
    most, alone = min(devices, jax.local_device_count()), jax.jit(run)
    if most == 1:
        return alone

    @cache
    def on_first(devices: int) -> tuple[Callable[..., PyTree], NamedSharding]:
        used = jax.local_devices()[:devices]
        mapped = jax.pmap(lambda args, items: run(*args, items), in_axes=(None, 0), devices=used)
        return mapped, NamedSharding(Mesh(np.asarray(used), (AXIS,)), PartitionSpec())

    def on_all(*all_args: PyTree) -> PyTree:
        *args, items = all_args
        count = len(jax.tree.leaves(items)[0])
        if (devices := min(most, count)) == 1:
            return alone(*all_args)
        mapped, everywhere = on_first(devices)
        # The last device repeats the last item, so that all have equally many.
        rows = jnp.minimum(jnp.arange(-(-count // devices) * devices), count - 1)
        parts = jax.tree.map(lambda leaf: leaf[rows.reshape(devices, -1)], items)
        found = mapped(jax.device_put(args, everywhere), parts)
        # On one device again: a sum over a divided array would round in another order.
        joined = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), found)
        return jax.tree.map(lambda leaf: jnp.asarray(leaf[:count]), joined)

    return on_all


def local(tree: PyTree) -> PyTree:
    """This process's copy of a pytree that is equal on all devices, as arrays of one device."""
    return jax.tree.map(
        lambda leaf: leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf, tree
    )


# ---- inside a step that pmap runs


def device_key(key: Key, axis_name: str | None) -> Key:
    """A key of this device alone; `key` itself if there is no axis."""
    return key if axis_name is None else jax.random.fold_in(key, lax.axis_index(axis_name))


def task_keys(key: Key, tasks: int, axis_name: str | None = None) -> Shaped[Key, " {tasks}"]:
    """The keys `[tasks]` of the tasks on this device, each derived from its global task index."""
    first = 0 if axis_name is None else lax.axis_index(axis_name) * tasks
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(tasks))


def device_axes(x: Array) -> frozenset[str]:
    """The axes of a `jax.shard_map` over whose devices an array differs, as its type says.

    Only `shard_map` keeps them in types, and not with `check_vma=False`.

    >>> device_axes(jnp.zeros(3))
    frozenset()
    """
    kind = jax.typeof(x)
    found = getattr(kind, "manual_axis_type", None)
    return frozenset(getattr(kind, "vma", None) or () if found is None else found.varying)


def differing_alike(*arrays: Array) -> tuple[Array, ...]:
    """The same arrays, all of which differ over the axes over which one does.

    The operands of a primitive must agree in this. JAX transposes it to a sum over devices, which
    is what makes the gradient of a shared operand whole.
    """
    return tuple(differing_as(list(arrays), arrays))


def differing_as(tree: PyTree, others: PyTree) -> PyTree:
    """Arrays that differ over the axes over which a leaf of `others` does: a carry of a scan."""
    like = [device_axes(leaf) for leaf in jax.tree.leaves(others) if hasattr(leaf, "dtype")]
    axes: frozenset[str] = frozenset().union(*like)
    return jax.tree.map(lambda leaf: _differing(leaf, axes), tree)


def on_each_device(params: Params, axis_name: str | None) -> Params:
    """Parameters whose gradient is that of this device's examples alone.

    `jax.shard_map` adds up the gradients of parameters that are equal on all devices by itself. A
    mean over devices would then come too late, and keep the sum. `pmap` does not do so, and there
    the parameters stay as they are.
    """
    if axis_name is None or axis_name not in device_axes(lax.axis_index(axis_name)):
        return params
    return jax.tree.map(lambda leaf: _differing(leaf, frozenset({axis_name})), params)


def _differing(leaf: Any, axes: frozenset[str]) -> Any:
    missing = tuple(sorted(axes - device_axes(leaf))) if hasattr(leaf, "dtype") else ()
    return lax.pcast(leaf, missing, to="varying") if missing else leaf


def mean_over_devices(tree: PyTree, axis_name: str | None) -> PyTree:
    """The mean of a tree of arrays over the devices of an axis; the tree itself without an axis."""
    return tree if axis_name is None else lax.pmean(tree, axis_name)


def device_share(batch: PyTree, axis_name: str | None) -> Scalar | None:
    """The weight of this device's `Batch` relative to the mean over devices, which is 1.

    It is None if all devices count equally. To average a loss, or its gradient, over devices,
    multiply it by this share (`times`), then take the mean (`mean_over_devices`).
    """
    total = total_weight(batch)
    return None if axis_name is None or total is None else share_of(total, axis_name)


def share_of(total: Float[Array, "*shape"], axis_name: str) -> Float[Array, "*shape"]:
    """This device's `total`, of any shape, divided by its mean over the devices of an axis."""
    return total / jnp.maximum(lax.pmean(total, axis_name), np.finfo(total.dtype).tiny)


def times(tree: PyTree, share: Scalar | None) -> PyTree:
    """A tree of arrays times a scalar, in their own types; the tree itself if `share` is None."""
    if share is None:
        return tree
    return jax.tree.map(lambda leaf: (leaf * share).astype(jnp.result_type(leaf, 0.0)), tree)


def total_weight(batch: PyTree) -> Scalar | None:
    """The sum of the weights of a `Batch`; None if all examples count equally."""
    weight = batch.weight if isinstance(batch, Batch) else None
    return None if weight is None else jnp.sum(weight).astype(float)


# ---- several processes


def _processes_of_cluster() -> int:
    """How many processes Slurm or Open MPI has started; 1 without them."""
    for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"):
        if (count := os.environ.get(name)) is not None:
            if not count.isdecimal():
                raise InputError(
                    f"{name}={count!r} in the environment is no number of processes. Unset it, or"
                    " correct it"
                )
            return int(count)
    return 1


def joining(coordinator: str = "", processes: int = 0, process: int = -1) -> dict[str, Any] | None:
    """The arguments by which `start` joins other processes; None if there are none.

    Raises:
        InputError: if the three flags are not given together, or the cluster's number of processes
            is no number.
    """
    if not coordinator and not processes and process < 0:
        return {} if _processes_of_cluster() > 1 else None
    if not (_is_address(coordinator) and processes > 0 and 0 <= process < processes):
        raise InputError(
            "several processes need `coordinator=HOST:PORT`, `processes=N` and"
            " `process=I` (0 <= I < N). Give all three together"
        )
    return {
        "coordinator_address": coordinator,
        "num_processes": processes,
        "process_id": process,
    }


def start(
    coordinator: str = "", processes: int = 0, process: int = -1, *, waited: float = 0.0
) -> None:
    """Joins the other processes of a run of several processes; does nothing for one process.

    Without `coordinator` (host:port), JAX reads the cluster's environment (Slurm, Open MPI, Cloud
    TPU, Kubernetes), if Slurm or Open MPI has started more than one process.

    Args:
        waited: seconds since the command started. They count as part of the time in which all must
            have started.

    Raises:
        InputError: as `joining`.
        RunError: if the other processes do not answer.
    """
    arguments = joining(coordinator, processes, process)
    if arguments is None:
        return
    try:
        left = max(LEAST_JOIN, round(JOIN - waited))
        jax.distributed.initialize(
            **arguments, initialization_timeout=left, heartbeat_timeout_seconds=SILENCE
        )
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"the other processes did not answer ({error}). Start all of them within {JOIN} s"
        ) from error


def _is_address(text: str) -> bool:
    """Whether a text is host:port; with anything else, JAX dies or waits for ever."""
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 65536


def agree(value: int) -> int:
    """The first process's value, in every process, so that all take the same branch."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def anyone(flag: bool) -> bool:
    """Whether the flag is true in any process."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.int32(flag))))


def is_first() -> bool:
    """Whether this is the first process, which writes the files and prints the messages."""
    return jax.process_index() == 0


def all_equal(tree: PyTree) -> bool:
    """Whether all shards of every leaf hold the same bits; for tests and debugging."""
    return all(
        bool(jnp.array_equal(np.asarray(shard.data), np.asarray(leaf.addressable_shards[0].data)))
        for leaf in jax.tree.leaves(tree)
        for shard in leaf.addressable_shards
    )
