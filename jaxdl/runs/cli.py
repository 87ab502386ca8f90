"""The command line of an experiment: flags from a dataclass, a short message for a mistake.

JAX is imported inside functions, because commands start without it.
"""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jaxdl.errors import InputError, RunError, TooLarge, extra, in_short
from jaxdl.runs import watchdog
from jaxdl.runs.config import RunFlags, with_whole_paths
from jaxdl.runs.flags import flags_of, in_flags
from jaxdl.runs.grid import Grid, asked
from jaxdl.runs.signals import Interrupted, caught_signals
from jaxdl.runs.sizes import largest
from jaxdl.runs.streams import discard, outlived

Config = TypeVar("Config")

MOST = 2000
"""Letters of a line of an error that are shown."""

GRID_HELP = (
    "\n\n--lr and numbers of the learner may have several values: --lr 0.001 0.003 --inner-lr 0.1"
    " 0.4 trains a run for each combination, all in one program, and the best on validation is"
    " tested. --shard I/N takes part I of N of them, say for an array of a cluster."
)


def command_line(
    main: Callable[[Any], Any],
    config: type[Config],
    *,
    presets: Mapping[str, Config] | None = None,
    moved: Mapping[str, str] | None = None,
    complete: Callable[[Config, Sequence[str]], Config] | None = None,
    grid: Callable[[Sequence[Any], Grid], Any] | None = None,
) -> None:
    """Runs `main` on a configuration read from the command line, and exits if that fails.

    `config` is a dataclass. Each field is a flag, and the string below the field is its help. The
    docstring of `main`'s module stands above all flags. With `presets`, `--preset NAME` chooses the
    defaults, and the other flags change them; the first preset is the default. `moved` maps a flag,
    or a flag and its value, to the experiment that has it now: `{"--case binary": "questions"}`.
    `complete` maps the defaults and the arguments to other defaults, whose class may have more
    fields, such as those of a learner that a flag names. If flags have several values, `grid` gets
    a configuration for each combination of them, and the `Grid`; without `grid` they are refused.

    >>> import dataclasses, jaxdl
    >>> from unittest import mock
    >>> @dataclasses.dataclass(frozen=True)
    ... class Config:
    ...     steps: int = 1000
    ...     run: jaxdl.RunFlags = jaxdl.RunFlags()
    >>> Config().steps
    1000
    >>> def main(config):
    ...     print(f"{config.steps} steps, a line per {config.run.log_every}")
    >>> arguments = mock.patch("sys.argv", "train.py --steps 50 --log-every 10".split())
    >>> no_cache = mock.patch("jax.config.update")  # on disk, of compiled programs
    >>> with arguments, no_cache:  # in a program: if __name__ == "__main__":
    ...     jaxdl.command_line(main, Config)
    50 steps, a line per 10

    A mistake of the user ends in a message on standard error. The exit code is 2 for a wrong
    request, 1 for a run that could not go on, and 128 + n after signal n.
    """
    import jax

    arguments: list[str] = sys.argv[1:]
    default: Any = None
    about = _spaced(sys.modules[main.__module__].__doc__ or "")
    with outlived() as out:
        try:
            _refuse_moved(arguments, moved or {})
            default, arguments = _defaults(config, arguments, presets, complete)
            if presets is not None:
                about += "\n\n--preset NAME sets all flags to one recipe. NAME is one of "
                about += f"{', '.join(presets)}."
            about += GRID_HELP * (grid is not None)
            found = asked(arguments, config() if default is None else default)
            if found is not None and grid is None:
                raise InputError(
                    f"`{next(iter(found.axes))}=` has several values, and this experiment trains"
                    " one configuration. Start a command for each"
                )
            config = config if default is None else type(default)
            each = [
                _parsed(config, default, words, about)
                for words in ([arguments] if found is None else found.arguments)
            ]
            made, *others = map(with_whole_paths, each)
            several = _is_one_of_several(made)
            if several and not watchdog.is_child():
                sys.exit(watchdog.watch())
            _use_compilation_cache()
            alone = watchdog.leaving() if several else contextlib.nullcontext()
            with _notes_shown(), caught_signals("nothing was begun"), alone:
                if found is None or grid is None:
                    main(made)
                else:
                    grid([made, *others], found)
            _flush(out)
        except TooLarge as error:
            _fail(f"error: {error.fault}. Lower {largest(made, default)}", error.exit_code)
        except (InputError, RunError) as error:
            _fail(f"error: {in_flags(str(error), flags_of(config))}", error.exit_code)
        except Interrupted as stop:
            _fail(str(stop), stop.exit_code)
        except KeyboardInterrupt:
            _fail("stopped by SIGINT: nothing was begun", 130)
        except BrokenPipeError:
            sys.exit(_reader_gone())
        except jax.errors.JaxRuntimeError as error:
            if not re.search("RESOURCE_EXHAUSTED|out of memory", str(error), re.IGNORECASE):
                raise
            _fail(f"error: the device is out of memory. Lower {largest(made, default)}", 1)


def configuration(
    config: type[Config],
    arguments: Sequence[str],
    *,
    presets: Mapping[str, Config] | None = None,
    complete: Callable[[Config, Sequence[str]], Config] | None = None,
) -> Config:
    """The configuration that `command_line` reads from these arguments, of one training.

    >>> import dataclasses
    >>> @dataclasses.dataclass(frozen=True)
    ... class Config:
    ...     steps: int = 1000
    ...     lr: float = 0.1
    >>> presets = {"short": Config(steps=10), "long": Config(steps=5000)}
    >>> configuration(Config, ["--preset", "long", "--lr", "0.5"], presets=presets).steps
    5000

    Raises:
        InputError: if there is no such preset, or as `complete`.
    """
    default, words = _defaults(config, list(arguments), presets, complete)
    kind = config if default is None else type(default)
    made: Config = with_whole_paths(_parsed(kind, default, words, ""))
    return made


def _defaults(
    config: type[Any],
    arguments: list[str],
    presets: Mapping[str, Any] | None,
    complete: Callable[[Any, Sequence[str]], Any] | None,
) -> tuple[Any, list[str]]:
    """The defaults of the flags, None for those of the class; the arguments without --preset."""
    default: Any = None
    if presets is not None:
        default, arguments = _preset(arguments, presets)
    if complete is not None:
        default = complete(config() if default is None else default, arguments)
    return default, arguments


def _parsed(config: type[Any], default: Any, words: Sequence[str], about: str) -> Any:
    with extra("cli"):
        import tyro
    try:
        return tyro.cli(
            config,
            prog=Path(sys.argv[0]).name,
            args=words,
            default=default,
            description=about,
            config=(tyro.conf.OmitArgPrefixes,),  # --name, not --run.name
        )
    except SystemExit as end:
        if not end.code:  # after --help
            _flush(sys.stdout)
        raise


def subcommand(
    prog: str, kind: type[Config], main: Callable[[Config], None], arguments: Sequence[str]
) -> int:
    """Runs `main` on a dataclass read from `arguments`; returns the exit code.

    Fields without a default are positional. A mistake of the user ends as in `command_line`.

    Args:
        prog: what the user typed, for the help: "jaxdl compare".
    """
    with outlived() as out:
        try:
            with extra("cli"):
                import tyro
            config = (tyro.conf.PositionalRequiredArgs, tyro.conf.OmitArgPrefixes)
            main(with_whole_paths(tyro.cli(kind, prog=prog, args=arguments, config=config)))
            _flush(out)
        except (InputError, RunError) as error:
            print(_shown(f"error: {in_flags(str(error), flags_of(kind))}"), file=sys.stderr)
            return error.exit_code
        except BrokenPipeError:
            return _reader_gone()
    return 0


def _is_one_of_several(config: Any) -> bool:
    """Whether the run flags, or a cluster, ask for several processes."""
    from jaxdl import parallel

    flags = getattr(config, "run", None)
    if not isinstance(flags, RunFlags):
        return False
    return parallel.joining(flags.coordinator, flags.processes, flags.process) is not None


def _flush(out: Any) -> None:
    """Raises RunError if not all of the output was written."""
    out.flush()
    error = getattr(out, "error", None)  # of `Outlived`
    if error is not None:
        raise RunError(
            f"standard output took no more ({error.strerror}). All else is done: make room, and"
            " the same command prints it again"
        )


def _reader_gone() -> int:
    """The exit code where the reader of the output is gone."""
    discard(sys.stdout.fileno())
    return 141


def _spaced(text: str) -> str:
    """A docstring whose lines `Command:`, `Runtime:` and `Result:` stay lines of their own in help.

    tyro joins lines that no empty line separates.
    """
    return re.sub(r"\n+(?=(Command|Runtime|Result): )", "\n\n", text).strip()


def _shown(text: str) -> str:
    """The text of an error without what would act on a terminal, such as the name of a file has."""
    return "\n".join(in_short(line, most=MOST) for line in text.split("\n"))


def _fail(line: str, code: int) -> None:
    print(_shown(line), file=sys.stderr)
    sys.exit(code)


def _refuse_moved(arguments: list[str], moved: Mapping[str, str]) -> None:
    given = f" {' '.join(arguments).replace('=', ' ').replace('_', '-')} "
    for request, experiment in moved.items():
        if f" {request} " in given:
            raise InputError(
                f"{request} is now an experiment of its own. Run scripts/run {experiment}"
            )


def _preset(arguments: list[str], presets: Mapping[str, Config]) -> tuple[Config, list[str]]:
    """Takes `--preset NAME` out of the arguments; the first preset is the default."""
    rest, name = [], next(iter(presets))
    words = iter(arguments)
    for word in words:
        if word == "--preset":
            name = next(words, "")
        elif word.startswith("--preset="):
            name = word.removeprefix("--preset=")
        else:
            rest.append(word)
    if name not in presets:
        raise InputError(f"there is no --preset {name!r}. Choose one of {', '.join(presets)}")
    return presets[name], rest


@contextlib.contextmanager
def _notes_shown() -> Iterator[None]:
    """Shows what jaxdl logs, such as the memory plan of inner steps."""
    from jaxdl.runs.progress import Notes

    logger, notes = logging.getLogger("jaxdl"), Notes()
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False  # absl, which Orbax imports, would show each line once more
    logger.addHandler(notes)
    try:
        yield
    finally:
        logger.removeHandler(notes)
        logger.setLevel(level)
        logger.propagate = propagate


def _use_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that the second start of an experiment is fast."""
    import jax

    folder = os.environ.get("JAXDL_XLA_CACHE")
    with contextlib.suppress(RuntimeError):  # a user without a home has no cache
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = folder or str(Path(cache) / "jaxdl" / "xla")
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
