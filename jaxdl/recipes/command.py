"""The console command `jaxdl`. `python -m jaxdl.recipes.command` is the same."""

import signal
import sys
from collections.abc import Sequence

from jaxdl import __version__


def prepare(arguments: Sequence[str]) -> int:
    """Prepares MNIST, CIFAR-10, CIFAR-100 or Omniglot, once."""
    from jaxdl.recipes.prepare import main

    return main(arguments)


def compare(arguments: Sequence[str]) -> int:
    """Compares the learners of runs of few_shot on test episodes that all have met."""
    from jaxdl.recipes.compare import Arguments, main
    from jaxdl.runs.cli import subcommand

    return subcommand("jaxdl compare", Arguments, main, arguments)


def classify(arguments: Sequence[str]) -> int:
    """Classifies your own pictures by a run of few_shot."""
    from jaxdl.recipes.classify import Arguments, main
    from jaxdl.runs.cli import subcommand

    return subcommand("jaxdl classify", Arguments, main, arguments)


def new(arguments: Sequence[str]) -> int:
    """Writes a learner that works, to be changed, with a test to be filled in."""
    from jaxdl.recipes.new import Arguments, main
    from jaxdl.runs.cli import subcommand

    return subcommand("jaxdl new", Arguments, main, arguments)


# Each command imports its modules when it is called, so the list of commands is fast.
COMMANDS = {"prepare": prepare, "compare": compare, "classify": classify, "new": new}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `jaxdl NAME [flags]`, with the arguments of the process by default.

    Returns:
        The exit code. It is 2 if there is no such command.

    Example:
        main(["prepare", "omniglot", "--from", "downloads"])
    """
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if name in COMMANDS:
        return COMMANDS[name](rest)
    if name == "--version":
        print(__version__)
        return 0
    asked = name in ("-h", "--help", "help")
    stream = sys.stdout if asked else sys.stderr
    if name and not asked:
        print(
            f'error: there is no command "{name}". Experiments such as few_shot are not installed:'
            " run `scripts/run NAME` in a clone",
            file=stream,
        )
    print("Commands (jaxdl NAME --help lists the flags of one):", file=stream)
    width = max(map(len, COMMANDS))
    for command, function in COMMANDS.items():
        print(f"  {command:{width}}  {function.__doc__}", file=stream)
    return 0 if asked else 2


def program() -> None:
    """The process `jaxdl`. It cleans up when it is terminated."""
    # Without a handler, SIGTERM would leave a temporary folder behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())


if __name__ == "__main__":
    program()
