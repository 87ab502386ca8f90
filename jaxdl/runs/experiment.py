"""The frame of every experiment: check the configuration, open the run, train, print the report."""

from collections.abc import Callable
from typing import Any, TypeVar

from jaxdl import parallel
from jaxdl.errors import content_of
from jaxdl.runs import config as ranges
from jaxdl.runs import watchdog
from jaxdl.runs.identity import NO_FILES, Contents, Former
from jaxdl.runs.run import Run, open_run

Config = TypeVar("Config")


def run_experiment(
    name: str,
    config: Config,
    train: Callable[[Config, Run], dict[str, Any]],
    report: Callable[[dict[str, Any]], str],
    *,
    label: str = "",
    check: Callable[[Config], None] = lambda config: None,
    prepare: Callable[[], None] = lambda: None,
    former: Former | None = None,
    contents: Contents = NO_FILES,
) -> dict[str, Any]:
    """Trains, resumes or reprints a run; prints the report, and returns the content of result.json.

    The report, the curves and the pictures of the run are also in report.html, in its directory.

    Args:
        name: the name of the experiment's folder inside `runs_dir`.
        config: a dataclass with the fields `steps` and `run`; see `open_run`.
        train: `(config, run) -> result`, which ends with `run.finish`.
        report: `result -> text`. It must read results of earlier revisions too.
        label: the beginning of the run directory's name.
        check: raises InputError for a mistake that the range of a single field cannot express.
        prepare: called before JAX starts its devices.
        former: the experiment that this one was part of.
        contents: digests of files that the run depends on, by field; see `open_run`.

    Raises:
        InputError: if a field is out of its range, or as `open_run`.
        RunError: as `open_run`.
    """
    ranges.check(config)
    check(config)
    flags = config.run  # type: ignore[attr-defined]  # see above
    waited = watchdog.seconds()
    parallel.start(flags.coordinator, flags.processes, flags.process, waited=waited)
    prepare()
    with open_run(name, config, label=label, former=former, contents=contents) as run:
        if (result := run.result()) is not None:
            path = run.directory / "result.json"
            with content_of(path, "Move it away, and run the same command again"):
                text = report(result)
        else:
            result = train(config, run)
            text = report(result)
            run.page(text)
        print(text)  # last, because its reader may be gone
    return result
