"""What holds for every test: a strict JAX on four virtual CPU devices, no settings from outside."""

import contextlib
import ctypes
import gc
import importlib.util
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before JAX starts. NPROC: with few cores, collectives among virtual devices wait for threads that
# never come, and abort. Settings and files of the person who runs the tests must not decide their
# outcome: prepared data and compiled programs live in a folder that is deleted in the end, and that
# the workers of pytest-xdist and the subprocesses of tests share.
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if not IS_WORKER:
    for name in list(os.environ):
        if name.startswith(("JAX_", "JAXDL_")) and name != "JAX_PLATFORMS":
            del os.environ[name]
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ["NPROC"] = "32"
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
    os.environ["MPLBACKEND"] = "Agg"
    os.environ["JAXDL_TEST_FOLDER"] = tempfile.mkdtemp(prefix="jaxdl-tests-")
# A suite that a shell started in the background ignores SIGINT, and so would the programs it tests.
signal.signal(signal.SIGINT, signal.default_int_handler)
SCRATCH = Path(os.environ["JAXDL_TEST_FOLDER"])
os.environ["JAXDL_DATA"] = str(SCRATCH / "data")
os.environ["JAXDL_RUNS"] = str(SCRATCH / "runs")
os.environ["JAXDL_XLA_CACHE"] = str(SCRATCH / "xla")

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests compile the same programs again and again: each has a function of its own around them. Each
# worker keeps its own, because JAX writes an entry where another process may read half of it.
jax.config.update(
    "jax_compilation_cache_dir",
    str(SCRATCH / "programs" / os.environ.get("PYTEST_XDIST_WORKER", "alone")),
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.03)

# The same examples on every machine and in every run, however slow the machine.
hypothesis.settings.register_profile("jaxdl", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("jaxdl")

# They import PyTorch, which only the environment of `scripts/test peers` has.
collect_ignore = [] if importlib.util.find_spec("torch") else ["peers"]

FORGET_FROM, MOST_MEMORY = 1.8e9, 3e9
"""Bytes from which compiled programs are forgotten, and that a process of the tests should take."""
forget_from = [FORGET_FROM]
rise: dict[str, Any] = {"bytes": 0, "test": "an import"}
"""The largest rise of this process's peak within one test."""
PEAKS: list[tuple[int, str]] = []
"""Of the workers of pytest-xdist: the peak, and the test in which it rose most."""

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--jax-flag",
        action="append",
        default=[],
        metavar="NAME",
        help="switch a flag of JAX on, such as jax_remat3, in the processes of the tests",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Where no test trains for minutes, most of the time goes into compiling. So LLVM optimises
    nothing, and XLA's older emitter writes the fusions, which halves the time. A program is not
    cut into parts for other cores, which are busy with other tests. The slow tests run the compiler
    as users do."""
    for name in config.option.jax_flag:
        jax.config.update(name, True)
    if not IS_WORKER and "not slow" in config.option.markexpr:
        os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
        if jax.__version_info__ < (0, 11):  # later ones end at a flag that they do not know
            os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
            os.environ["XLA_FLAGS"] += " --xla_cpu_parallel_codegen_split_count=1"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Doctests are looked for in jaxdl: programs that tests start are not imported for them."""
    if Path(__file__).parent in collection_path.parents and collection_path.suffix == ".py":
        return True if not collection_path.name.startswith("test_") else None
    return None


def pytest_unconfigure() -> None:
    if not IS_WORKER:
        shutil.rmtree(SCRATCH, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not SHARED_DATA.is_dir():
        skip = pytest.mark.skip(reason=f"there is no {SHARED_DATA}")
        for item in items:
            if item.get_closest_marker("realdata"):
                item.add_marker(skip)


def pytest_collection_finish() -> None:
    """What was imported stays, so the collector need not walk through it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the downloaded data sets; for tests marked `realdata`."""
    return SHARED_DATA


@pytest.fixture(scope="session")
def tiny_mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a prepared MNIST of 40 images to train on and 12 to test, all of noise."""
    from jaxdl.data.prepare import tfds
    from tests.data.prepare import publishers

    root = tmp_path_factory.mktemp("mnist")
    source, _ = publishers.mnist(root / "published", train=40, test=12)
    tfds.prepare(source, root / "data", from_dir=root / "published", say=lambda line: None)
    return root / "data"


@pytest.fixture(autouse=True)
def forgotten_programs(request: pytest.FixtureRequest) -> Iterator[None]:
    """JAX keeps all programs that it has compiled: 5 GB of a worker's memory by the end."""
    before = peak_memory()
    yield
    if peak_memory() - before > rise["bytes"]:
        rise.update(bytes=peak_memory() - before, test=request.node.nodeid)
    if resident() > forget_from[0]:
        jax.clear_caches()
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):  # glibc's, which hands memory back
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        # What is left is in use: not after each test from now on.
        rest = resident()
        forget_from[0] = max(FORGET_FROM, min(rest + 0.9e9, 0.85 * MOST_MEMORY), rest + 0.2e9)


def resident() -> int:
    """Bytes of memory that this process holds; 0 where nobody says."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def peak_memory() -> int:
    """The most bytes that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a worker of pytest-xdist took."""
    PEAKS.append(getattr(node, "workeroutput", {}).get("peak", (0, "")))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if IS_WORKER:
        session.config.workeroutput["peak"] = (peak_memory(), told_rise())
        return
    peak, most = max([*PEAKS, (peak_memory(), told_rise())])
    if peak > MOST_MEMORY:
        limit = f"{MOST_MEMORY / 1e9:.0f} GB are the aim"
        print(f"\na process of the tests took {peak / 1e9:.1f} GB of memory; {limit}. {most}")


def told_rise() -> str:
    """Where this process's peak rose most."""
    return f"It rose most, by {rise['bytes'] / 1e9:.1f} GB, in {rise['test']}"


CACHE = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
"""Where programs are kept, and the seconds of compiling from which one is."""


def cache_settings() -> dict[str, Any]:
    """The values of `CACHE` now."""
    config: Any = jax.config  # its attributes are made at run time
    return {name: getattr(config, name) for name in CACHE}


def set_cache(settings: dict[str, Any]) -> None:
    """Keeps compiled programs as `settings` say, from now on."""
    from jax.experimental.compilation_cache import compilation_cache

    if settings != cache_settings():
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


@pytest.fixture(autouse=True)
def same_cache() -> Iterator[None]:
    """A command that a test calls sets a cache of its own. The next test has that of before."""
    before = cache_settings()
    yield
    set_cache(before)


@pytest.fixture(scope="module")
def compiled_once() -> Iterator[None]:
    """For modules whose tests compile the same programs several times over."""
    before = cache_settings()
    set_cache(dict(zip(CACHE, (os.environ["JAXDL_XLA_CACHE"], 0.2), strict=True)))
    yield
    set_cache(before)
