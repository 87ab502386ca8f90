"""Without the extras every module is imported, and whatever needs one says how to install it."""

import importlib
import os
import re
import subprocess
import sys

import pytest

from jaxdl.data.prepare import tfds
from jaxdl.data.prepare.decode import decode_image
from jaxdl.data.sets.digits import digits_few_shot
from jaxdl.errors import InputError, extra
from jaxdl.recipes import prepare
from jaxdl.report import pictures
from jaxdl.rl.gymnax import gymnax
from jaxdl.runs import cli
from jaxdl.runs.journal import Journal
from tests.project import EXTRAS, ROOT
from tests.tiny_run import Config

# Of these optax brings absl. Grain and TFDS bring array_record.
ABSENT = sorted(set().union(*EXTRAS.values()) - {"absl"} | {"array_record"})


def test_every_module_is_imported_without_the_extras():
    script = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT}))
import importlib, pkgutil
import jaxdl
for module in pkgutil.walk_packages(jaxdl.__path__, "jaxdl."):
    importlib.import_module(module.name)
print(len(sys.modules))
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def block(monkeypatch, package):
    for module in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, module, None)


def of_stream(folder):
    (folder / "mnist" / "3.0.1").mkdir(parents=True)
    tfds.stream("mnist", "train", batch_size=1, seed=0, data_dir=folder)


NEEDED = [
    ("sklearn", "scikit-learn", "data", lambda folder: digits_few_shot("train")),
    ("PIL", "pillow", "data", lambda folder: decode_image(b"", 3)),
    ("PIL", "pillow", "data", lambda folder: tfds._png(b"")),
    ("tensorflow_datasets", "tensorflow-datasets", "data", lambda d: tfds.open_split(d, "train")),
    ("grain", "grain", "data", of_stream),
    ("absl", "absl-py", "data", of_stream),
    ("gymnax", "gymnax", "rl", lambda folder: gymnax("CartPole-v1")),
    ("tensorboardX", "tensorboardX", "tensorboard", lambda d: Journal(d, tensorboard=True)),
]


@pytest.mark.parametrize(("module", "package", "name", "call"), NEEDED)
def test_a_call_that_needs_a_missing_package_names_its_cure(
    module, package, name, call, tmp_path, monkeypatch
):
    block(monkeypatch, module)
    with pytest.raises(InputError) as refused:
        call(tmp_path)
    sentences = f'{package} is not installed. Install it: pip install "jaxdl[{name}]"'
    assert str(refused.value) == sentences


@pytest.mark.parametrize(
    ("call", "module", "sentences"),
    [
        (
            lambda: prepare.main(["--help"]),
            "tyro",
            'tyro is not installed. Install it: pip install "jaxdl[cli]"',
        ),
        (
            lambda: cli.command_line(print, Config),
            "tyro",
            'tyro is not installed. Install it: pip install "jaxdl[cli]"',
        ),
        (
            lambda: prepare.main(["digits"]),
            "sklearn",
            'scikit-learn is not installed. Install it: pip install "jaxdl[data]"',
        ),
    ],
)
def test_a_command_that_needs_a_missing_package_ends_in_its_cure(
    call, module, sentences, monkeypatch, capsys
):
    block(monkeypatch, module)
    try:
        code = call()
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert capsys.readouterr() == ("", f"error: {sentences}\n")


def test_a_picture_without_matplotlib_is_a_line_and_no_failure(tmp_path, monkeypatch):
    block(monkeypatch, "matplotlib")
    line = pictures.save(tmp_path / "curve.png", lambda figure: None, size=(1, 1))
    assert (
        line == 'no curve.png: matplotlib is not installed. Install it: pip install "jaxdl[plots]"'
    )
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("import no_such_package", "no_such_package is not installed. Install it: pip"),
        ("from math import no_such", r"math cannot be imported (cannot import name 'no_such'"),
    ],
)
def test_a_package_that_cannot_be_imported_says_why(tmp_path, monkeypatch, line, why):
    (tmp_path / "broken_package.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=re.escape(why)), extra("data"):
        importlib.import_module("broken_package")


def test_other_errors_of_an_import_pass_through():
    with pytest.raises(ZeroDivisionError), extra("data"):
        _ = 1 / 0
