"""The plan of the house: imports point down, big dependencies have one home, files stay short."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the bottom up. A room (a file of jaxdl, or a folder with the files in it) imports from its
# own files and from lower layers, never sideways: `meta` does not know `train`, they meet in a
# recipe.
LAYERS = (
    {"errors"},
    {"types"},
    {"files", "losses", "optim", "parallel", "xla"},
    {"grads"},
    {"data/prepare", "models/layers", "replay"},
    {"data", "models"},
    {"data/sets", "report"},
    {"meta", "multitask", "train"},
    {"continual", "rl"},
    {"runs"},
    {"recipes"},
    {"experiments"},
)
ROOMS = frozenset().union(*LAYERS)

# Where a package may be imported: these files and folders, and nowhere else.
HOMES = {
    "flax": ("jaxdl/models/",),
    "grain": ("jaxdl/data/",),
    "gymnax": ("jaxdl/rl/gymnax.py",),
    "matplotlib": ("jaxdl/report/pictures.py",),
    "orbax": ("jaxdl/runs/checkpoint.py",),
    "PIL": ("jaxdl/data/",),
    "rich": ("jaxdl/runs/run.py", "jaxdl/runs/cli.py", "jaxdl/recipes/prepare.py"),
    "sklearn": ("jaxdl/data/",),
    "tensorboardX": ("jaxdl/runs/journal.py",),
    "tensorflow_datasets": ("jaxdl/data/prepare/tfds.py",),
    "tyro": ("jaxdl/runs/cli.py", "jaxdl/recipes/prepare.py", "experiments/"),
    "yaml": ("jaxdl/runs/identity.py",),
    # Never: they are slow to import, or belong to the peers alone.
    "tensorflow": (),
    "torch": (),
}
PMAP = ("jaxdl/parallel.py",)

# Imported inside the function that needs them: a run from cached arrays does without.
LAZY = {"tensorflow_datasets", "grain", "PIL", "sklearn", "tensorboardX", "matplotlib", "gymnax"}

# Lines of code in a file: not its imports, docstrings, comments and blank lines, which may grow.
# Alarms, not laws: who passes one looks for a second idea in the file, and where there is none
# enters it here with a figure of its own and the reason.
ALARMS = {"jaxdl/meta/": 80, "jaxdl/": 190, "experiments/": 150}
LONG = {
    "jaxdl/runs/run.py": (205, "what a run directory promises: parts, result, best, the loop"),
    "jaxdl/data/prepare/tfds.py": (230, "the one user of tensorflow_datasets: arrays and streams"),
    "experiments/_multitask.py": (215, "two cases, each with tables, a finding and a picture"),
    "experiments/cifar10.py": (235, "three nets, each with the recipe and augmentation it needs"),
    "experiments/continual.py": (200, "eight methods with their published settings, and the data"),
    "experiments/dqn.py": (185, "twenty-odd flags of the recipe; three memories, two evaluations"),
    "experiments/few_shot.py": (295, "seven presets, two baselines, and what decides a number"),
    "experiments/limited_data.py": (170, "four ways to learn, four data sets, sizes of nets"),
    "experiments/mnist.py": (160, "three presets, two nets, and every flag of their recipes"),
    "experiments/multitask.py": (240, "two cases, two kinds of nets, fourteen methods"),
    "experiments/navigation.py": (175, "four methods, and an evaluation that learns and plays"),
    "experiments/sequences.py": (225, "three tasks and three cells beside one another"),
    "experiments/sinusoid.py": (170, "the paper's experiment with its two baselines and pictures"),
    "experiments/transfer.py": (155, "four data sets, five methods, and what they share"),
}

FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for package in ("jaxdl", "experiments")
    for path in (ROOT / package).rglob("*.py")
)
TREES = {name: ast.parse((ROOT / name).read_text("utf-8")) for name in FILES}
MODULES = {
    name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in FILES
}


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module, and every name that may be one, that the code imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(name: str) -> set[str]:
    """The files of this project that a file imports."""
    found = set()
    for module in imported(TREES[name]):
        while module and module not in MODULES:
            module = module.rpartition(".")[0]
        if module and module != "jaxdl":
            found.add(MODULES[module])
    return found - {name}


def lines_of_code(name: str) -> int:
    """Lines that are no import, docstring or comment, and not blank."""
    aside: set[int] = set()
    for node in ast.walk(TREES[name]):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if text or isinstance(node, ast.Import | ast.ImportFrom):
            aside |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate((ROOT / name).read_text("utf-8").splitlines(), 1)
    return sum(i not in aside and bool(line.split("#")[0].strip()) for i, line in lines)


def room(name: str) -> str:
    """The innermost room that holds a file."""
    place = name.removesuffix(".py").removesuffix("/__init__").removeprefix("jaxdl/")
    while place not in ROOMS:
        place = place.rpartition("/")[0]
        assert place, f"{name}: enter this room in LAYERS"
    return place


def layer(name: str) -> int:
    return next(height for height, rooms in enumerate(LAYERS) if room(name) in rooms)


def top_level(tree: ast.Module) -> ast.Module:
    """The statements that run when the module is imported, function bodies left out."""

    class Outside(ast.NodeTransformer):
        def visit_FunctionDef(self, node):
            return None

        visit_AsyncFunctionDef = visit_FunctionDef

    return Outside().visit(ast.parse(ast.unparse(tree)))


def home_is_allowed(name: str, homes: tuple[str, ...]) -> bool:
    return any(name == home or (home[-1] == "/" and name.startswith(home)) for home in homes)


@pytest.mark.parametrize("name", [name for name in FILES if name != "jaxdl/__init__.py"])
def test_imports_point_down(name):
    for other in own_imports(name):
        assert room(other) == room(name) or layer(other) < layer(name), f"{name} imports {other}"


def test_experiments_do_not_import_each_other():
    """But what one says and draws may stand in a file beside it, `_` and its own name."""
    for name in FILES:
        if name.startswith("experiments/"):
            own = name.replace("experiments/", "experiments/_")
            others = own_imports(name) - {own}
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


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("jaxdl/")])
def test_slow_imports_wait_until_they_are_needed(name):
    packages = {module.partition(".")[0] for module in imported(top_level(TREES[name]))}
    assert not packages & LAZY


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


@pytest.mark.parametrize(
    "name", [name for name in FILES if name.startswith("experiments/") and "/_" not in name]
)
def test_an_experiment_says_what_it_is_and_how_long_it_takes(name):
    lines = (ast.get_docstring(TREES[name]) or "").splitlines()
    assert lines
    assert lines[0].endswith("."), "the first line is a sentence: scripts/run prints it"
    for start in ("Command: scripts/run ", "Runtime: ", "Result: "):
        assert any(line.startswith(start) for line in lines), f"{name} lacks {start}"


@pytest.mark.parametrize("name", FILES)
def test_files_are_short(name):
    lines = lines_of_code(name)
    alarm = next(limit for folder, limit in ALARMS.items() if name.startswith(folder))
    if name in LONG:
        assert alarm < lines <= LONG[name][0], f"{name} has {lines} lines of code: correct its row"
    else:
        assert lines <= alarm, f"{name} has {lines} lines of code; {alarm} want a reason"


def test_the_list_of_long_files_names_files():
    assert set(LONG) <= set(FILES)
