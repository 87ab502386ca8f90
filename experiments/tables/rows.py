"""The rows of the tables: the flags that make each, and what its paper has.

The first rows of a table are the most important ones. A row is what `scripts/run EXPERIMENT FLAGS`
computes. Its result is `results/TABLE/ROW.json`.
"""

import importlib
import shlex
from typing import Any, Literal, NamedTuple

from experiments.reports.few_shot import METHODS, PAPER, PROTONET
from experiments.reports.sinusoid import PAPER as SINES
from jaxdl.errors import InputError
from jaxdl.runs import cli

TITLES = METHODS | {
    "linear_probe": "linear probe",
    "nearest_centroid": "pixels, nearest class mean",
    "nearest_centroid_cosine": "pixels, nearest class mean by cosine",
    "raw_logistic": "pixels, logistic regression",
}


Experiment = Literal[
    "few_shot",
    "sinusoid",
    "regression_1d",
    "regression_2d",
    "tabular",
    "mnist",
    "cifar10",
    "sequences",
    "long_memory",
    "limited_data",
    "capacity",
    "transfer",
    "multitask",
    "many_questions",
    "continual",
    "dqn",
    "navigation",
]


class Row(NamedTuple):
    """A training and its test.

    `minutes` is an estimate on two CPU cores, for a row that nobody has run yet. `paper` is the
    figure of the paper, with "(recalled)" where its source was not at hand. `recipe` counts the
    paper's training steps, 0 where it does not say.
    """

    name: str
    flags: str
    minutes: float
    paper: str = ""
    recipe: int = 0


class Table(NamedTuple):
    """Rows of one experiment that share flags."""

    experiment: Experiment
    flags: str
    rows: tuple[Row, ...]
    device: Literal["CPU", "GPU"] = "CPU"
    """Where the rows should run. `minutes` are those of two CPU cores in any case."""
    keeps_weights: bool = True
    """Whether the weights of a row are stored, so that `--check` can test them again."""

    def row(self, name: str) -> Row:
        """The row of a name.

        Raises:
            InputError: if there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise InputError(
            f"there is no row {name!r}. Choose one of {' '.join(r.name for r in self.rows)}"
        )

    def arguments(self, row: Row) -> list[str]:
        """The flags of a row as the words of a command line."""
        return shlex.split(f"{self.flags} {row.flags}")

    def configuration(self, row: Row) -> Any:
        """The configuration of a row, of the experiment's own class."""
        return configuration(self.experiment, self.arguments(row))


def configuration(experiment: Experiment, arguments: list[str]) -> Any:
    """The configuration of the experiment that reads these words."""
    module = importlib.import_module(f"experiments.{experiment}")
    options = {"presets": "PRESETS", "complete": "complete"}
    found = {option: getattr(module, name, None) for option, name in options.items()}
    return cli.configuration(module.Config, arguments, **found)


def _numbers(learner: str, minutes: float, flags: str = "") -> Row:
    return Row(learner, flags or f"--learner {learner}", minutes)


_NUMBERS = (
    _numbers("maml", 2),
    _numbers("fomaml", 3, "--estimator first-order"),
    _numbers("protonet", 2),
    _numbers("r2d2", 3),
    _numbers("rfs", 5),
    _numbers("reptile", 5),
    _numbers("anil", 2),
    _numbers("boil", 3),
    _numbers("meta_sgd", 3),
    _numbers("maml_pp", 8),
    _numbers("meta_curvature", 4),
    _numbers("imaml", 5),
    _numbers("es_maml", 4, "--learner es_maml --seeds 1"),
    _numbers("metaoptnet", 3),
    _numbers("proto_maml", 3),
    _numbers("matchingnet", 2),
    _numbers("relationnet", 3),
    _numbers("simpleshot", 2),
    _numbers("linear_probe", 2),
    _numbers("baseline_pp", 2),
    _numbers("lstm_learner", 4),
    _numbers("pfn", 6),
    _numbers("snail", 25, "--learner snail --seeds 1"),
)

_OMNIGLOT = "--preset omniglot-5way-1shot"
_PROTOTYPES = f"{_OMNIGLOT}-protonet"
_EQUAL_COST = (
    Row("maml", f"{_OMNIGLOT} --steps 4000", 21, PAPER["omniglot", 5, 1], 60_000),
    Row("protonet", f"{_PROTOTYPES} --steps 5700 --eval-every 950", 24, PROTONET["omniglot", 5, 1]),
    Row(
        "fomaml",
        f"{_OMNIGLOT} --estimator first-order --steps 7600 --eval-every 1900 --log-every 190",
        33,
        "98.3 (Reptile's paper)",
        60_000,
    ),
    Row(
        "reptile",
        f"{_OMNIGLOT} --learner reptile --shots 10 --test-shots 1 --tasks 5 --test-inner-steps 50"
        " --steps 6000 --eval-every 2000 --eval-episodes 200 --test-episodes 1000",
        23,
        "97.7",
        100_000,
    ),
    Row(
        "anil",
        f"{_OMNIGLOT} --learner anil --steps 7900 --eval-every 1580 --log-every 158",
        18,
        "none for 5-way",
    ),
    Row(
        "r2d2",
        f"{_PROTOTYPES} --learner r2d2 --lr 0.005 --queries 9 --steps 2100 --eval-every 350",
        20,
        "98.9 (recalled)",
    ),
    Row("rfs", f"{_OMNIGLOT} --learner rfs --steps 33000 --eval-every 5500", 27, "none"),
    Row("finetune", f"{_OMNIGLOT} --learner finetune --steps 33000 --eval-every 5500", 27, "none"),
)


DECIDES = {
    "base": ("nothing", ""),
    "loss-sum": ("inner loss: the sum over classes", "--inner-loss sum-over-classes"),
    "norm-support": ("batch norm: statistics of the support set", "--norm support"),
    "norm-example": ("batch norm: statistics of each example", "--norm example"),
    "first-order": (
        "derivative: first order",
        "--estimator first-order --steps 950 --eval-every 475 --log-every 95",
    ),
    "test-queries-15": ("queries per class in the test: 15", "--test-queries 15"),
    "rotations-none": ("rotations: none", "--rotations none"),
    "rotations-classes": ("rotations: each makes a class", "--rotations classes"),
    "resize-nearest": ("28 x 28 by the nearest pixel", "--omniglot-resize nearest"),
    "head-normal": ("head drawn with a deviation of 1", "--head normal"),
    "test-steps-1": ("inner steps in the test: 1", "--test-inner-steps 1"),
    "test-steps-10": ("inner steps in the test: 10", "--test-inner-steps 10"),
    **{
        f"split-{seed}": (f"split drawn by seed {seed}", f"--omniglot-seed {seed}")
        for seed in (2, 3, 4, 5)
    },
}
"""What each row of the table `what-decides` changes, and its flags."""
_BASE = (
    f"{_OMNIGLOT} --pretraining-steps 0 --seeds 3 --steps 500 --eval-every 250 --eval-episodes 300"
    " --test-episodes 2000"
)


def _sines(learner: str, minutes: float, paper: str = "", recipe: int = 0, flags: str = "") -> Row:
    return Row(learner, f"--learner {learner}{flags}", minutes, paper, recipe)


_SINES = (
    _sines("maml", 3, f"{SINES[1]} with 5 shots", 70_000),
    Row("fomaml", "--estimator first-order", 3, recipe=70_000),
    _sines("cavia", 2, "0.19 ± 0.02 with 10 shots (recalled)"),
    _sines("anil", 2),
    _sines("meta_sgd", 4),
    _sines("reptile", 9),
    _sines("r2d2", 3),
    _sines("meta_curvature", 4),
    _sines("maml_pp", 10),
    _sines("imaml", 28),
    _sines("lstm_learner", 8, flags=" --steps 20000"),
    _sines("es_maml", 8, flags=" --steps 7000"),
    _sines("cnp", 12),
    _sines("tnp_d", 60),
)


def _in_full(ways: int, shots: int, minutes: float) -> Row:
    name = f"{ways}way-{shots}shot"
    figure = PAPER["omniglot", ways, shots]
    return Row(name, f"--preset omniglot-{name}", minutes, figure, 60_000)


def _prototypes(ways: int, shots: int) -> Row:
    name = f"{ways}way-{shots}shot"
    return Row(name, f"--preset omniglot-{name}-protonet", 65, PROTONET["omniglot", ways, shots])


def _cifar(shots: int) -> Row:
    name = f"5way-{shots}shot"
    return Row(name, f"--preset cifar_fs-{name}", 1200, PAPER["cifar_fs", 5, shots], 60_000)


def _one(experiment: Experiment, name: str, minutes: float, flags: str = "") -> Table:
    """A table of one row, whose run compares several methods."""
    return Table(experiment, flags, (Row(name, "", minutes),), keeps_weights=False)


TABLES = {
    "numbers-5way-1shot": Table(
        "few_shot", "--steps 1000 --pretraining-steps 0 --seeds 3", _NUMBERS
    ),
    "numbers-in-full": Table(
        "few_shot",
        "--seeds 3",
        (
            Row("maml", "", 3),
            Row("protonet", "--learner protonet", 3),
            Row("norm-support", "--norm support", 3),
        ),
        keeps_weights=False,
    ),
    "omniglot-5way-1shot": Table("few_shot", "--pretraining-steps 0 --seeds 3", _EQUAL_COST),
    "sine-waves": Table("sinusoid", "--seeds 3", _SINES),
    "sine-start": _one("sinusoid", "code", 10, "--init code --seeds 10"),
    "what-decides": Table(
        "few_shot",
        _BASE,
        tuple(Row(name, flags, 4) for name, (_, flags) in DECIDES.items()),
        keeps_weights=False,
    ),
    "curves": Table(
        "regression_1d",
        "--steps 20000 --seeds 3",
        (
            Row("cnp", "--learner cnp", 22, recipe=100_000),
            Row("tnp_d", "--learner tnp_d", 80, recipe=100_000),
            Row("canp", "--learner canp", 80, recipe=100_000),
        ),
        keeps_weights=False,
    ),
    "pictures": Table(
        "regression_2d",
        "--steps 8000",
        (Row("cnp", "--learner cnp", 15, recipe=120_000),),
        keeps_weights=False,
    ),
    "tabular": Table("tabular", "--steps 1600", (Row("tabular", "", 20),)),
    "mnist": Table(
        "mnist",
        "--seeds 3",
        (
            Row("tutorial", "--preset tutorial", 1),
            Row("mlp", "--preset mlp", 5),
            Row("cnn", "--preset cnn", 16),
        ),
        keeps_weights=False,
    ),
    "cifar10": _one("cifar10", "lenet", 15, "--seeds 3"),
    "sequences": _one("sequences", "mnist-rows", 14, "--seeds 3"),
    "long-memory": _one("long_memory", "adding", 17, "--seeds 3"),
    "limited-data": _one("limited_data", "mnist", 35),
    "capacity": _one("capacity", "mnist", 3),
    "transfer": _one("transfer", "mnist", 33),
    "multitask": _one("multitask", "two-digits", 25),
    "many-questions": _one("many_questions", "ten-digits", 18),
    "continual": Table(
        "continual",
        "--steps 20000",
        (
            Row("rotations", "", 30),
            Row("permutations", "--data permutations", 26),
            Row("rotations-mer1", "--methods mer1 --seeds 1", 16),
        ),
        keeps_weights=False,
    ),
    "dqn": _one("dqn", "cartpole", 2),
    "navigation": _one("navigation", "goals", 7),
    "omniglot-maml": Table(
        "few_shot",
        "--pretraining-steps 0 --seeds 3",
        (_in_full(5, 1, 240), _in_full(20, 1, 1900), _in_full(5, 5, 1100), _in_full(20, 5, 9500)),
        device="GPU",
    ),
    "omniglot-protonet": Table(
        "few_shot",
        "--pretraining-steps 0 --seeds 3",
        (_prototypes(5, 1), _prototypes(20, 1), _prototypes(5, 5), _prototypes(20, 5)),
        device="GPU",
    ),
    "cifar-fs-maml": Table(
        "few_shot", "--pretraining-steps 0 --seeds 3", (_cifar(1), _cifar(5)), device="GPU"
    ),
}
"""The tables by name. Their `minutes` come from the steps per second of docs/speed.md."""
