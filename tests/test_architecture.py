"""The plan of the house: imports point down, big dependencies have one home, files stay short."""

import ast
import importlib.util
import sys
from collections.abc import Iterator

import pytest

from tests.project import CORE, EXTRAS, ROOT

# One plan for this test and for `scripts/rooms`, which draws it.
_spec = importlib.util.spec_from_file_location("_rooms", ROOT / "scripts" / "_rooms.py")
assert _spec
assert _spec.loader
rooms = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(rooms)
HOUSE = rooms.House(ROOT)
TREES, FILES = HOUSE.trees, list(HOUSE.trees)
imported, own_imports = rooms.imported, HOUSE.imports

# Where a package may be imported: these files and folders, and nowhere else.
HOMES = {
    "flax": ("jaxdl/models/",),
    "grain": ("jaxdl/data/",),
    "gymnax": ("jaxdl/rl/gymnax.py",),
    "matplotlib": ("jaxdl/report/pictures.py",),
    "orbax": ("jaxdl/runs/checkpoint.py",),
    "PIL": ("jaxdl/data/",),
    "sklearn": (
        "jaxdl/data/",
        "jaxdl/recipes/table_baselines.py",
        "jaxdl/recipes/tabular_classifier.py",
        "experiments/tabular.py",
    ),
    "tensorboardX": ("jaxdl/runs/journal.py",),
    "tensorflow_datasets": ("jaxdl/data/prepare/tfds.py",),
    "tyro": ("jaxdl/runs/cli.py", "jaxdl/recipes/prepare.py"),
    "yaml": ("jaxdl/runs/recorded.py",),
    # Never: they are slow to import, or belong to the peers alone.
    "equinox": (),
    "haiku": (),
    "tensorflow": (),
    "torch": (),
}
EXPERIMENTS = [name for name in FILES if name.startswith("experiments/") and name.count("/") == 1]
EXPERIMENTS.remove("experiments/__init__.py")
PMAP = ("jaxdl/parallel.py",)

FOR_OTHERS = {"importlib_resources"}
"""Imported by a dependency, which does not say so."""

# Lines of code in a file: not its imports, docstrings, comments and blank lines, which may grow.
# Alarms, not laws: who passes one looks for a second idea in the file, and where there is none
# enters it here with a figure of its own and the reason.
ALARMS = {"jaxdl/meta/": 80, "jaxdl/": 190, "experiments/": 260, "experiments/reports/": 190}
LONG = {
    "jaxdl/runs/run.py": (241, "what a run directory promises: parts, result, page, best, loop"),
    "jaxdl/data/prepare/tfds.py": (230, "the one user of tensorflow_datasets: arrays and streams"),
}
AFTER_CONFIG = 120
"""Lines of an experiment after its configuration and presets, which may be as long as they like."""


def lines_of_code(name: str) -> int:
    """Lines that are no import, docstring or comment, and not blank."""
    aside: set[int] = set()
    for node in ast.walk(TREES[name]):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if text or isinstance(node, ast.Import | ast.ImportFrom):
            aside |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate((ROOT / name).read_text("utf-8").splitlines(), 1)
    return sum(i not in aside and bool(line.split("#")[0].strip()) for i, line in lines)


def imported_for(node: ast.AST, extra: str = "", lazily: bool = False) -> Iterator[tuple[str, str]]:
    """Each import with the extra for which it is made: `with extra(NAME)` inside a function."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return  # nothing is imported when the program runs
    lazily = lazily or isinstance(node, ast.FunctionDef)
    if isinstance(node, ast.With) and lazily:
        for call in (item.context_expr for item in node.items):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "extra":
                extra = ast.literal_eval(call.args[0])
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from ((module, extra) for module in imported(node))
    for child in ast.iter_child_nodes(node):
        yield from imported_for(child, extra, lazily)


def home_is_allowed(name: str, homes: tuple[str, ...]) -> bool:
    return any(name == home or (home[-1] == "/" and name.startswith(home)) for home in homes)


def test_imports_point_down():
    up = {arrow: names for arrow, names in HOUSE.arrows().items() if rooms.points_up(arrow)}
    assert not up


def test_an_arrow_up_is_seen(tmp_path):
    """In a house of two rooms: a file of the lower one imports the upper one."""
    for name, text in {
        "jaxdl/losses.py": "from jaxdl.meta import maml\n",
        "jaxdl/meta/maml.py": "import jaxdl.errors\n",
        "jaxdl/errors.py": "",
        "experiments/x.py": "from jaxdl import errors\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    arrows = rooms.House(tmp_path).arrows()
    assert {arrow: rooms.points_up(arrow) for arrow in arrows} == {
        ("losses", "meta"): True,
        ("meta", "errors"): False,
        ("experiments", "errors"): False,
    }
    assert list(rooms.drawing(tmp_path))[-2:] == [
        "UP: losses -> meta, from jaxdl/losses.py",
        "arrows that point up: 1",
    ]
    (tmp_path / "jaxdl" / "train_utils.py").write_text("")
    with pytest.raises(KeyError, match=r"train_utils.py: enter its room"):
        rooms.room_of("jaxdl/train_utils.py")


def test_few_rooms_and_few_loose_files():
    assert sum("/" not in room for room in rooms.FLOOR_OF) <= 22
    assert len(rooms.loose(ROOT)) <= 9


def test_experiments_do_not_import_each_other():
    """But what one says and draws stands in a file of its name in `reports`, and what reports share
    in a file whose name begins with `_`. The tables run them all."""
    for name in FILES:
        if name.startswith("experiments/") and not name.startswith("experiments/tables/"):
            own = name.replace("experiments/", "experiments/reports/")
            others = {other for other in own_imports(name) - {own} if "reports/_" not in other}
            assert not [other for other in others if other.startswith("experiments/")]


def test_there_is_no_import_cycle():
    graph = {name: own_imports(name) for name in FILES}
    while free := [name for name, others in graph.items() if not others & graph.keys()]:
        for name in free:
            del graph[name]
    assert not graph, f"these import each other: {sorted(graph)}"


@pytest.mark.parametrize("name", FILES)
def test_each_big_dependency_has_one_home(name):
    for module in imported(TREES[name]):
        package = module.partition(".")[0]
        if package in HOMES:
            assert home_is_allowed(name, HOMES[package]), f"{name} imports {package}"


@pytest.mark.parametrize("name", FILES)
def test_pmap_has_one_home(name):
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("jax.pmap", "jax.distributed"):
            assert name in PMAP


@pytest.mark.parametrize("name", FILES)
def test_an_extra_is_imported_where_it_is_needed_and_missed_in_words(name):
    """A run from cached arrays does without most of them, and they are slow to import."""
    for module, extra in imported_for(TREES[name]):
        package = module.partition(".")[0]
        if package not in CORE:
            wanted = {name for name, packages in EXTRAS.items() if package in packages}
            assert {extra} & wanted or not wanted, f"import {package} `with extra({wanted})`"


def test_the_dependencies_are_the_packages_that_are_imported():
    modules = {module.partition(".")[0] for tree in TREES.values() for module in imported(tree)}
    found = modules - sys.stdlib_module_names - {"jaxdl", "experiments"}
    assert found == CORE.union(*EXTRAS.values()) - FOR_OTHERS


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("jaxdl/")])
def test_what_is_public_has_a_docstring(name):
    def bare(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from bare(node.body, f"{node.name}.")

    assert not list(bare(TREES[name].body)), f"without a docstring in {name}"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_says_what_it_is_and_how_long_it_takes(name):
    lines = (ast.get_docstring(TREES[name]) or "").splitlines()
    assert lines
    assert lines[0].endswith("."), "the first line is a sentence: scripts/run prints it"
    for start in ("Command: scripts/run ", "Runtime: ", "Result: "):
        assert any(line.startswith(start) for line in lines), f"{name} lacks {start}"


@pytest.mark.parametrize("name", FILES)
def test_files_are_short(name):
    lines = lines_of_code(name)
    alarm = min(limit for folder, limit in ALARMS.items() if name.startswith(folder))
    if name in LONG:
        assert alarm < lines <= LONG[name][0], f"{name} has {lines} lines of code: correct its row"
    else:
        assert lines <= alarm, f"{name} has {lines} lines of code; {alarm} want a reason"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_short_after_its_configuration(name):
    nodes = TREES[name].body
    last = next(i for i, node in enumerate(nodes) if getattr(node, "name", "") == "Config")
    presets = [
        node.end_lineno - node.lineno + 1
        for node in nodes[last + 1 :]
        if isinstance(node, ast.Assign | ast.AnnAssign) and "Config" in ast.dump(node)
    ]
    length = len((ROOT / name).read_text("utf-8").splitlines()) - nodes[last].end_lineno
    assert length - sum(presets) <= AFTER_CONFIG


def test_the_list_of_long_files_names_files():
    assert set(LONG) <= set(FILES)


def test_few_annotations_say_any():
    """A bare `Any` says nothing; `PyTree` says that it is a tree of arrays."""
    bare = total = 0
    for name, tree in TREES.items():
        if not name.startswith("jaxdl/"):
            continue
        for node in ast.walk(tree):
            found: list[ast.expr | None] = []
            if isinstance(node, ast.FunctionDef):
                args = node.args
                every = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
                found = [node.returns, *(arg.annotation for arg in every if arg)]
            elif isinstance(node, ast.AnnAssign):
                found = [node.annotation]
            total += len([each for each in found if each])
            bare += len([each for each in found if each and ast.unparse(each) == "Any"])
    assert total > 3000
    assert bare / total < 0.05, f"{bare} of {total} annotations are a bare Any"
