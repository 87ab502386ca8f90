#!/usr/bin/env bash
# tyro cannot be imported in an interactive session whose last value is a tuple with a list in it.
#
# Python's prompt, and doctest, keep the last value as `_` among the builtins. While it is imported
# tyro collects all values of the builtins into a set. It leaves out those that are not hashable by
# their type, and a tuple is hashable by its type, whatever it holds.
#
#   bash findings/tyro-last-value.sh
#
# Exit status: 0 while it is so, and not 0 when it has changed or could not be tried. It needs
# Python 3.11 or later with venv, and a network. It leaves nothing behind.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tyro==1.0.17

cd "$folder"
"$folder/venv/bin/python" - <<'PROGRAM'
import subprocess
import sys
from importlib.metadata import version

print(f"tyro {version('tyro')}")


def session(*lines):
    """The last line of an error that Python's prompt tells after these lines."""
    text = "\n".join([*lines, ""])
    found = subprocess.run([sys.executable, "-iq"], input=text, capture_output=True, text=True)
    told = [line for line in found.stderr.splitlines() if "Error: " in line]
    return told[-1] if told else "imported"


after_a_number = session("1", "import tyro")
after_a_tuple = session("(1, [2])", "import tyro")
print(f"after 1:        {after_a_number}")
print(f"after (1, [2]): {after_a_tuple}")
as_stated = after_a_number == "imported" and "unhashable type: 'list'" in after_a_tuple
print("as stated: tyro is not imported" if as_stated else "changed: see the lines above")
sys.exit(0 if as_stated else 1)
PROGRAM
