"""The rooms of the house and the imports between them; `scripts/rooms` draws them.

A room is a file of jaxdl, or a folder with the files in it; a folder inside may be a room of its
own. Standard library only: it runs before there is an environment.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

# Floors from the bottom up. A room imports from its own files and from lower floors, never
# sideways: `meta` does not know `train`, they meet in a recipe.
FLOORS = (
    ("errors",),
    ("types",),
    ("files", "losses", "optim", "parallel", "xla"),
    ("grads",),
    ("data/prepare", "models/layers", "replay"),
    ("data", "models"),
    ("data/sets", "report"),
    ("meta", "multitask", "train"),
    ("continual", "rl"),
    ("runs",),
    ("recipes",),
    ("experiments",),
    ("experiments/tables",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def room_of(name: str) -> str:
    """The innermost room that holds a file, say `models/layers` of `jaxdl/models/layers/conv.py`.

    Raises:
        KeyError: if no room holds it.
    """
    place = name.removesuffix(".py").removesuffix("/__init__").removeprefix("jaxdl/")
    while place not in FLOOR_OF:
        if "/" not in place:
            raise KeyError(f"{name}: enter its room in FLOORS of scripts/_rooms.py")
        place = place.rpartition("/")[0]
    return place


class House:
    """The parsed files of `jaxdl` and `experiments` below a root folder, by name."""

    def __init__(self, root: Path) -> None:
        paths = [p for package in ("jaxdl", "experiments") for p in (root / package).rglob("*.py")]
        names = sorted(path.relative_to(root).as_posix() for path in paths)
        self.texts = {name: (root / name).read_text("utf-8") for name in names}
        self.trees = {name: ast.parse(text) for name, text in self.texts.items()}
        self._modules = {
            name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name
            for name in names
        }

    def imports(self, name: str) -> set[str]:
        """The files of the house that a file imports."""
        found = set()
        for module in imported(self.trees[name]):
            while module and module not in self._modules:
                module = module.rpartition(".")[0]
            if module and module != "jaxdl":
                found.add(self._modules[module])
        return found - {name}

    def arrows(self) -> dict[tuple[str, str], list[str]]:
        """The files that make an arrow from a room to another, by `(from, to)`."""
        found: dict[tuple[str, str], list[str]] = {}
        for name in self.trees:
            if name == "jaxdl/__init__.py":  # the face, which imports nothing
                continue
            for room in {room_of(other) for other in self.imports(name)} - {room_of(name)}:
                found.setdefault((room_of(name), room), []).append(name)
        return found


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module, and every name that may be one, that the code imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def points_up(arrow: tuple[str, str]) -> bool:
    """Up, or sideways, which is no better."""
    return FLOOR_OF[arrow[1]] >= FLOOR_OF[arrow[0]]


def loose(root: Path) -> list[str]:
    """The files directly in `jaxdl`, in no folder."""
    return sorted(path.name for path in (root / "jaxdl").glob("[!.]*") if path.is_file())


def drawing(root: Path) -> Iterator[str]:
    """The lines of the drawing, from the top floor down."""
    house = House(root)
    arrows = house.arrows()
    for floor in reversed(range(len(FLOORS))):
        for room in FLOORS[floor]:
            own = [name for name in house.trees if _holds(room, name)]
            lines = sum(len(house.texts[name].splitlines()) for name in own)
            size = f"{len(own)} file{'s' * (len(own) != 1)}, {lines:,} lines"
            below = " ".join(sorted(to for here, to in arrows if here == room))
            yield f"{floor:2}  {room:14}  {size:22}  -> {below or 'nothing'}"
    inside = sum("/" in room for room in FLOOR_OF)
    yield ""
    yield f"{len(FLOOR_OF) - inside} rooms and {inside} inside them, {len(arrows)} arrows"
    yield f"loose in jaxdl: {' '.join(loose(root))}"
    up = {arrow: names for arrow, names in arrows.items() if points_up(arrow)}
    for (here, there), names in sorted(up.items()):
        yield f"UP: {here} -> {there}, from {', '.join(names)}"
    yield f"arrows that point up: {len(up)}"


def _holds(room: str, name: str) -> bool:
    return name != "jaxdl/__init__.py" and room_of(name) == room


if __name__ == "__main__":
    lines = list(drawing(Path(sys.argv[1])))
    print("\n".join(lines))
    sys.exit(any(line.startswith("UP: ") for line in lines))
