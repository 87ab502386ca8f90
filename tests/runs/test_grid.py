"""Command lines of grids: their combinations, their parts, and what is refused."""

import dataclasses
import itertools

import pytest

from jaxdl.errors import InputError
from jaxdl.runs.config import RunFlags, Seeds
from jaxdl.runs.grid import MOST, asked, named, with_values


@dataclasses.dataclass(frozen=True)
class Method:
    inner_lr: float = 0.4


@dataclasses.dataclass(frozen=True)
class Config:
    lr: float = 0.1
    hidden: tuple[int, ...] = (8,)
    norm: bool = False
    method: Method = Method()
    random: Seeds = Seeds()
    run: RunFlags = RunFlags()


def test_every_combination_once_and_the_other_flags_in_each():
    words = "--norm --lr 0.1 -0.3 --hidden 4 4 --inner-lr=1 2 3 --seeds 3 -h".split()  # noqa: SIM905
    grid = asked(words, Config())
    assert grid.axes == {"lr": ("0.1", "-0.3"), "inner_lr": ("1", "2", "3")}
    rest = ["--norm", "--hidden", "4", "4", "--seeds", "3", "-h"]
    assert grid.arguments == [
        [*rest, "--lr", lr, "--inner-lr", inner]
        for lr in ("0.1", "-0.3")
        for inner in ("1", "2", "3")
    ]
    assert grid.values()[1] == {"lr": "0.1", "inner_lr": "2"}


@pytest.mark.parametrize("words", ["", "--lr 0.1", "--hidden 4 4", "--hidden_x 1 2", "4 5 --lr 1"])
def test_one_value_each_is_no_grid(words):
    assert asked(words.split(), Config()) is None


def test_texts_that_look_like_one_number_are_two_values():
    @dataclasses.dataclass(frozen=True)
    class Texts:
        code: str = ""

    assert len(asked(["--code", "1", "01"], Texts()).arguments) == 2


@pytest.mark.parametrize("parts", [1, 2, 4, 6])
def test_shards_divide_the_grid(parts):
    words = ["--lr", "1", "2", "--inner-lr", "1", "2", "3", "--shard"]
    found = [asked([*words, f"{n}/{parts}"], Config()).part() for n in range(1, parts + 1)]
    assert sorted(itertools.chain(*found)) == list(range(6))
    assert max(map(len, found)) - min(map(len, found)) <= 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--lr 1 2 --shard 0/2", "--shard 0/2: write I/N"),
        ("--lr 1 2 --shard 2/1", "--shard 2/1: write I/N"),
        ("--lr 1 2 --shard", "write I/N"),
        ("--lr 1 2 --shard \u0661/\u0662", "write I/N"),
        ("--lr 1 2 --shard 1/3", "the grid has 2 runs"),
        ("--lr 1 --shard 1/2", "Give a flag several values"),
        ("--lr 1 2 1", "`lr=1 2 1`: give each value once"),
        ("--lr 0.001 1e-3", "`lr=0.001 1e-3`: give each value once"),
        (f"--lr {' '.join(map(str, range(MOST + 1)))}", "choose at most 1,000"),
    ],
)
def test_what_is_no_grid_is_refused(words, says):
    with pytest.raises(InputError, match=says):
        asked(words.split(), Config())


def test_a_name_gets_the_values_and_a_configuration_too():
    config = Config(run=RunFlags(name="mine"))
    assert named(config, {"lr": "1e-3", "inner_lr": "2"}).run.name == "mine-lr1e-3-inner_lr2"
    assert named(Config(), {"lr": "1"}) == Config()
    changed = with_values(config, {"inner_lr": 0.7})
    assert changed == dataclasses.replace(config, method=Method(0.7))
