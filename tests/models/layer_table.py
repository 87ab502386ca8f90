"""Whether layers and functions differentiate once, twice and three times, by finite differences.

    .venv/bin/python -m tests.models.layer_table

writes the table of docs/layers.md. `test_layer_table.py` measures the same and compares.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg

from jaxdl.models.layers.attention import attend
from jaxdl.models.layers.conv import conv
from jaxdl.models.layers.cosine import CosineHead, cosine_logits
from jaxdl.models.layers.norm import standardise
from jaxdl.models.layers.pooling import avg_pool, max_pool
from jaxdl.models.recurrent import gru, lstm, rnn
from tests.measured_table import MeasuredTable
from tests.project import ROOT

DOCUMENT = ROOT / "docs" / "layers.md"
COLUMNS = ("first", "second", "third", "constant rows", "zeros")
TABLE = MeasuredTable(DOCUMENT, "layer or function", COLUMNS)
TOLERANCE = 1e-2
NODES = 9
REACH = {"generic": 1e-3, "constant": 1e-4}
"""How far the function is read on both sides of a point. A norm's epsilon bends it within 1e-3."""
NOISE = 1e-10
"""The k-th derivative of the polynomial is good to this, divided by the k-th power of the reach."""


class Row(NamedTuple):
    """A function of a tree that has an `x`, with the tree at a generic point, and its cure.

    `make()` gives the two. The cure is what to use instead. `kinks`: there is no derivative where
    entries are equal.
    """

    name: str
    make: Callable[[], tuple[Callable[[Any], Any], dict[str, Any]]]
    cure: str = ""
    kinks: bool = False


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    """Numbers of both signs from 0.2 to 0.9. No two are near each other, so no order changes."""
    rng, size = np.random.default_rng(seed), int(np.prod(shape))
    values = np.linspace(0.2, 0.9, size) * rng.choice([-1, 1], size)
    return rng.permutation(values).reshape(shape)


def function(
    name: str,
    of: Callable[[Any], Any],
    shape: tuple[int, ...] = (4, 6),
    cure: str = "",
    *,
    kinks: bool = False,
) -> Row:
    return Row(name, lambda: (lambda at: of(at["x"]), {"x": drawn(*shape)}), cure, kinks)


def of_two(
    name: str, of: Callable[[Any], Any], cure: str = "", *, kinks: bool = False, **shapes: Any
) -> Row:
    """A function of a tree of arrays of these shapes."""
    at = {key: drawn(*shape, seed=i) for i, (key, shape) in enumerate(shapes.items())}
    return Row(name, lambda: (of, at), cure, kinks)


def module(
    name: str,
    made: nn.Module,
    shape: tuple[int, ...] = (4, 6),
    cure: str = "",
    **options: Any,
) -> Row:
    """A module of flax.linen with its parameters. What it stores beside them is what it has after
    a hundred calls, and stays so."""

    def make() -> tuple[Callable[[Any], Any], dict[str, Any]]:
        x = drawn(*shape)
        variables = dict(made.init(jax.random.key(0), x, **options))
        params = spread(variables.pop("params", {}))
        state = variables
        for _ in range(100 * bool(state)):
            _, state = made.apply({"params": params, **state}, x, mutable=list(state), **options)

        def of(at: Any) -> Any:
            known, stored = {"params": at["params"], **state}, list(state) or False
            found = made.apply(known, at["x"], mutable=stored, **options)
            return found[0] if state else found

        return of, {"x": x, "params": params}

    return Row(name, make, cure)


def spread(params: Any) -> Any:
    """Other numbers in place of parameters, because many of them start as zeros or ones."""
    return jax.tree.map(lambda leaf: drawn(*leaf.shape, seed=leaf.size), params)


def cell(name: str, kind: type[nn.RNNCellBase]) -> Row:
    return module(name, nn.RNN(kind(3, param_dtype=np.float64)), (2, 3, 4))  # type: ignore[call-arg]


def net(name: str, kind: Callable[..., Any]) -> Row:
    def make() -> tuple[Callable[[Any], Any], dict[str, Any]]:
        model, x = kind(4, 2), drawn(2, 3, 4)
        params = spread(model.init(jax.random.key(0), x))
        return lambda at: model.apply(at["params"], at["x"]), {"x": x, "params": params}

    return Row(name, make)


def positive(x: Any) -> Any:
    return x @ x.T + jnp.eye(len(x))


def solved(at: Any, iterations: int) -> Any:
    """The solution of a linear system by conjugate gradients, which may stop early."""
    return cg(positive(at["x"]), at["b"], tol=0.0, maxiter=iterations)[0]


SQUARE = (4, 4)
IMAGES = (2, 6, 6, 3)


def symmetric(x: Any) -> Any:
    return x + x.T


def rows() -> tuple[Row, ...]:
    """All rows of the table."""
    bias = np.zeros((4, 4))
    return (
        of_two("jaxdl conv", lambda at: conv(at["x"], at["w"]), x=IMAGES, w=(3, 3, 3, 2)),
        function("jaxdl batch norm", lambda x: standardise(x, (0,), 1e-5)[0]),
        function("jaxdl max_pool", max_pool, IMAGES, kinks=True),
        function("jaxdl avg_pool", avg_pool, IMAGES),
        of_two(
            "jaxdl cosine head",
            lambda at: cosine_logits(CosineHead(at["w"], at["r"]), at["x"], 10.0),
            x=(4, 6),
            w=(6, 3),
            r=(3,),
        ),
        function("jaxdl attention", lambda x: attend(x, 2 * x, x[::-1], bias), (4, 2, 3)),
        net("jaxdl rnn", rnn),
        net("jaxdl lstm", lstm),
        net("jaxdl gru", gru),
        module("nn.Dense", nn.Dense(3)),
        module("nn.Conv", nn.Conv(2, (3, 3)), IMAGES, "`jaxdl` conv: the same, and faster in MAML"),
        module("nn.BatchNorm", nn.BatchNorm(use_running_average=False)),
        module(
            "nn.BatchNorm, use_fast_variance=False",
            nn.BatchNorm(use_running_average=False, use_fast_variance=False),
        ),
        module("nn.LayerNorm", nn.LayerNorm(), cure="`use_fast_variance=False`"),
        module("nn.LayerNorm, use_fast_variance=False", nn.LayerNorm(use_fast_variance=False)),
        module("nn.GroupNorm", nn.GroupNorm(2), cure="`use_fast_variance=False`"),
        module("nn.RMSNorm", nn.RMSNorm()),
        module("nn.InstanceNorm", nn.InstanceNorm(), IMAGES),
        module("nn.WeightNorm", nn.WeightNorm(nn.Dense(3))),
        module(
            "nn.SpectralNorm",
            nn.SpectralNorm(nn.Dense(3)),
            cure="none; its vectors are constants",
            update_stats=True,
        ),
        module("nn.MultiHeadDotProductAttention", nn.MultiHeadDotProductAttention(2), (2, 3, 4)),
        cell("nn.SimpleCell", nn.SimpleCell),
        cell("nn.OptimizedLSTMCell", nn.OptimizedLSTMCell),
        cell("nn.GRUCell", nn.GRUCell),
        function("nn.max_pool", lambda x: nn.max_pool(x, (2, 2), (2, 2)), IMAGES, kinks=True),
        function("nn.avg_pool", lambda x: nn.avg_pool(x, (2, 2), (2, 2)), IMAGES),
        function("nn.standardize", nn.standardize, cure="`use_fast_variance=False`"),
        function("jax.nn.relu", jax.nn.relu),
        function("jnp.maximum(x, 0)", lambda x: jnp.maximum(x, 0), cure="`jax.nn.relu`"),
        function("jax.nn.gelu", jax.nn.gelu),
        function("jax.nn.celu", jax.nn.celu),
        function("jax.nn.softmax", jax.nn.softmax),
        function("jnp.sort", lambda x: jnp.sort(x, axis=1), kinks=True),
        function("jnp.median", lambda x: jnp.median(x, axis=1), kinks=True),
        function("jnp.linalg.norm", lambda x: jnp.linalg.norm(x, axis=1), cure="add an epsilon"),
        function("jnp.std", lambda x: jnp.std(x, axis=1), cure="add an epsilon"),
        function(
            "optax.cosine_similarity",
            lambda x: optax.cosine_similarity(x, x[::-1] + 0.1),
            cure="the next row",
        ),
        function(
            "optax.cosine_similarity, epsilon=1e-3",
            lambda x: optax.cosine_similarity(x, x[::-1] + 0.1, epsilon=1e-3),
        ),
        function(
            "jnp.linalg.eigvalsh", lambda x: jnp.linalg.eigvalsh(symmetric(x)), SQUARE, kinks=True
        ),
        function(
            "jnp.linalg.svd, values",
            lambda x: jnp.linalg.svd(x, compute_uv=False),
            SQUARE,
            kinks=True,
        ),
        of_two(
            "jnp.linalg.solve",
            lambda at: jnp.linalg.solve(positive(at["x"]), at["b"]),
            x=(4, 3),
            b=(4,),
        ),
        of_two(
            "jnp.linalg.lstsq",
            lambda at: jnp.linalg.lstsq(at["x"], at["b"])[0],
            "the normal equations: `jnp.linalg.solve`",
            kinks=True,
            x=(6, 3),
            b=(6,),
        ),
        of_two("scipy.sparse.linalg.cg, to the end", lambda at: solved(at, 40), x=(4, 3), b=(4,)),
        of_two(
            "scipy.sparse.linalg.cg, 2 iterations",
            lambda at: solved(at, 2),
            "more iterations: the derivative is that of the exact solution",
            x=(4, 3),
            b=(4,),
        ),
    )


def moved(at: dict[str, Any], point: str) -> dict[str, Any]:
    """The tree at a point: `x` as it is, each of its rows constant, or zero."""
    x = at["x"]
    if point == "constant":
        x = np.broadcast_to(x[..., :1], x.shape)
    if point == "zeros":
        x = np.zeros_like(x)
    return at | {"x": x}


def cells(row: Row) -> tuple[str, ...]:
    """What the table says of a row, in the order of `COLUMNS`."""
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        of, generic_point = row.make()
        start, unravel = ravel_pytree(jax.tree.map(np.float64, generic_point))
        line, shares = (jnp.asarray(drawn(size, seed=7)) for size in (start.size, 300))

        def value(at: Any) -> Any:
            found = jnp.ravel(of(unravel(at)))
            return jnp.sum(jnp.sin(found + 1) * shares[: found.size])

        def along(of: Callable[[Any], Any]) -> Callable[[Any], Any]:
            return lambda at: jnp.vdot(jax.grad(of)(at), line)

        first = along(value)
        second = along(first)
        orders = jax.jit(lambda at: jnp.stack([first(at), second(at), along(second)(at)]))
        values = jax.jit(jax.vmap(value))
        points = {
            name: ravel_pytree(jax.tree.map(np.float64, moved(generic_point, name)))[0]
            for name in (*REACH, "zeros")
        }
        found = {name: np.asarray(orders(at)) for name, at in points.items()}
        nodes = np.polynomial.chebyshev.chebpts1(NODES)
        read = {
            name: np.asarray(values(points[name] + reach * nodes[:, None] * line))
            for name, reach in REACH.items()
        }
    generic, constant = (judged(found[name], read[name], REACH[name]) for name in REACH)
    zeros = ["right" if np.isfinite(each) else "NaN" for each in found["zeros"]]
    return *generic, "kink" if row.kinks else worst(constant), worst(zeros)


def judged(found: np.ndarray, read: np.ndarray, reach: float) -> list[str]:
    """For each order: right, NaN, or how far it is from that of a polynomial.

    The polynomial goes through the values that were read at Chebyshev's points.
    """
    nodes = np.polynomial.chebyshev.chebpts1(NODES)
    fitted = np.polynomial.chebyshev.Chebyshev.fit(nodes, read, NODES - 1, domain=[-1, 1])
    return [
        said(value, float(fitted.deriv(order)(0)) / reach**order, NOISE / reach**order)
        for order, value in enumerate(found, 1)
    ]


def said(found: float, expected: float, noise: float) -> str:
    if not np.isfinite(found):
        return "NaN"
    error = abs(found - expected) / max(abs(expected), noise)
    return "right" if error < TOLERANCE else f"off by {100 * error:.1g} %"


def worst(orders: list[str]) -> str:
    """The first order that is not right, by name."""
    names = ("first", "second", "third")
    wrong = [f"{name} {each}" for name, each in zip(names, orders, strict=True) if each != "right"]
    return wrong[0] if wrong else "right"


if __name__ == "__main__":
    TABLE.write(rows(), cells)
