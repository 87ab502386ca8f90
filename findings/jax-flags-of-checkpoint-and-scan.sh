#!/usr/bin/env bash
# jax 0.10.2: under its flags jax_remat3 and jax_custom_vjp3, which rewrite two transforms and are off
# by default, the gradient of a checkpointed scan ends in an error, though it is right without them.
#
#   walk = jax.checkpoint(lambda w, xs: lax.scan(step, w, xs))      step: (w, x) -> (w', output)
#
#   jax_remat3        ValueError where the outputs of the scan go unused: "Expected cotangent type
#                     float32[] but got float32[6]". No error where they are used.
#   jax_custom_vjp3   NotImplementedError where the step calls a custom_vjp function whose forward
#                     rule calls the function itself, as the rules in JAX's documentation do, and the
#                     scan stands in another one: "Primitive 'closed_call' has is_high=True but no
#                     to_lojax lowering rule".
#
# A scan of checkpointed scans is how an unrolled optimisation of many steps fits into memory, and
# its outputs, the losses on the way, are often only logged.
#
#   bash findings/jax-flags-of-checkpoint-and-scan.sh
#
# Exit status: 0 while it is so, and not 0 when it has changed or could not be tried. It needs
# Python 3.11 or later with venv, and a network. It leaves nothing behind.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2

cd "$folder"
cat >program.py <<'PROGRAM'
import sys

import jax
from jax import lax, numpy as jnp

if len(sys.argv) > 1:
    jax.config.update(sys.argv[1], True)


@jax.custom_vjp
def sine(w):
    return jnp.sin(w)


sine.defvjp(lambda w: (sine(w), w), lambda w, slope: (jnp.cos(w) * slope,))


def end(w, function, used, nested):
    """Six steps w' = w + 0.1 f(w); the sum of their outputs counts if they are used."""

    def step(w, x):
        return w + 0.1 * x * function(w), w

    walk = jax.checkpoint(lambda w, xs: lax.scan(step, w, xs))
    xs = jnp.ones(6)
    w, path = lax.scan(walk, w, xs.reshape(3, 2)) if nested else walk(w, xs)
    return w + used * path.sum() if used else w


for name, function in (("jnp.sin", jnp.sin), ("custom_vjp", sine)):
    for used in (False, True):
        for nested in (False, True):
            try:
                found = f"{jax.grad(end)(0.3, function, used, nested):.5f}"
            except Exception as error:
                found = type(error).__name__
            words = "used" if used else "unused"
            print(name, words, "nested" if nested else "alone", found)
PROGRAM

cat >expected.txt <<'OUTPUT'
== default
jnp.sin unused alone 1.70077
jnp.sin unused nested 1.70077
jnp.sin used alone 9.30119
jnp.sin used nested 9.30119
custom_vjp unused alone 1.70077
custom_vjp unused nested 1.70077
custom_vjp used alone 9.30119
custom_vjp used nested 9.30119
== jax_remat3
jnp.sin unused alone ValueError
jnp.sin unused nested ValueError
jnp.sin used alone 9.30119
jnp.sin used nested 9.30119
custom_vjp unused alone ValueError
custom_vjp unused nested ValueError
custom_vjp used alone 9.30119
custom_vjp used nested 9.30119
== jax_custom_vjp3
jnp.sin unused alone 1.70077
jnp.sin unused nested 1.70077
jnp.sin used alone 9.30119
jnp.sin used nested 9.30119
custom_vjp unused alone 1.70077
custom_vjp unused nested NotImplementedError
custom_vjp used alone 9.30119
custom_vjp used nested NotImplementedError
OUTPUT
for flag in "" jax_remat3 jax_custom_vjp3; do
    echo "== ${flag:-default}"
    JAX_PLATFORMS=cpu "$folder/venv/bin/python" program.py $flag
done | tee found.txt
if diff expected.txt found.txt; then
    echo "as stated: four gradients are refused under jax_remat3, and two under jax_custom_vjp3"
else
    echo "changed: see the lines above"
    exit 1
fi
