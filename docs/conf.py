"""The site: Sphinx and MyST-NB. scripts/docs builds it. The pages of docs/api are made here."""

import ast
import inspect
from pathlib import Path

import jaxdl

ROOT = Path(__file__).resolve().parents[1]

project = "jaxdl"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "jaxdl"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_search_summary = False  # a browser does not fetch the text of pages from disk
html_show_sourcelink = False
html_show_copyright = False
html_theme_options = {"footer_icons": [], "source_repository": ""}

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
# Links from the pages to files of the repository, such as ../jaxdl/meta/maml.py.
suppress_warnings = ["myst.xref_missing"]

nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "build" / "docs" / "notebooks")
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True

default_role = "literal"  # `code` in docstrings is what it is in Markdown
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

ROOMS = {
    "types": ("Nouns", "What all parts exchange: batches, episodes, models, learners, states."),
    "losses": (
        "Losses",
        "`(prediction, target, weight) -> (loss, metrics)`, means over examples.",
    ),
    "grads": ("Gradients", "Makers and wrappers of `GradFn`, the type that all algorithms share."),
    "meta": ("Learners", "Meta-learners and baselines, the inner loop, estimators and solvers."),
    "models": ("Models", "Nets, and adapters for those of linen, nnx and PyTorch."),
    "data": ("Data", "Episodes and examples from your arrays, and the data sets."),
    "train": ("Training", "Steps, streams, the compiled loop, evaluation on whole sets."),
    "recipes": ("Fit and score", "The short way: train, test, load a run."),
    "runs": ("Runs", "Directories with checkpoints, resume, logs; the command line; weights."),
    "optim": ("Optimisers", "Slow weights, frozen and new layers."),
    "multitask": ("Multi-task", "One net for many tasks, and combinations of their gradients."),
    "continual": ("Continual", "Learning one task after another."),
    "replay": ("Replay", "Memories of past items, written in place."),
    "rl": ("Reinforcement learning", "DQN."),
    "report": ("Intervals", "Means with 95 % intervals."),
    "errors": ("Errors", "What is raised for a mistake of the user."),
}
"""Title and first sentence of each page of the reference."""


def public_names() -> dict[str, list[tuple[str, str]]]:
    """`(module, name)` of each public name by the room that defines it, in the face's order."""
    tree = ast.parse((ROOT / "jaxdl" / "__init__.pyi").read_text("utf-8"))
    found: dict[str, list[tuple[str, str]]] = {room: [] for room in ROOMS}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found[node.module.split(".")[1]] += [(node.module, each.name) for each in node.names]
    return found


def directive(module: str, name: str) -> str:
    """What autodoc shows of a public name: a function, a class with its fields, or a type."""
    found = getattr(jaxdl, name)
    if inspect.isfunction(found):
        return f".. autofunction:: jaxdl.{name}"
    if inspect.isclass(found):
        return f".. autoclass:: jaxdl.{name}\n   :members:"
    return f".. autodata:: {module}.{name}\n   :no-value:"


def write_reference() -> None:
    """Writes a page per room into docs/api, and nothing where the page is up to date."""
    folder = ROOT / "docs" / "api"
    folder.mkdir(exist_ok=True)
    pages = {"index": "# Reference\n\nEvery public name is `jaxdl.NAME`.\n\n```{toctree}\n"}
    for room, names in public_names().items():
        title, sentence = ROOMS[room]
        parts = [f"# {title}\n\n{sentence}\n"]
        parts += [f"```{{eval-rst}}\n{directive(*name)}\n```\n" for name in names]
        pages[room] = "\n".join(parts)
        pages["index"] += f"{room}\n"
    pages["index"] += "```\n"
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def setup(app: object) -> None:
    """Called by Sphinx before it reads the pages."""
    del app
    write_reference()
