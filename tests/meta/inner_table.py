"""What differentiation through each transformation of Optax gives, measured on a small net.

    .venv/bin/python -m tests.meta.inner_table

writes the table of docs/inner-optimisers.md. `test_inner_table.py` measures the same and compares.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from optax import contrib

from jaxdl.meta import estimators, inner
from tests.measured_table import MeasuredTable
from tests.project import ROOT

DOCUMENT = ROOT / "docs" / "inner-optimisers.md"
STEPS, LR = 3, 0.05
OFFSETS = (0, 1, -1, 2, -2)


class Point(NamedTuple):
    """Where a meta-gradient is taken: parameters, a support set, a query set, and the units."""

    params: Any
    x: Any
    y: Any
    mask: Any
    relu: Any
    share: Any
    """Of the second order in the meta-gradient: 1, or 0 for that of FOMAML."""


def net(params: Any, x: Any, point: Point) -> Any:
    """A layer of tanh times a mask, or of ReLU, and a linear one: 32 parameters."""
    units = (
        lambda z: jnp.tanh(z) * point.mask[None],
        lambda z: jnp.maximum(z, 0),
    )
    z = x @ params["w"] + params["b"][None]
    hidden = lax.cond(point.relu, units[1], units[0], z)
    return hidden @ params["v"] + params["c"][None]


def points() -> dict[str, Point]:
    """Generic; with a unit that no example wakes, or that is masked; fitted; with zero biases."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        return rng.uniform(0.2, 0.9, shape) * rng.choice([-1, 1], shape)

    off = np.arange(5) == 1
    params = {"w": draw(3, 5), "b": draw(5), "v": draw(5, 2), "c": draw(2)}
    generic = Point(params, draw(6, 3), draw(6, 2), np.ones(5), np.bool(False), np.ones(()))
    # Few bits each, and all units awake: so the predictions are exact, and the loss exactly zero.
    coarse = jax.tree.map(lambda leaf: np.round(8 * leaf) / 8, params)
    coarse["b"], x = np.ones(5), np.round(4 * generic.x) / 16
    y = (x @ coarse["w"] + coarse["b"]) @ coarse["v"] + coarse["c"]
    return {
        "generic": generic,
        "relu": generic._replace(
            params=params | {"b": np.where(off, -9.0, params["b"])}, relu=np.bool(True)
        ),
        "mask": generic._replace(mask=np.where(off, 0.0, 1.0)),
        "flat": generic._replace(params=coarse, x=x, y=y, relu=np.bool(True)),
        "unbiased": generic._replace(params=params | {"b": np.zeros(5), "c": np.zeros(2)}),
        "first order": generic._replace(share=np.zeros(())),
    }


STRIDE = {"generic": 1e-6, "relu": 1e-6, "mask": 1e-6, "flat": 2.0**-40, "unbiased": 1e-6}
"""Of the finite differences."""

EXACT = {"flat": 1e-2}
"""How far reverse mode and finite differences may be apart; 1e-4 elsewhere."""


class Found(NamedTuple):
    """At each point: the meta-gradient, its slope along a line, and the finite difference."""

    grads: dict[str, np.ndarray]
    along: dict[str, float]
    slope: dict[str, float]

    def finite(self, name: str) -> bool:
        return bool(np.isfinite(self.grads[name]).all())

    def error(self, name: str) -> float:
        return abs(self.along[name] - self.slope[name]) / abs(self.slope[name])


def shifted(params: Any, by: float, line: Any) -> Any:
    return jax.tree.map(lambda leaf, direction: leaf + by * direction, params, line)


def measure(make: Callable[[Any], Any], dtype: Any = np.float64, steps: int = STEPS) -> Found:
    """The meta-gradient through `make(loss)`, a transformation, at all points at once."""
    rng = np.random.default_rng(1)
    line = jax.tree.map(
        lambda leaf: np.round(8 * rng.uniform(0.3, 1, leaf.shape)) / 8, points()["flat"].params
    )
    rows = [
        point._replace(params=shifted(point.params, offset * STRIDE.get(name, 1e-6), line))
        for name, point in points().items()
        for offset in OFFSETS
    ]
    cast = lambda leaf: leaf if leaf.dtype == bool else leaf.astype(dtype)  # noqa: E731
    stacked = jax.tree.map(lambda *leaves: cast(np.stack(leaves)), *rows)

    def meta_loss(params: Any, point: Point) -> Any:
        def value(params: Any) -> Any:
            return jnp.mean((net(params, point.x, point) - point.y) ** 2)

        def loss(params: Any, key: Any) -> Any:
            return value(params), {}

        def shared(loss: Any) -> Any:
            def grad(*given: Any) -> Any:
                grads, metrics = estimators.exact(loss)(*given)
                held = lax.stop_gradient(grads)
                mix = lambda g, h: h + point.share * (g - h)  # noqa: E731
                return jax.tree.map(mix, grads, held), metrics

            return grad

        adapted, _ = inner.descend(loss, params, make(value), steps=steps, estimator=shared)
        asked = net(adapted, 1.3 * point.x[::-1], point)
        return jnp.mean((asked - jnp.sin(3 * point.y) - 0.3) ** 2)

    with jax.enable_x64(dtype == np.float64):
        program = jax.jit(
            lambda rows: lax.map(lambda row: jax.value_and_grad(meta_loss)(row.params, row), rows)
        )
        values, grads = jax.tree.map(np.asarray, program(stacked))
    values = values.reshape(-1, len(OFFSETS))
    flat = np.concatenate([leaf.reshape(len(rows), -1) for leaf in jax.tree.leaves(grads)], axis=1)
    flat = flat[:: len(OFFSETS)]
    found = Found({}, {}, {})
    for i, name in enumerate(points()):
        stride = STRIDE.get(name, 1e-6)
        near = (values[i, 1] - values[i, 2]) / (2 * stride)
        far = (values[i, 3] - values[i, 4]) / (4 * stride)
        found.grads[name] = flat[i]
        found.along[name] = float(
            flat[i] @ np.concatenate([v.ravel() for v in jax.tree.leaves(line)])
        )
        found.slope[name] = float((4 * near - far) / 3)
    return found


class Row(NamedTuple):
    """A transformation, what to use instead, and the extra arguments that it asks for.

    `maml` gives no extra arguments.
    """

    name: str
    tx: Any
    cure: str = ""
    asks: tuple[str, ...] = ()

    def made(self, loss: Callable[[Any], Any]) -> Any:
        """The transformation that finds out by itself what it asks for."""

        def update(updates: Any, state: Any, params: Any = None) -> Any:
            known = {"value": loss(params), "grad": updates, "value_fn": loss, "obj_fn": loss}
            return self.tx.update(
                updates, state, params, **{name: known[name] for name in self.asks}
            )

        return optax.GradientTransformation(self.tx.init, update) if self.asks else self.tx


def then_sgd(*first: Any) -> Any:
    return optax.chain(*first, optax.sgd(LR))


VALUE, SEARCH = ("value",), ("value", "grad", "value_fn")
ROOT_CURE = "`inner.adam`, or `eps_root=1e-8`"
CLIP_CURE = "`inner.clip_by_global_norm`"
FIRST = "`fomaml` gives the same and costs less"
NO_CURE = "none; use `inner.adam`"

ROWS = (
    Row("sgd", optax.sgd(LR)),
    Row("sgd, momentum", optax.sgd(LR, momentum=0.9)),
    Row("sgd, Nesterov", optax.sgd(LR, momentum=0.9, nesterov=True)),
    Row("optimistic_gradient_descent", optax.optimistic_gradient_descent(LR)),
    Row("noisy_sgd", optax.noisy_sgd(LR, key=0)),
    Row("contrib.schedule_free_sgd", contrib.schedule_free_sgd(LR)),
    Row("clip", then_sgd(optax.clip(0.5))),
    Row("zero_nans", then_sgd(optax.zero_nans()), "it does not help: the NaN is born later"),
    Row("apply_if_finite", optax.apply_if_finite(optax.sgd(LR), 3), "as zero_nans"),
    Row("apply_every", then_sgd(optax.apply_every(2))),
    Row("centralize", then_sgd(optax.centralize())),
    Row("adagrad", optax.adagrad(LR)),
    Row("adadelta", optax.adadelta(LR)),
    Row("yogi", optax.yogi(LR)),
    Row("inner.adam", inner.adam(LR)),
    Row("inner.rmsprop", inner.rmsprop(LR)),
    Row("inner.radam", inner.radam(LR)),
    Row("inner.clip_by_global_norm", then_sgd(inner.clip_by_global_norm(0.5))),
    Row("adam", optax.adam(LR), ROOT_CURE),
    Row("adam, eps_root=1e-8", optax.adam(LR, eps_root=1e-8)),
    Row("adamw", optax.adamw(LR), ROOT_CURE),
    Row("amsgrad", optax.amsgrad(LR), ROOT_CURE),
    Row("nadam", optax.nadam(LR), ROOT_CURE),
    Row("contrib.ademamix", contrib.ademamix(LR), ROOT_CURE),
    Row("optimistic_adam_v2", optax.optimistic_adam_v2(LR), ROOT_CURE),
    Row("rmsprop", optax.rmsprop(LR)),
    Row("rmsprop, centered", optax.rmsprop(LR, centered=True)),
    Row("rmsprop, eps_in_sqrt=False", optax.rmsprop(LR, eps_in_sqrt=False), "`inner.rmsprop`"),
    Row("adabelief", optax.adabelief(LR), ROOT_CURE),
    Row("adan", optax.adan(LR)),
    Row("adamax", optax.adamax(LR), "a larger `eps`"),
    Row("radam", optax.radam(LR), "`inner.radam`"),
    Row("contrib.dog", contrib.dog(LR), NO_CURE),
    Row("contrib.dowg", contrib.dowg(LR), NO_CURE),
    Row("contrib.mechanize", contrib.mechanize(optax.sgd(LR)), NO_CURE),
    Row("novograd", optax.novograd(LR), NO_CURE),
    Row("lamb", optax.lamb(LR), NO_CURE),
    Row("lars", optax.lars(LR), NO_CURE),
    Row("lars, eps=1e-6", optax.lars(LR, eps=1e-6), NO_CURE),
    Row("fromage", optax.fromage(LR)),
    Row("adafactor", optax.adafactor(LR), NO_CURE),
    Row("contrib.muon", contrib.muon(LR), NO_CURE),
    Row("contrib.prodigy", contrib.prodigy(LR), NO_CURE),
    Row("contrib.dadapt_adamw", contrib.dadapt_adamw(LR), NO_CURE),
    Row("clip_by_global_norm", then_sgd(optax.clip_by_global_norm(0.5)), CLIP_CURE),
    Row("clip_by_global_norm(1e6)", then_sgd(optax.clip_by_global_norm(1e6)), CLIP_CURE),
    Row("normalize_by_update_norm", then_sgd(optax.normalize_by_update_norm()), CLIP_CURE),
    Row("clip_by_block_rms", then_sgd(optax.clip_by_block_rms(0.1)), CLIP_CURE),
    Row("adaptive_grad_clip", then_sgd(optax.adaptive_grad_clip(0.1)), CLIP_CURE),
    Row("lion", optax.lion(LR), FIRST),
    Row("sign_sgd", optax.sign_sgd(LR), FIRST),
    Row("signum", optax.signum(LR), FIRST),
    Row("rprop", optax.rprop(LR), FIRST),
    Row("contrib.sophia", contrib.sophia(LR), FIRST, ("obj_fn",)),
    Row("sm3", optax.sm3(LR), NO_CURE),
    Row("polyak_sgd", optax.polyak_sgd(LR), "`eps=1e-6`", VALUE),
    Row("polyak_sgd, eps=1e-6", optax.polyak_sgd(LR, eps=1e-6), "", VALUE),
    Row("lbfgs, linesearch=None", optax.lbfgs(LR, linesearch=None), "the next row"),
    Row(
        "scale_by_lbfgs, scale_init_precond=False",
        optax.chain(optax.scale_by_lbfgs(scale_init_precond=False), optax.scale(-LR)),
    ),
    Row("lbfgs", optax.lbfgs(LR), "the row above", SEARCH),
    Row(
        "sgd, backtracking line search",
        optax.chain(optax.sgd(LR), optax.scale_by_backtracking_linesearch(5)),
        "",
        SEARCH,
    ),
    Row("contrib.madgrad", contrib.madgrad(LR), NO_CURE),
    Row("contrib.adopt", contrib.adopt(LR), NO_CURE),
    Row("contrib.acprop", contrib.acprop(LR)),
    Row("contrib.cocob", contrib.cocob(), NO_CURE),
    Row("contrib.momo", contrib.momo(LR), NO_CURE, VALUE),
    Row("contrib.momo_adam", contrib.momo_adam(LR), NO_CURE, VALUE),
    Row("contrib.simplified_ademamix", contrib.simplified_ademamix(LR), NO_CURE),
    Row("contrib.schedule_free_adamw", contrib.schedule_free_adamw(LR), NO_CURE),
)
COLUMNS = ("generic", "dead unit", "fitted", "zero biases", "second order")
TABLE = MeasuredTable(DOCUMENT, "transformation", COLUMNS)


def cells(row: Row, *, both: bool = True) -> tuple[str, ...]:
    """What the table says of a row, in the order of `COLUMNS`; without `both`, of float64 alone."""
    try:
        found = measure(row.made)
    except ValueError as error:
        if "Reverse-mode differentiation does not work" not in str(error):
            raise
        return ("error",) * len(COLUMNS)
    single = measure(row.made, np.float32) if both else found
    said = {name: said_of(found, single, name) for name in STRIDE}
    dead = (
        said["relu"] if said["relu"] == said["mask"] else f"{said['relu']}; masked {said['mask']}"
    )
    return said["generic"], dead, said["flat"], said["unbiased"], share(found)


def said_of(found: Found, single: Found, name: str) -> str:
    """One cell: exact, NaN, the size of a large derivative that is right, or how far it is off."""
    if not found.finite(name):
        return "NaN"
    if not single.finite(name):
        return "NaN in float32"
    largest = np.abs(found.grads[name]).max()
    if name == "flat" and largest > 1e4:
        return f"1e{round(float(np.log10(largest)))}"
    return "exact" if found.error(name) < EXACT.get(name, 1e-4) else "wrong"


def share(found: Found) -> str:
    """The part of the meta-gradient at the generic point that comes through the inner gradient."""
    both, first = (found.grads[name] for name in ("generic", "first order"))
    if not np.isfinite(both).all():
        return "NaN"
    part = np.linalg.norm(both - first) / np.linalg.norm(both)
    return f"{part:.1g}" if part > 1e-14 else "0"


if __name__ == "__main__":
    TABLE.write(ROWS, cells)
