#!/usr/bin/env bash
# Orbax joins the keys of a tree with dots. Two arrays whose joined keys are equal are saved as one.
#
#   {'a.b': x, 'a': {'b': y}}   and   {'a.0': x, 'a': [y]}
#
# Both trees are saved and restored without an error, and x and y come back with the same numbers.
# Whose numbers these are differs from run to run.
#
#   bash findings/orbax-dotted-keys.sh
#
# Exit status: 0 while it is so, and not 0 when it has changed or could not be tried. It needs
# Python 3.11 or later with venv, and a network. It leaves nothing behind.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    orbax-checkpoint==0.12.8 jax==0.10.2 jaxlib==0.10.2 tensorstore==0.1.86

cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PROGRAM'
import sys
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

print(", ".join(f"{name} {version(name)}" for name in ("orbax-checkpoint", "jax", "tensorstore")))
x, y = np.array([1.0, 1.0]), np.array([2.0, 2.0])
as_stated = True
for name, tree in {"dict": {"a.b": x, "a": {"b": y}}, "list": {"a.0": x, "a": [y]}}.items():
    with ocp.CheckpointManager(Path.cwd() / name) as manager:
        manager.save(0, args=ocp.args.StandardSave(tree))
        manager.wait_until_finished()
        target = jax.tree.map(np.zeros_like, tree)
        found = manager.restore(0, args=ocp.args.StandardRestore(target))
    as_stated = as_stated and np.array_equal(*jax.tree.leaves(found))
    print(f"expected: {tree}\nseen:     {found}")
print("as stated: two arrays became one" if as_stated else "changed: see the lines above")
sys.exit(0 if as_stated else 1)
PROGRAM
