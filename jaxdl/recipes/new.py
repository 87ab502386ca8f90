"""`jaxdl new learner NAME`: a learner that works, to be changed, with a test to be filled in."""

import dataclasses
import keyword
from pathlib import Path
from typing import Literal

from jaxdl.errors import InputError, RunError
from jaxdl.files.atomic import write_text
from jaxdl.recipes.learners import LEARNERS

LEARNER = '''"""{title}: say what it learns and how (authors and year, arXiv:...).

The template is MAML with a learned rate. Change `init`, `adapt` and
`predict`. Give a `grad` of your own if the meta-gradient is not the gradient of the query loss.
"""

import jax
import jax.numpy as jnp

{imports}


{signature}
    """{title}.

    Args:
        inner_lr: First value of the learned rate.
        inner_steps: Gradient steps in a task.
    """
    del ways  # the number of classes; a learner with prototypes needs it
    value = {nouns}objective(model, loss)

    def init(key, x):
        return {{"net": model.init(key, x), "rate": jnp.float32(inner_lr)}}

    def adapt(key, params, support, steps=None):
        net = params["net"]
        for _ in range(inner_steps if steps is None else steps):
            grads, _ = jax.grad(value, has_aux=True)(net, None, support)
            net = jax.tree.map(lambda leaf, grad: leaf - params["rate"] * grad, net, grads)
        return net

    def predict(adapted, x, *, key=None, weight=None):
        return model.apply(adapted, x, key=key, weight=weight)

    grad = {nouns}through_adaptation(adapt, predict, loss)
    return {nouns}MetaLearner(init, adapt, predict, grad)
'''

TYPED = (
    ("def init(key, x):", "def init(key: Key, x: PyTree) -> Params:"),
    (
        "def adapt(key, params, support, steps=None):",
        "def adapt(key: Key, params: Params, support: PyTree, steps: int | None = None) -> Params:",
    ),
    (
        "def predict(adapted, x, *, key=None, weight=None):",
        "def predict(\n        adapted: Params, x: PyTree, *, key: Key | None = None,"
        " weight: Weight | None = None\n    ) -> PyTree:",
    ),
)
"""What the rooms of jaxdl have and a first sketch does not need: the types of inner functions."""

TEST = '''"""{title}: an answer that you can compute by hand, and that a wrong formula misses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl
{imports}

KEY = jax.random.key(0)


def test_it_learns_a_task():
    """The support set itself is classified, after a few steps."""
    learner = {name}(jaxdl.mlp((16, 3)), jaxdl.cross_entropy, ways=3)
    x, y = 3 * jnp.eye(3), jnp.arange(3)
    params = learner.init(KEY, x)
    adapted = learner.adapt(KEY, params, jaxdl.Batch(x, y), 20)
    assert learner.predict(adapted, x).argmax(axis=1).tolist() == [0, 1, 2]


def test_the_meta_gradient_is_that_of_finite_differences():
    """On a net of one weight, whose loss is (w x - y)^2."""
    model = jaxdl.Model(
        lambda key, x: jnp.float32(0.5),
        lambda params, x, *, key=None, weight=None: params * x,
    )
    learner = {name}(model, jaxdl.mean_squared_error, ways=1)
    one = jnp.ones((1, 1))
    episode = jaxdl.Episode(jaxdl.Batch(one, 2 * one), jaxdl.Batch(one, 3 * one))
    params = learner.init(KEY, one)
    grads, metrics = learner.grad(KEY, jnp.int32(0), params, episode)

    def loss(params):
        adapted = learner.adapt(KEY, params, episode.support)
        return np.mean((np.asarray(learner.predict(adapted, one)) - 3) ** 2)

    leaves, structure = jax.tree.flatten(params)
    for i, found in enumerate(jax.tree.leaves(grads)):
        up, down = (
            jax.tree.unflatten(structure, [v + d * (j == i) for j, v in enumerate(leaves)])
            for d in (1e-2, -1e-2)
        )
        np.testing.assert_allclose(found, (loss(up) - loss(down)) / 2e-2, rtol=1e-2)
    np.testing.assert_allclose(metrics["loss"], loss(params), rtol=1e-5)


def test_the_answer_by_hand():
    """Replace it: write the numbers of the paper's formula for a case small enough for paper."""
    pytest.fail("write what {name} must give, and compare")
'''

ROW = '    Row("{name}", partial({name}, ways=WAYS), drops=False),\n'


LONGEST = 26
"""Letters of a name. With more, the lines of the templates would have to be broken."""


PROGRAM = """\
import jax, jaxdl, optax
from {name} import {name}
images, labels, _ = jaxdl.numbers_few_shot("train")
sample = jaxdl.few_shot(images, labels, ways=5, shots=1, queries=5)
learner = {name}(jaxdl.conv4_omniglot(5), jaxdl.cross_entropy, ways=5)
options = {{"tx": optax.adam(0.001), "steps": 500, "tasks": 8, "key": jax.random.key(0)}}
params, history = jaxdl.fit(learner, sample, **options, report=print)
"""
"""What trains a learner that lies outside a clone."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Write a learner that works, to be changed, and a test of it to be filled in."""

    what: Literal["learner"]
    """What to write."""
    name: str
    """Name of its function and file, such as my_maml."""
    folder: Path = Path()
    """Where to write. A clone of jaxdl gets files in its rooms, another folder gets two files."""


def main(arguments: Arguments) -> None:
    """Writes the files and says what to do next."""
    for line in new_learner(arguments.name, arguments.folder):
        print(line)


def new_learner(name: str, folder: Path) -> list[str]:
    """Writes a learner and its test; returns what was written and what to do next.

    In a clone of jaxdl the learner goes to `jaxdl/meta`, is one of `LEARNERS`, and has a row in the
    contract suite.

    Raises:
        InputError: if the name is no name of a function, or is taken, or a file is there already.
        RunError: if a file cannot be written.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name.lower() != name:
        raise InputError(f"{name!r} is no name of a function. Choose lower-case letters and _")
    if len(name) > LONGEST:
        raise InputError(f"{name} is too long. Choose at most {LONGEST} letters")
    if name in LEARNERS:
        raise InputError(f"there is a learner {name} already. Choose another name")
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}. Choose another `folder=`")
    house = (folder / "jaxdl" / "meta" / "maml.py").is_file()
    files = _in_the_house(name, folder) if house else _outside(name, folder)
    new = [path for path in files if path.name.removeprefix("test_") == f"{name}.py"]
    if there := [path for path in new if path.exists()]:
        raise InputError(f"{there[0]} is there already. Choose another name")
    for path, text in files.items():
        write_text(path, text)
    changed = [f"{'wrote' if path in new else 'changed'} {path}" for path in files]
    if house:
        return [
            *changed,
            f"Change {new[0].name}. Then fill in the test: scripts/test -k {name}",
            f"Train it: scripts/run few_shot --learner {name}",
        ]
    return [
        *changed,
        f"Change {new[0].name}. Then fill in the test: python -m pytest {new[1].name}",
        f"Train it in a clone of jaxdl: scripts/run few_shot --learner {new[0].resolve()}:{name}",
        "Or in a program of your own:",
        PROGRAM.format(name=name),
    ]


def _outside(name: str, folder: Path) -> dict[Path, str]:
    title = _title(name)
    return {
        folder / f"{name}.py": LEARNER.format(
            name=name,
            title=title,
            nouns="jaxdl.",
            imports="import jaxdl",
            signature=_signature(name, "jaxdl."),
        ),
        folder / f"test_{name}.py": TEST.format(
            name=name, title=title, imports=f"from {name} import {name}"
        ),
    }


def _in_the_house(name: str, folder: Path) -> dict[Path, str]:
    """The learner in its room, its row in the contract suite, and its name on the command line."""
    title = _title(name)
    imports = (
        "from jaxdl.grads import objective\n"
        "from jaxdl.meta.base import through_adaptation\n"
        "from jaxdl.types import Key, LossFn, MetaLearner, Model, Params, PyTree, Weight"
    )
    signature = _signature(name, "")
    learner = LEARNER.format(name=name, title=title, nouns="", imports=imports, signature=signature)
    for bare, typed in TYPED:
        learner = learner.replace(bare, typed)
    module = f"from jaxdl.meta.{name} import {name}"
    suite = folder / "tests" / "meta" / "test_contract.py"
    table = folder / "jaxdl" / "recipes" / "learners.py"
    row = ROW.format(name=name)
    return {
        folder / "jaxdl" / "meta" / f"{name}.py": learner,
        folder / "tests" / "meta" / f"test_{name}.py": TEST.format(
            name=name, title=title, imports=module
        ),
        suite: _with_import(_after(suite, "META = [\n", row), module),
        table: _with_import(
            _after(table, "LEARNERS: dict[str, Make] = {\n", f'    "{name}": {name},\n'), module
        ),
    }


def _signature(name: str, nouns: str) -> str:
    """The first line of the learner, or the first three if it is long, as ruff formats it."""
    arguments = (
        f"model: {nouns}Model, loss: {nouns}LossFn, *, ways: int, inner_lr: float = 0.1,"
        " inner_steps: int = 2"
    )
    line = f"def {name}({arguments}) -> {nouns}MetaLearner:"
    if len(line) <= 100:
        return line
    return f"def {name}(\n    {arguments}\n) -> {nouns}MetaLearner:"


def _after(path: Path, mark: str, text: str) -> str:
    """The text of a file with `text` after `mark`."""
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    if mark not in old:
        raise RunError(f"{path} has no line {mark.strip()!r}. Add the learner there by hand")
    return old.replace(mark, mark + text, 1)


def _with_import(text: str, line: str) -> str:
    """A file with one more import, before the first one that comes later in the alphabet."""
    lines = text.splitlines(keepends=True)
    later = (i for i, each in enumerate(lines) if each.startswith("from jaxdl.") and each > line)
    lines.insert(next(later), f"{line}\n")
    return "".join(lines)


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()
