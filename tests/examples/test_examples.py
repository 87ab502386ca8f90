"""Three algorithms of one's own, on data of one's own, in at most 40 lines by the public face."""

import ast
import importlib
from pathlib import Path

import pytest

import jaxdl

FOLDER = Path(__file__).parent
# The metric, its bound after training, and after one step: who learns nothing fails.
LEARN = {
    "reptile": ("loss", 0.075, 0.08),
    "anil": ("accuracy", 0.65, 0.45),
    "neural_process": ("loss", 1.0, 1.3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARN)
def test_it_learns(name):
    metric, after, before = LEARN[name]
    main = importlib.import_module(f"tests.examples.{name}").main
    trained, untrained = (main(steps)[metric].mean for steps in (main.__defaults__[0], 1))
    sign = 1 if metric == "accuracy" else -1
    assert sign * trained > sign * after
    assert sign * untrained < sign * before


@pytest.mark.parametrize("name", LEARN)
def test_it_is_short_and_needs_the_face_alone(name):
    text = (FOLDER / f"{name}.py").read_text()
    assert len([line for line in text.splitlines() if line.strip()]) <= 40
    tree = ast.parse(text)
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert modules == ["typing"]
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "jaxdl"
    }
    assert used <= set(jaxdl.__all__)
