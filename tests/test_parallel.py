"""Devices and processes: the same numbers as one device of one process."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import few_shot, sinusoid
from jaxdl import parallel
from jaxdl.errors import InputError
from jaxdl.runs import watchdog
from jaxdl.runs.run import RunFlags
from jaxdl.types import Shard
from tests.train.test_loop import run, start

ROOT = Path(__file__).resolve().parents[1]


def test_shares_cut_the_items_without_gap_or_overlap():
    items = {"x": jnp.arange(12).reshape(6, 2)}
    parts = [Shard(index, 3).of(items)["x"] for index in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts), items["x"])
    assert Shard(0, 1).of(items) is items


def test_all_devices_are_used_unless_fewer_are_wanted():
    assert parallel.count_devices() == jax.device_count() == 4
    assert parallel.count_devices(2) == 2


@pytest.mark.parametrize("wanted", [-1, 5])
def test_devices_that_are_not_there_are_refused(wanted):
    with pytest.raises(InputError, match=f"`devices={wanted}`: choose 0"):
        parallel.count_devices(wanted)


def printed(program, **environment):
    """The words that a Python program prints where nobody has asked for devices or threads."""
    clean = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "NPROC")}
    command = [sys.executable, "-c", program]
    found = subprocess.run(
        command, env=clean | environment, cwd=ROOT, capture_output=True, check=True
    )
    return found.stdout.split()


@pytest.mark.parametrize(
    ("tasks", "wanted", "nproc", "count"),
    [
        (32, 0, "", 8),
        (25, 0, "", 5),
        (7, 0, "", 7),
        (11, 0, "", 1),
        (32, 0, "3", 2),
        (32, 0, "0", 1),
        (32, 0, "-1", 8),
        (32, 0, "abc", 8),
        (32, 1, "", 1),
        (32, 4, "", 4),
        (32, 99, "", 8),
        (32, -1, "", 1),
    ],
)
def test_cores_become_devices_as_the_tasks_divide(tasks, wanted, nproc, count, monkeypatch):
    made = {}
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setenv("NPROC", nproc)
    monkeypatch.setattr(parallel, "_cores", lambda: 8)
    monkeypatch.setattr(jax.config, "update", made.__setitem__)
    parallel.split_cores(tasks, wanted)
    assert made == ({"jax_num_cpu_devices": count} if count > 1 else {})


@pytest.mark.parametrize(
    "given",
    [
        {"JAX_NUM_CPU_DEVICES": "3"},
        {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"},
    ],
)
def test_devices_that_somebody_else_has_made_are_left_alone(given):
    program = (
        "import os, jax; from jaxdl import parallel; parallel._cores = lambda: 8;"
        " parallel.split_cores(32); parallel.one_thread();"
        " print(jax.device_count(), 'NPROC' in os.environ)"
    )
    assert printed(program, **given) == [b"3", b"False"]


def test_one_thread_unless_the_environment_wants_more(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")
    parallel.one_thread()
    assert os.environ["NPROC"] == "32"
    monkeypatch.delenv("NPROC")
    parallel.one_thread()
    assert os.environ.pop("NPROC") == "1"


def test_cores_are_devices_where_jax_has_not_started_and_are_not_where_it_has():
    program = (
        "import jax; from jaxdl import parallel;"
        " parallel._cores = lambda: 2; parallel.split_cores(4);"
        " print(jax.device_count()); parallel.split_cores(4, 1); parallel._cores = lambda: 4;"
        " parallel.split_cores(4); print(jax.device_count())"
    )
    assert printed(program) == [b"2", b"2"]


class Asked(Exception):
    """Raised in place of a start, with what it was asked for."""


def asked(*wanted):
    raise Asked(*wanted)


def test_few_shot_shares_groups_of_tasks_among_cores(monkeypatch):
    monkeypatch.setattr(parallel, "split_cores", asked)
    flags = RunFlags(devices=2)
    with pytest.raises(Asked) as found:
        few_shot.main(few_shot.Config(tasks=12, run=flags))
    assert found.value.args == (12, 2)
    with pytest.raises(Asked) as found:
        few_shot.main(few_shot.Config(tasks=12, chunk=4))
    assert found.value.args == (3, 0)


@pytest.mark.parametrize(("waited", "left"), [(0.0, 30), (10.4, 20), (100.0, 15)])
def test_the_time_to_meet_counts_from_the_start_of_the_command(monkeypatch, waited, left):
    def initialize(*, initialization_timeout, **others):
        raise Asked(initialization_timeout)

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(Asked) as found:
        parallel.start("localhost:1", 2, 0, waited=waited)
    assert found.value.args == (left,)


def test_a_child_counts_the_seconds_of_its_watchdog(monkeypatch):
    source, sink = os.pipe()
    monkeypatch.setattr(watchdog, "_began", 0.0)
    monkeypatch.setenv(watchdog.VARIABLE, f"{source} {time.time() - 30:.0f}")
    monkeypatch.setattr(watchdog.threading, "Thread", lambda **options: mock.Mock())
    assert watchdog.is_child()
    assert 29 < watchdog.seconds() < 35
    os.close(source)
    os.close(sink)


def test_sine_waves_take_one_thread(monkeypatch):
    monkeypatch.setattr(parallel, "one_thread", asked)
    with pytest.raises(Asked):
        sinusoid.main(sinusoid.Config())


@pytest.mark.parametrize(
    "flags", [("localhost:1", 0, -1), ("", 2, 0), ("localhost:1", 2, 2), ("localhost:1", 2, -1)]
)
def test_half_given_flags_of_several_processes_are_refused(flags):
    with pytest.raises(InputError, match="`coordinator=HOST:PORT`, `processes=N`"):
        parallel.start(*flags)


def test_one_process_needs_no_start(monkeypatch):
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    parallel.start()
    assert jax.process_count() == 1
    assert parallel.is_first()
    assert parallel.agree(7) == 7
    assert parallel.anyone(True)


def test_all_equal_sees_a_difference_between_shards():
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:2]), ("d",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    pieces = [
        jax.device_put(jnp.float32(v), d) for v, d in zip((1, 2), jax.devices(), strict=False)
    ]
    torn = jax.make_array_from_single_device_arrays((), sharding, pieces)
    assert not parallel.all_equal({"a": torn})
    assert parallel.all_equal({"a": jax.device_put(jnp.ones(3), sharding)})


def test_two_processes_of_two_devices_equal_one_process(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": str(ROOT),
    }
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.two_processes",
                coordinator,
                str(i),
                tmp_path / f"{i}.npz",
            ],
            env=environment,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=240)
        assert worker.returncode == 0, errors
    expected, losses = run(*start((0, 1)), 6)
    for index in range(2):
        found = np.load(tmp_path / f"{index}.npz")
        np.testing.assert_allclose(found["a"], expected.params["a"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["losses"], losses, rtol=1e-5)
        assert found["step"] == 6
