"""The learner that a user chose: by name, or a function of the user's own file.

`find` finds it, its own arguments become flags, `build` makes it on a net, and `with_learner` and
`from_arguments` put it into a configuration.
"""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax

from jaxdl import parallel
from jaxdl.errors import InputError
from jaxdl.meta.tried import check_learner
from jaxdl.recipes.learners import KNOWN, LEARNERS, REGRESSORS, TAKEN, AnyLearner, Make
from jaxdl.runs import flags
from jaxdl.runs.code import Code, is_file_name, load_code
from jaxdl.runs.identity import Contents
from jaxdl.runs.keywords import hints_of, keywords_of
from jaxdl.runs.run import Run
from jaxdl.types import Embedding, LossFn, MetaLearner, Model, PyTree, Sampler, TransferLearner

Config = TypeVar("Config")


class Choice(NamedTuple):
    """A learner that a user chose: its name in tables, its function, and its code if it is own."""

    name: str
    make: Make
    code: Code | None = None

    @property
    def contents(self) -> Contents:
        """The digest of the code, for `open_run`."""
        return {} if self.code is None else {"learner": self.code.digest}

    def check(self, learner: AnyLearner, sample: Sampler, loss: LossFn) -> None:
        """Tries a learner of own code on one task.

        Raises:
            InputError: as `check_learner`.
        """
        if self.code is not None:
            labelled = isinstance(learner, TransferLearner)
            check_learner(learner, sample(jax.random.key(0)), loss if labelled else None)

    def keep(self, run: Run) -> None:
        """Keeps a copy of own code in the run's directory, for `load_run`."""
        if self.code is not None and parallel.is_first():
            self.code.keep(run.directory / "learner")


def find(name: str, learners: Mapping[str, Make] = LEARNERS) -> Choice:
    """The learner of a name in `learners`, or of a function in a file.

    >>> find("protonet").name
    'protonet'

    Raises:
        InputError: if there is none, or it is not `(model, loss, *, ways, ...)` with an annotation
            of its first argument.
    """
    if not is_file_name(name):
        if name not in learners:
            raise InputError(
                f"`learner={name}`{_what_it_is(name)}: choose among {' '.join(learners)}, or give a"
                " function of your own as path/to/file.py:function"
            )
        return Choice(name, learners[name])
    code = load_code(name)
    if code.name in TAKEN:
        raise InputError(f"`learner={name}`: the name {code.name} is taken. Rename your function")
    _check_signature(code.name, code.function)
    return Choice(code.name, code.function, code)


def _what_it_is(name: str) -> str:
    """Why an experiment may not offer a learner."""
    if name in LEARNERS.keys() ^ REGRESSORS.keys():
        return f" predicts {'classes' if name in LEARNERS else 'numbers'}"
    return " takes one number from -2.5 to 2.5 as input" if name == "convcnp" else ""


def _check_signature(name: str, function: Make) -> None:
    """Refuses a function that cannot be called as a learner.

    Raises:
        InputError: naming the argument.
    """
    arguments = inspect.signature(function).parameters.values()
    positional = [each.name for each in arguments if each.kind is not each.KEYWORD_ONLY]
    wanted = f"a learner takes (model, loss, *, ways, ...), but {name}"
    if len(positional) < 2:
        raise InputError(f"{wanted} has no second argument for the loss. Add `loss`")
    if len(positional) > 2:
        raise InputError(f"{wanted} takes {positional[2]} by position. Write `*,` before it")
    if "ways" not in {each.name for each in arguments}:
        raise InputError(f"{wanted} has no argument ways. Add `ways: int` after `*,`")
    if hints_of(function).get(positional[0]) not in (Model, Embedding):
        raise InputError(
            f"the argument {positional[0]} of {name} does not say which net it is. Write"
            f" `{positional[0]}: jaxdl.Model` for a net with an output per class, or"
            f" `{positional[0]}: jaxdl.Embedding` for one whose outputs are features"
        )


def name_of(config: Mapping[str, Any]) -> str:
    """The name of a run's learner in its result, by its configuration; runs of before had MAML.

    >>> name_of({}), name_of({"learner": "path/to/mine.py:my_learner"})
    ('maml', 'my_learner')
    """
    return str(config.get("learner", "maml")).rpartition(":")[2]


def own_keywords(make: Make) -> type:
    """The dataclass of a learner's own arguments.

    >>> own_keywords(LEARNERS["maml"])(inner_lr=0.1).inner_lr
    0.1

    Raises:
        InputError: if one of them cannot be a flag.
    """
    return keywords_of(make, known=KNOWN)


def own_hints(make: Make) -> dict[str, Any]:
    """The types of a learner's own arguments by name."""
    return {field.name: field.type for field in dataclasses.fields(own_keywords(make))}


def build(
    make: Make,
    net: Callable[[int | None], Model],
    loss: LossFn,
    *,
    ways: int,
    classes: int | None,
    own: Mapping[str, Any],
) -> AnyLearner:
    """The learner that `make` makes.

    Args:
        net: the net with so many outputs, or with features for None.
        classes: number of training classes.
        own: the learner's own arguments.

    Raises:
        InputError: if it is no learner.
    """
    first = next(iter(inspect.signature(make).parameters))
    hint = hints_of(make).get(first)
    known = {"ways": ways, "classes": classes}
    taken = {name: known[name] for name in inspect.signature(make).parameters if name in known}
    made = make(net(None if hint == Embedding else ways), loss, **taken, **own)
    if not isinstance(made, MetaLearner | TransferLearner):
        raise InputError(
            f"{make.__name__} returned {type(made).__name__}. Return a MetaLearner, or a"
            " TransferLearner, which trains on labelled examples"
        )
    return made


def build_for_curves(
    make: Make,
    net: Callable[[int | None], Model],
    loss: LossFn,
    *,
    own: Mapping[str, Any],
    tasks: str,
) -> MetaLearner:
    """The learner of curves with one output that `make` makes; see `build`.

    Args:
        tasks: what the curves are called in the message.

    Raises:
        InputError: if it is no learner, or trains on labelled examples.
    """
    learner = build(make, net, loss, ways=1, classes=None, own=own)
    if isinstance(learner, TransferLearner):
        raise InputError(
            f"`learner={make.__name__}` trains on the labels of classes, and {tasks} have none."
            " Choose another"
        )
    return learner


def refuse_other_parameters(
    train: AnyLearner, test: AnyLearner, train_x: PyTree, test_x: PyTree
) -> None:
    """Refuses test tasks for which a learner needs other parameters than for training tasks.

    Raises:
        InputError: naming the fields.
    """
    key = jax.random.key(0)
    trained, tested = (
        jax.eval_shape(train.init, key, train_x),
        jax.eval_shape(test.init, key, test_x),
    )
    if trained != tested:
        raise InputError(
            "the parameters of this learner depend on the number of ways or on the shape of the"
            " inputs. Leave out `test_ways=` and `test_data=`, or choose a learner whose parameters"
            " do not, such as `learner=protonet`"
        )


# ---- configurations


def with_learner(
    default: Config, name: str, learners: Mapping[str, Make] = LEARNERS, **own: Any
) -> Config:
    """A configuration with another learner; its field `method` holds the learner's own arguments.

    Its class is that of `default` with the fields of `method` typed, for `command_line`. A form of
    the same learner keeps the values of `default`. Another has its own defaults, and is tested
    after as many inner steps as it trains with.

    Raises:
        InputError: as `find` and `own_keywords`, or if there is no such argument, or one has the
            name of another field.
    """
    make = find(name, learners).make
    kind = own_keywords(make)
    fields = {field.name for field in dataclasses.fields(kind)}
    if unknown := own.keys() - fields:
        raise InputError(
            f"{name} has no argument {min(unknown)}. Choose among {', '.join(sorted(fields))}"
        )
    values = {field.name: getattr(default, field.name) for field in dataclasses.fields(default)}  # type: ignore[arg-type]
    method, given = values["method"], learners.get(values["learner"], make)
    # First-order MAML is a form of MAML: both have one function below, and share a preset's values.
    if type(method) is own_keywords(given) and inspect.unwrap(make) is inspect.unwrap(given):
        own = {**{key: value for key, value in vars(method).items() if key in fields}, **own}
    elif "test_inner_steps" in values:
        values["test_inner_steps"] = None
    values |= {"learner": _absolute(name), "method": kind(**own)}
    made = typing.cast(Config, _with_method(_base(type(default)), kind)(**values))
    if taken := flags.flags_of(_base(type(default))).keys() & fields:
        raise InputError(
            f"{flags.flag(min(taken))} is a flag of the experiment already. Rename the argument"
            f" {min(taken)} of {name.rpartition(':')[2]}"
        )
    return made


def from_arguments(
    default: Config, arguments: Sequence[str], learners: Mapping[str, Make] = LEARNERS
) -> Config:
    """`with_learner`, by the flag `--learner` among the arguments of a command line."""
    name = flags.given(arguments, "learner") or default.learner  # type: ignore[attr-defined]
    made = with_learner(default, name, learners)
    own, taken = own_hints(find(name, learners).make), flags.flags_of(type(made))
    for other, make in learners.items():
        for field in own_hints(make).keys() - taken.keys():
            if flags.given(arguments, field) is not None:
                has = ", ".join(map(flags.flag, own)) or "none of its own"
                raise InputError(
                    f"{flags.flag(field)} is a flag of the learner {other}, and {name} has {has}."
                    " Leave it out"
                )
    return made


def _absolute(name: str) -> str:
    if not is_file_name(name):
        return name
    path, _, function = name.rpartition(":")
    return f"{Path(path).expanduser().resolve()}:{function}"


def _base(kind: type) -> type:
    """The class that an experiment defines, of a class of `_with_method`."""
    return kind.__mro__[1] if hasattr(kind, "_of_learner") else kind


@functools.cache
def _with_method(base: type, method: type) -> type:
    field = ("method", method, dataclasses.field(default_factory=method))
    namespace = {"_of_learner": True, "__module__": base.__module__}
    options: dict[str, Any] = {"bases": (base,), "frozen": True, "namespace": namespace}
    return dataclasses.make_dataclass(base.__name__, [field], **options)
