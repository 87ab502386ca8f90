"""The command line of an experiment: flags from a dataclass, one sentence for a mistake."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax

from jaxdl.errors import InputError, RunError

Config = TypeVar("Config")


def command_line(
    main: Callable[[Any], Any], config: type[Config], *, presets: Mapping[str, Config] | None = None
) -> None:
    """Runs `main` on a configuration read from the command line, and exits.

    With `presets`, `--preset NAME` chooses the defaults that the other flags change.
    A mistake of the user ends in one sentence on standard error: exit code 2 for a wrong request, 1
    for a run that could not go on, 128 + n after signal n.
    """
    import tyro

    arguments, default = sys.argv[1:], None
    try:
        if presets is not None:
            default, arguments = _preset(arguments, presets)
        about = sys.modules[main.__module__].__doc__
        made = tyro.cli(config, args=arguments, default=default, description=about)
        _use_compilation_cache()
        main(made)
    except (InputError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("error: stopped by SIGINT before training began", file=sys.stderr)
        sys.exit(130)


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
        raise InputError(f"there is no --preset {name!r}; choose one of {', '.join(presets)}")
    return presets[name], rest


def _use_compilation_cache() -> None:
    """Keeps compiled programs between runs: the second start of an experiment is fast."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxdl" / "xla"
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAXDL_XLA_CACHE", str(default)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
