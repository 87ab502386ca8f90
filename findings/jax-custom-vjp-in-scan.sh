#!/usr/bin/env bash
# jax 0.10.2: inside lax.scan, the second derivative of a custom_vjp function is wrong in silence, if
# its forward rule calls the function itself, and the function takes a derivative.
#
#   square = custom_vjp(lambda w: grad(lambda w: w**3 / 3)(w))     forward rule: square(w), w
#   value = lambda w: scan(square once)(w) ** 3                    w^6
#
# Its first derivative is right, 6 w^5. The second is 30 w^4, and 9 % off. It is right without the
# scan, with a forward rule that calls the plain function, and if the plain function stands in
# jax.checkpoint. JAX's documentation writes forward rules that call the function itself. An
# implicitly differentiated minimum and a Hessian-vector product are such functions. jax 0.11.2 does
# the same.
#
#   bash findings/jax-custom-vjp-in-scan.sh
#
# Exit status: 0 while it is so, and not 0 when it has changed or could not be tried. It needs
# Python 3.11 or later with venv, and a network. It leaves nothing behind.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2

cd "$folder"
JAX_PLATFORMS=cpu JAX_ENABLE_X64=1 "$folder/venv/bin/python" - <<'PROGRAM'
import sys

import jax


def plain(w):
    return jax.grad(lambda w: w**3 / 3)(w)  # w^2


def custom(inside, of=plain):
    """`of` by its true backward rule; `inside` is what the forward rule calls, None for itself."""

    @jax.custom_vjp
    def square(w):
        return of(w)

    def forward(w):
        return (inside or square)(w), w

    square.defvjp(forward, lambda w, slope: (2 * w * slope,))
    return square


def in_scan(square):
    return lambda w: jax.lax.scan(lambda w, _: (square(w), None), w, None, length=1)[0] ** 3


w = 0.3
functions = {
    "plain, in a scan": in_scan(plain),
    "custom, no scan": lambda w: custom(None)(w) ** 3,
    "custom, in a scan, the rule calls the plain function": in_scan(custom(plain)),
    "custom, in a scan, the plain function in a checkpoint": in_scan(
        custom(None, jax.checkpoint(plain))
    ),
    "custom, in a scan": in_scan(custom(None)),
}
print(f"jax {jax.__version__}, {w=}: first derivative {6 * w**5:.5f}, second {30 * w**4:.5f}")
errors = []
for name, function in functions.items():
    first, second = jax.grad(function)(w), jax.grad(jax.grad(function))(w)
    errors.append(abs(second / (30 * w**4) - 1))
    print(f"{first:.5f} {second:.5f}  {name}")
    if abs(first / (6 * w**5) - 1) > 1e-9:
        sys.exit("changed: the first derivative is wrong, too")
as_stated = max(errors[:-1]) < 1e-9 and errors[-1] > 0.05
print("as stated: the last one is wrong" if as_stated else "changed: see the lines above")
sys.exit(0 if as_stated else 1)
PROGRAM
