"""Bilinear maps closed under differentiation.

A layer, its input gradient and its weight gradient are the three ways to contract the trilinear
form `T(x, w, y) = <layer(x, w), y>` with two of its arguments. Each is bilinear, and every
derivative of one is another of the three. Here they are three primitives, each with one fast form
per platform. Differentiation of any order and mode runs these three alone (reverse over reverse,
forward over reverse). JAX's own rules would transpose and regroup operands, although a kernel is
fast in one order of axes only.

Every operand has a leading axis `g` of independent problems. If `vmap` maps one operand alone, the
mapped axis is folded into a free axis of that operand. This makes a larger product, without copies
of the shared operand. If `vmap` maps both, as in MAML, the mapped axis is folded into `g`. This
makes a *batched* product.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import PartitionSpec
from jaxtyping import Float, Shaped

from jaxdl.parallel import differing_alike
from jaxdl.types import Array

Contraction = Callable[[Array, Array, Any], Array]
"""`(a, b, geometry) -> array`. Operands and result have the leading axis `g`."""


class Forms(NamedTuple):
    """The three maps of a platform, named by their results."""

    y: Contraction
    """From x and w."""
    x: Contraction
    """From y and w."""
    w: Contraction
    """From x and y."""


Shape = tuple[int, ...]
Free = Mapping[tuple[str, str], tuple[int, int]]
"""The free axis per map: `(operand, result) -> (its axis in the operand, its axis in the result)`.

A free axis is one that the operand shares with the result, and not with the other operand. If
`vmap` maps this operand alone, the mapped axis is folded into the free axis."""

ACCELERATORS = ("cuda", "rocm", "tpu")


def trilinear(
    name: str,
    forms: Forms,
    *,
    accelerated: Forms,
    free: Free,
    shape: Callable[[str, Mapping[str, Shape], Any], Shape],
) -> Callable[[Array, Array, Any], Array]:
    """`(x, w, geometry) -> y`, with all its derivatives by `forms`.

    The returned function does not check shapes and dtypes: its caller makes sure that they fit.

    Args:
        forms: the forms for CPUs and unknown platforms.
        accelerated: the forms for `ACCELERATORS`.
        free: see `Free`.
        shape: `(result, shapes of the operands by name, geometry) -> shape of the result`.
            `geometry` is hashable and static. It holds the sizes that the operands do not have.
    """

    def primitive(kinds: str, form: Contraction, fast: Contraction) -> Primitive:
        """One map with all its rules but the transposes. `kinds` names operands and result."""
        made = Primitive(f"jaxdl_{name}_{kinds[2]}")

        def bind(a: Array, b: Array, *, geometry: Any) -> Array:
            return cast(Array, made.bind(a, b, geometry=geometry))

        def abstract(a: Any, b: Any, *, geometry: Any) -> Any:
            shapes = {kinds[0]: a.shape, kinds[1]: b.shape}
            found = shape(kinds[2], shapes, geometry)
            # `update` keeps the axes of a `shard_map` over which both operands differ.
            sharding = a.sharding.update(spec=PartitionSpec(*[None] * len(found)))
            return a.update(shape=found, dtype=a.dtype, weak_type=False, sharding=sharding)

        def by(form: Contraction) -> Any:
            return mlir.lower_fun(
                lambda a, b, *, geometry: form(a, b, geometry), multiple_results=False
            )

        made.def_impl(jax.jit(bind, static_argnames="geometry"))
        made.def_abstract_eval(abstract)
        mlir.register_lowering(made, by(form))
        for platform in ACCELERATORS:
            mlir.register_lowering(made, by(fast), platform=platform)
        batching.primitive_batchers[made] = partial(_batch, made, kinds, free)
        return made

    to_y = primitive("xwy", forms.y, accelerated.y)
    to_x = primitive("ywx", forms.x, accelerated.x)
    to_w = primitive("xyw", forms.w, accelerated.w)
    # The rules are transpose(cotangent, a, b) for each operand. They use the other operand alone,
    # because the one whose cotangent they return is undefined.
    ad.defbilinear(
        to_y,
        lambda y, x, w, **geometry: _bound(to_x, y, w, **geometry),
        lambda y, x, w, **geometry: _bound(to_w, x, y, **geometry),
    )
    ad.defbilinear(
        to_x,
        lambda x, y, w, **geometry: _bound(to_y, x, w, **geometry),
        lambda x, y, w, **geometry: _bound(to_w, x, y, **geometry),
    )
    ad.defbilinear(
        to_w,
        lambda w, x, y, **geometry: _bound(to_x, y, w, **geometry),
        lambda w, x, y, **geometry: _bound(to_y, x, w, **geometry),
    )
    return lambda x, w, geometry: _bound(to_y, x, w, geometry=geometry)


def _bound(primitive: Primitive, a: Array, b: Array, *, geometry: Any) -> Array:
    return cast(Array, primitive.bind(*differing_alike(a, b), geometry=geometry))


def _batch(
    primitive: Primitive,
    kinds: str,
    free: Free,
    operands: Sequence[Array],
    mapped: Sequence[int | None],
    *,
    geometry: Any,
) -> tuple[Array, int]:
    """vmap of a primitive. `kinds` names its operands and its result, such as "xwy".

    `mapped` has the mapped axis per operand, or None. The result is mapped along the returned axis.
    """
    # `axis` (without the mapped axis) takes the mapped axis: the free axis, or `g` if both are
    # mapped. After the primitive, the reshape splits the two again: [..., mapped, own, ...].
    if None in mapped:
        lone = 0 if mapped[1] is None else 1
        axis, out_axis = free[kinds[lone], kinds[2]]
    else:
        axis, out_axis = 0, 0
    some, m = next((a, m) for a, m in zip(operands, mapped, strict=True) if m is not None)
    own = [length for i, length in enumerate(some.shape) if i != m][axis]
    folded = [a if m is None else _fold(a, m, axis) for a, m in zip(operands, mapped, strict=True)]
    out = primitive.bind(*folded, geometry=geometry)
    shape = (*out.shape[:out_axis], some.shape[m], own, *out.shape[out_axis + 1 :])
    return out.reshape(shape), out_axis


def _fold(a: Shaped[Array, "..."], mapped: int, axis: int) -> Shaped[Array, "..."]:
    """Moves the mapped axis in front of `axis` (counted without the mapped one) and merges both."""
    a = jnp.moveaxis(a, mapped, axis)
    return a.reshape(*a.shape[:axis], a.shape[axis] * a.shape[axis + 1], *a.shape[axis + 2 :])


def batched_product(
    a: Float[Array, "g _ _"], b: Float[Array, "g _ _"], contract: tuple[int, int]
) -> Float[Array, "g _ _"]:
    """Batched product of `[g, ., .]` and `[g, ., .]`. `contract` is the contracted axis of each."""
    return jax.lax.dot_general(a, b, (((contract[0],), (contract[1],)), ((0,), (0,))))
