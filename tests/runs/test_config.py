"""Configurations: ranges in annotations, nested dataclasses that are flat on disk."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated

import pytest

from jaxdl.errors import InputError
from jaxdl.runs.config import (
    Count,
    Natural,
    Positive,
    Range,
    Rate,
    RunFlags,
    Seeds,
    Share,
    Start,
    Validation,
    check,
    each_once,
    flat,
    seeds_below,
    unflat,
)
from jaxdl.runs.identity import digest


@dataclasses.dataclass(frozen=True)
class Config:
    steps: Annotated[int, Range(1, 9)] = 4
    rate: Positive = 0.1
    share: Share = 0.5
    dropout: Rate = 0.5
    widths: tuple[Count, ...] = (3, 4)
    decay_steps: Natural = 0
    start: Start = Start()
    validation: Validation = Validation(10, eval_every=4)
    random: Seeds = Seeds(seeds=3)
    run: RunFlags = RunFlags(log_every=2)


FLAT = {
    "steps": 4,
    "rate": 0.1,
    "share": 0.5,
    "dropout": 0.5,
    "widths": (3, 4),
    "decay_steps": 0,
    "init_from": None,
    "init_except": (),
    "validation": 10,
    "eval_every": 4,
    "seed": 0,
    "seeds": 3,
}


def test_nested_fields_stand_beside_the_others():
    found = flat(Config())
    assert found.pop("run") == dataclasses.asdict(RunFlags(log_every=2))
    assert found == FLAT


@pytest.mark.parametrize(
    "changes", [{}, {"seeds": 5}, {"init_from": Path("x"), "init_except": ("a",), "steps": 2}]
)
def test_unflat_is_the_way_back_and_keeps_the_nested_defaults(changes):
    config = unflat(Config, changes)
    assert flat(config) == {**flat(Config()), **changes}
    assert unflat(Config, {**flat(config), "run": config.run}) == config


def test_a_field_too_many_is_a_type_error():
    with pytest.raises(TypeError, match="epochs"):
        unflat(Config, {"epochs": 3})


def test_two_fields_of_one_name_are_refused():
    """Or one of them would be missing from the identity of a run."""
    nested = dataclasses.make_dataclass("Nested", [("steps", int, 3)], frozen=True)
    both = dataclasses.make_dataclass("Both", [("steps", int, 4), ("inner", nested, nested())])
    with pytest.raises(InputError, match="two fields of the configuration are called steps"):
        flat(both())


def test_a_configuration_whose_annotations_name_nothing_has_fields_all_the_same():
    kind = dataclasses.make_dataclass("Config", [("steps", "NoSuchType", 4)])
    assert flat(kind()) == {"steps": 4}


def test_nesting_is_no_part_of_the_identity():
    """Runs of the time when the fields were not nested keep their names."""
    fields = [(name, type(value), dataclasses.field(default=value)) for name, value in FLAT.items()]
    before = dataclasses.make_dataclass("Config", [*fields, ("run", RunFlags, RunFlags())])
    assert digest(before()) == digest(Config())
    assert digest(unflat(Config, {"seeds": 4})) != digest(Config())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, None),
        ({"steps": 1}, None),
        ({"steps": 9}, None),
        ({"steps": 0}, "`steps=0`: choose at least 1"),
        ({"steps": 10}, "`steps=10`: choose at most 9"),
        ({"rate": 1e-30}, None),
        ({"rate": 0.0}, "`rate=0.0`: choose a number above 0"),
        ({"rate": -1.0}, "`rate=-1.0`: choose a number above 0"),
        ({"rate": math.inf}, "`rate=inf`: choose a number above 0"),
        ({"rate": math.nan}, "`rate=nan`: choose a number above 0"),
        ({"share": 1.0}, None),
        ({"share": math.nan}, "`share=nan`: choose at least 0"),
        ({"dropout": 1.0}, "`dropout=1.0`: choose at most 0.999"),
        ({"widths": (3, 0)}, "`widths=0`: choose at least 1"),
        ({"decay_steps": -1}, "`decay_steps=-1`: choose at least 0"),
        ({"decay_steps": 2**31}, "`decay_steps=2147483648`: choose at most 2,147,483,647"),
        ({"seeds": 0}, "`seeds=0`: choose at least 1"),
        ({"validation": -1}, "`validation=-1`: choose at least 0"),
        (
            {"eval_every": 3},
            "`eval_every=3` must be a multiple of `log_every=2`. Change one of them",
        ),
        ({"run": RunFlags(log_every=0)}, "`log_every=0`: choose at least 1"),
        ({"run": RunFlags(save_minutes=math.nan)}, "`save_minutes=nan`: choose at least 0"),
    ],
)
def test_one_check_walks_all_ranges(changes, says):
    config = unflat(Config, changes)
    if says is None:
        check(config)
    else:
        with pytest.raises(InputError) as error:
            check(config)
        assert str(error.value) == says


def test_names_are_known_and_given_once():
    each_once("method", ["a", "b"], ("a", "b", "c"))
    for values, says in {
        (): "`method=`: give at least one name, and each name once",
        ("a", "a"): "`method=a a`: give at least one name, and each name once",
        ("a", "x"): "`method=x`: choose among a b c",
    }.items():
        with pytest.raises(InputError) as error:
            each_once("method", values, ("a", "b", "c"))
        assert str(error.value) == says


def test_the_last_training_seed_stays_below_the_keys_of_tests():
    seeds_below(Seeds(seed=6, seeds=3), 10)  # 6, 7, 8
    with pytest.raises(InputError, match="`seed=7`: choose at most 6"):
        seeds_below(Seeds(seed=7, seeds=3), 10)


def test_kinds_of_annotations_and_what_yaml_makes_of_them():
    @dataclasses.dataclass(frozen=True)
    class Nested:
        pairs: tuple[tuple[int, int], ...] = ()
        names: list[tuple[int, int]] = dataclasses.field(default_factory=list)

    found = unflat(Nested, {"pairs": [[1, 2], [3, 4]], "names": [[1, 2]]})
    assert found == Nested(((1, 2), (3, 4)), [[1, 2]])
