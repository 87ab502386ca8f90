"""Which run a directory holds: names that stay what they were, and fields that came later."""

import dataclasses
import importlib
from pathlib import Path

import pytest
import yaml

from jaxdl.errors import InputError
from jaxdl.runs.checkpoint import Checkpoints
from jaxdl.runs.config import RunFlags
from jaxdl.runs.identity import added, check_config, digest, load_config, record_config
from jaxdl.runs.identity import refuse_other_steps as refuse


@pytest.mark.parametrize(
    ("experiment", "digests"),
    [
        ("airbench", ["0ef6db54"]),
        ("cifar10", ["2856536f", "2856536f", "ce0717c4"]),
        ("continual", ["cb34a303"]),
        ("dqn", ["5db79a1b"]),
        ("few_shot", ["49fdc58d", "49fdc58d", "bd02d5bc", "b697dfeb", "5244016b", "895f3cae",
                      "037e1110", "62327c5c", "fbaa693c", "488a6230", "ac73d02e", "dd88ca09",
                      "8854fb40"]),
        ("limited_data", ["ed649cdd"]),
        ("mnist", ["ba4ff6b4", "ba4ff6b4", "b1b87337", "d3ae0a8f"]),
        ("multitask", ["487e4706"]),
        ("navigation", ["96ebab4b"]),
        ("sequences", ["cac04631", "cac04631"]),
        ("long_memory", ["c09a6f2b", "c09a6f2b", "89c77327"]),
        ("regression_1d", ["620327b7"]),
        ("regression_2d", ["b04b7241"]),
        ("sinusoid", ["ef5fa836"]),
        ("tabular", ["a3fe9d8e", "a3fe9d8e", "deed29a7"]),
        ("transfer", ["7be41e22"]),
    ],
)  # fmt: skip
def test_the_same_command_finds_the_run_of_an_earlier_version(experiment, digests):
    """Of the default and of every preset. Whoever changes a default changes the digest here; a new
    field is `added` and changes none."""
    module = importlib.import_module(f"experiments.{experiment}")
    presets = {"": module.Config(), **getattr(module, "PRESETS", {})}
    former = getattr(module, "FORMER", None)
    assert [digest(each, former=former) for each in presets.values()] == digests


@dataclasses.dataclass(frozen=True)
class Before:
    steps: int = 6
    lr: float = 0.1


@dataclasses.dataclass(frozen=True)
class After:
    steps: int = 6
    decay_steps: int = added(0)
    widths: tuple[int, ...] = added((1, 2))
    lr: float = 0.1


def test_a_field_that_came_later_is_part_of_the_identity_if_it_is_given():
    assert digest(After()) == digest(Before())
    assert digest(After(lr=0.2)) == digest(Before(lr=0.2)) != digest(Before())
    assert digest(After(decay_steps=3)) != digest(Before())
    assert digest(After(widths=(1,))) != digest(After(widths=(2,)))


def test_a_run_of_before_goes_on_with_the_default_and_with_nothing_else(tmp_path):
    record_config(tmp_path, Before())
    assert load_config(tmp_path, After) == After()
    assert check_config(tmp_path, After())
    with pytest.raises(InputError, match="was made with `decay_steps=0`, not 3"):
        check_config(tmp_path, After(decay_steps=3))


def test_a_run_of_now_goes_on_with_what_it_has(tmp_path):
    record_config(tmp_path, After(decay_steps=3))
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["config"]["decay_steps"] == 3
    assert check_config(tmp_path, After(decay_steps=3, steps=9))
    with pytest.raises(InputError, match="was made with `decay_steps=3`, not 0"):
        check_config(tmp_path, After())


def test_other_steps_are_refused_once_a_run_has_begun(tmp_path):
    record_config(tmp_path, Before())
    (tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp").mkdir(parents=True)
    refuse(tmp_path, 9, "decay_steps")
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(2, {"w": 0.0})
    refuse(tmp_path, 6, "decay_steps")
    for steps in (4, 9):
        with pytest.raises(InputError, match=rf"made with `steps=6`,.* {steps} .*`decay_steps=`"):
            refuse(tmp_path, steps, "decay_steps")


@dataclasses.dataclass(frozen=True)
class Typed:
    steps: int = 3
    hidden: tuple[int, ...] = (8, 8)
    where: Path = Path("a")
    maybe: tuple[str, ...] | None = None
    run: RunFlags = dataclasses.field(default_factory=RunFlags)


def test_tuples_and_paths_come_back_as_they_were(tmp_path):
    config = Typed(hidden=(4,), where=Path("b/c"), maybe=("x",))
    record_config(tmp_path, config)
    loaded = load_config(tmp_path, Typed)
    assert loaded == config
    assert hash(loaded) == hash(config)
