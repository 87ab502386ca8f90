"""The convolution triad against `lax.conv_general_dilated`, in float64."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from jaxdl.errors import InputError
from jaxdl.models.layers import contractions, cpu, groups, library
from jaxdl.models.layers.contractions import Geometry
from jaxdl.models.layers.conv import Conv, conv

# (image [n, h, w, c], kernel, features, strides, padding)
CASES: list[Any] = [
    ((2, 6, 7, 3), (3, 3), 4, (1, 1), "SAME"),
    ((2, 7, 6, 3), (3, 3), 2, (2, 2), "SAME"),
    ((1, 5, 6, 2), (3, 2), 3, (2, 1), "VALID"),
    ((2, 5, 5, 3), (1, 1), 2, (1, 1), "SAME"),
    ((1, 6, 5, 2), (1, 1), 2, (2, 2), "SAME"),
    ((1, 9, 8, 1), (7, 7), 2, (2, 2), ((3, 3), (3, 3))),
    ((1, 8, 9, 1), (7, 7), 2, (2, 2), "SAME"),
    ((1, 7, 8, 2), (3, 3), 2, (3, 3), ((0, 2), (1, 0))),
    ((1, 8, 7, 2), (2, 2), 2, (3, 3), "VALID"),
    ((1, 5, 5, 1), (4, 3), 2, (1, 1), ((3, 4), (2, 5))),
    ((2, 5, 6, 17), (3, 3), 3, (2, 2), "SAME"),  # enough channels to gather whole pixels
    ((2, 4, 5, 16), (2, 3), 2, (1, 2), ((2, 1), (0, 3))),
]


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def reference(x: Any, w: Any, strides: Any, padding: Any) -> Any:
    return lax.conv_general_dilated(
        x, w, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def operands(case: Any, seed: int = 0, *, lead: tuple[int, ...] = ()) -> tuple[Any, Any]:
    shape, kernel, features, _, _ = case
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(*lead, *shape))
    w = rng.normal(size=(*lead, *kernel, shape[-1], features))
    return jnp.asarray(x), jnp.asarray(w)


def losses(case: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A loss with non-trivial second derivatives, through ours and through the library's."""
    strides, padding = case[3:]

    def ours(x: Any, w: Any) -> Any:
        return jnp.sum(jnp.sin(conv(x, w, strides=strides, padding=padding)))

    def theirs(x: Any, w: Any) -> Any:
        return jnp.sum(jnp.sin(reference(x, w, strides, padding)))

    return ours, theirs


def of_both(case: Any, derivatives: Callable[..., Any], *given: Any) -> list[Any]:
    """`derivatives(loss, *given)` through ours and through the library's, compiled.

    What is given is an argument: with constants XLA would compute while it compiles.
    """
    return [jax.jit(partial(derivatives, loss))(*given) for loss in losses(case)]


def close(a: Any, b: Any, tolerance: float = 1e-12) -> None:
    assert len(jax.tree.leaves(a)) == len(jax.tree.leaves(b))
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert left.shape == right.shape
        assert left.dtype == right.dtype
        np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)


GROUPED: Any = ((6, 6, 7, 16), (3, 3), 4, (1, 1), "SAME")


def test_a_few_images_after_another_are_the_same_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """The columns of two of the six images take 96,768 bytes."""
    monkeypatch.setattr(groups, "GROUP", 100_000)
    program = jax.jit(conv).lower(*operands(GROUPED)).as_text()
    assert "1x84x144xf64" in program
    assert "1x252x144xf64" not in program
    test_value_and_two_derivatives(GROUPED)


@pytest.mark.parametrize(
    ("images", "cores", "group"),
    [(75, 1, 1), (2, 1, 2), (75, 2, 3), (8, 2, 8)],
)
def test_columns_stay_in_the_cache_of_a_core_or_of_all(
    images: int, cores: int, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image of 42 pixels and 32 channels has 2.03 MB of columns in float32."""
    monkeypatch.setattr(groups, "cores_per_device", lambda: cores)
    geometry = Geometry((42, 42), (3, 3), (1, 1), ((1, 1), (1, 1)))

    def of(g: int, c: int) -> int:
        x = jax.ShapeDtypeStruct((g, images, 42, 42, c), jnp.float32)
        return groups.group_of(x, (c, 8), geometry)  # type: ignore[arg-type]

    assert of(1, 32) == group
    assert of(2, 32) == images  # kernels per task are one batched product
    assert of(1, 3) == images  # strips have few columns


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each device has one core, where XLA's own convolution may be the faster."""
    monkeypatch.setattr(cpu, "cores_per_device", lambda: 1)


@pytest.mark.parametrize(
    ("kernel", "padding"),
    [((3, 3), ((1, 1), (1, 1))), ((4, 3), ((3, 0), (1, 2))), ((2, 5), ((0, 1), (0, 0)))],
)
def test_the_input_gradient_by_a_turned_kernel(kernel: Any, padding: Any) -> None:
    x, w = operands(((2, 6, 7, 3), kernel, 4, (1, 1), padding), lead=(1,))
    geometry = Geometry((6, 7), kernel, (1, 1), padding)
    y = jnp.asarray(np.random.default_rng(2).normal(size=(1, 2, *geometry.out, 4)))
    found = jax.jit(library.grad_x_by_conv, static_argnums=2)(y, w, geometry)
    close(found, contractions.grad_x_product(y, w, geometry))
    assert found.shape == x.shape


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((2, 0), (1, 2))])
def test_the_library_on_one_core_gives_value_and_two_derivatives(
    padding: Any, one_core: None
) -> None:
    """In float32, whose errors are below 1e-5 of the largest number (measured: 1e-6)."""
    case = ((2, 7, 6, 16), (3, 3), 20, (1, 1), padding)
    double = operands(case)
    single = jax.tree.map(lambda a: a.astype(jnp.float32), double)
    ours, theirs = losses(case)

    def derivatives(loss: Any, x: Any, w: Any) -> Any:
        slope = lambda x, w: sum(  # noqa: E731
            jnp.sum(g**2) for g in jax.grad(loss, (0, 1))(x, w)
        )
        return loss(x, w), jax.grad(loss, (0, 1))(x, w), jax.grad(slope, (0, 1))(x, w)

    found = jax.jit(partial(derivatives, ours))(*single)
    right = jax.jit(partial(derivatives, theirs))(*double)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(b).max()))


def test_one_core_runs_convolutions_that_its_library_has_in_a_fast_form(one_core: None) -> None:
    """A convolution that swaps the channels of its kernel by itself is six times as slow. XLA makes
    some of them from JAX's own transpose, where a gradient passes back through a loop of steps."""
    x, kernel = jnp.ones((2, 8, 8, 16), jnp.float32), jnp.ones((3, 3, 16, 16), jnp.float32)

    def loss(kernels: tuple[Any, Any], x: Any) -> Any:
        return jnp.sum(jnp.sin(conv(jnp.sin(conv(x, kernels[0])), kernels[1])))

    def after_steps(kernels: tuple[Any, Any], x: Any) -> Any:
        def step(kernels: Any, _: None) -> Any:
            grads = jax.grad(loss)(kernels, x)
            return jax.tree.map(lambda w, g: w - 0.1 * g, kernels, grads), None

        return loss(lax.scan(step, kernels, length=3)[0], x)

    program = jax.jit(jax.grad(after_steps)).lower((kernel, kernel), x)
    text = str(program.compile().as_text())
    lines = [line for line in text.splitlines() if " convolution(" in line]
    assert len(lines) > 6  # of values, of gradients, and of their derivatives
    for line in lines:
        assert "dim_labels=b01f_01io->b01f" in line
        assert "= f32[2,8,8,16]" in line  # the gradients of a kernel are products


@pytest.mark.parametrize(
    ("other", "taken"),
    [
        ({}, True),
        ({"cores": 2}, False),
        ({"g": 2}, False),
        ({"n": 0}, False),
        ({"dtype": jnp.float64}, False),
        ({"dtype": jnp.bfloat16}, False),
        ({"c": 15}, False),
        ({"o": 161}, False),
        ({"strides": (1, 2)}, False),
        ({"kernel": (1, 1), "padding": ((0, 0), (0, 0))}, False),
        ({"padding": ((1, 3), (1, 1))}, False),
    ],
)
def test_which_convolutions_the_library_takes(
    other: dict[str, Any], taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"cores": 1, "g": 1, "n": 2, "dtype": jnp.float32, "c": 32, "o": 32}
    given |= {"strides": (1, 1), "kernel": (3, 3), "padding": ((1, 1), (1, 1)), **other}
    monkeypatch.setattr(cpu, "cores_per_device", lambda: given["cores"])
    geometry = Geometry((9, 8), given["kernel"], given["strides"], given["padding"])
    x = jnp.zeros((given["g"], given["n"], 9, 8, given["c"]), given["dtype"])
    w = jnp.zeros((given["g"], *given["kernel"], given["c"], given["o"]), given["dtype"])
    assert cpu.library_is_faster(x, w, geometry) == taken


@pytest.mark.parametrize("case", CASES)
def test_value_and_two_derivatives(case: Any) -> None:
    x, w = operands(case)
    dx, dw = operands(case, seed=1)
    strides, padding = case[3:]

    @jax.jit
    def values(x: Any, w: Any) -> Any:
        return conv(x, w, strides=strides, padding=padding), reference(x, w, strides, padding)

    close(*values(x, w))

    def derivatives(loss: Any, x: Any, w: Any, dx: Any, dw: Any) -> Any:
        grad = jax.grad(loss, (0, 1))

        def slope(x: Any, w: Any) -> Any:
            gx, gw = grad(x, w)
            return jnp.vdot(gx, dx) + jnp.vdot(gw, dw)

        reverse = jax.grad(slope, (0, 1))(x, w)
        _, forward = jax.jvp(grad, (x, w), (dx, dw))
        return grad(x, w), reverse, forward

    ours, theirs = of_both(case, derivatives, x, w, dx, dw)
    close(ours, theirs)
    close(ours[1], ours[2])  # rev-over-rev = fwd-over-rev


def test_not_finite_and_empty_images_pass_through() -> None:
    """The branch that fences im2col off must be taken whatever the pixels are."""
    w = jnp.ones((3, 3, 16, 1))
    for value in (jnp.nan, jnp.inf, -jnp.inf):
        x = jnp.ones((1, 4, 4, 16)).at[0, 0, 0, 0].set(value)
        y = conv(x, w)
        np.testing.assert_array_equal(y[0, 0, 0, 0], value)
        assert y[0, 3, 3, 0] == 64
    assert conv(jnp.ones((0, 4, 4, 16)), w).shape == (0, 4, 4, 1)


def test_third_derivative() -> None:
    case = CASES[1]
    x, w = operands(case)
    _, dw = operands(case, seed=1)

    def third(loss: Any, x: Any, w: Any, dw: Any) -> Any:
        def slope(w: Any) -> Any:
            return jax.jvp(jax.grad(lambda w: loss(x, w)), (w,), (dw,))[1]

        return jax.jvp(slope, (w,), (dw,))[1]

    close(*of_both(case, third, x, w, dw), 1e-11)


@pytest.mark.parametrize("case", [CASES[1], CASES[2], CASES[4], CASES[10]])
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)], ids=["x", "w", "both"])
def test_vmap(case: Any, axes: tuple[int | None, int | None]) -> None:
    xs, ws = operands(case, lead=(3,))
    x, w = xs if axes[0] == 0 else xs[0], ws if axes[1] == 0 else ws[0]
    dxs, dws = operands(case, seed=1, lead=(3,))
    dx, dw = dxs if axes[0] == 0 else dxs[0], dws if axes[1] == 0 else dws[0]

    def derivatives(loss: Any, *given: Any) -> Any:
        def one(x: Any, w: Any, dx: Any, dw: Any) -> Any:
            grad = jax.grad(loss, (0, 1))
            return loss(x, w), *jax.jvp(grad, (x, w), (dx, dw))

        return jax.vmap(one, (*axes, *axes))(*given)

    close(*of_both(case, derivatives, x, w, dx, dw))


@pytest.mark.parametrize("axes", [(0, None, None), (None, 0, None), (None, None, 0)])
def test_vmap_over_one_operand_of_each_map(axes: tuple[int | None, ...]) -> None:
    """With a fixed cotangent a gradient has one mapped operand, which must be folded alone."""
    case = CASES[1]
    xs, ws = operands(case, lead=(3,))
    strides, padding = case[3:]
    y = jax.vmap(lambda x, w: reference(x, w, strides, padding))(xs, ws)
    arguments = [a if axis == 0 else a[0] for a, axis in zip((xs, ws, y), axes, strict=True)]

    def ours(x: Any, w: Any) -> Any:
        return conv(x, w, strides=strides, padding=padding)

    def theirs(x: Any, w: Any) -> Any:
        return reference(x, w, strides, padding)

    a, b = (
        jax.jit(jax.vmap(lambda x, w, y, f=f: jax.vjp(f, x, w)[1](y), axes))(*arguments)
        for f in (ours, theirs)
    )
    close(a, b, 1e-11)


@pytest.mark.parametrize(
    ("outer", "inner"),
    [((0, 0), (0, 0)), ((0, None), (None, 0)), ((None, 0), (0, None)), ((0, 0), (0, None)),
     ((0, 0), (None, 0)), ((0, None), (0, 0)), ((None, 0), (0, 0))],
)  # fmt: skip
def test_nested_vmap(outer: tuple[int | None, int | None], inner: Any) -> None:
    case = CASES[1]
    x, w = operands(case, lead=(2, 3))
    take = {(True, True): lambda a: a, (True, False): lambda a: a[:, 0],
            (False, True): lambda a: a[0], (False, False): lambda a: a[0, 0]}  # fmt: skip
    x = take[outer[0] == 0, inner[0] == 0](x)
    w = take[outer[1] == 0, inner[1] == 0](w)

    def derivatives(loss: Any, x: Any, w: Any) -> Any:
        return jax.vmap(jax.vmap(jax.grad(loss, (0, 1)), inner), outer)(x, w)

    close(*of_both(case, derivatives, x, w))


def test_vmap_over_inner_axes_and_out_axes() -> None:
    case = CASES[1]
    x, w = operands(case, lead=(3,))
    strides, padding = case[3:]

    def ours(x: Any, w: Any) -> Any:
        return conv(x, w, strides=strides, padding=padding)

    expected = jax.vmap(ours)(x, w)
    moved = jax.vmap(ours, (4, 2), 3)(jnp.moveaxis(x, 0, 4), jnp.moveaxis(w, 0, 2))
    close(moved, jnp.moveaxis(expected, 0, 3))


def _hlo(lead_of_w: tuple[int, ...]) -> str:
    x = jax.ShapeDtypeStruct((3, 2, 6, 6, 4), jnp.float32)
    w = jax.ShapeDtypeStruct((*lead_of_w, 3, 3, 4, 5), jnp.float32)

    def step(x: Any, w: Any) -> Any:
        def loss(w: Any) -> Any:
            return jnp.sum(conv(x, w, strides=2) ** 2)

        return jax.jvp(jax.grad(loss), (w,), (w,))

    mapped = jax.vmap(step, (0, 0 if lead_of_w else None))
    return str(jax.jit(mapped).lower(x, w).compile().as_text())


@pytest.mark.parametrize("lead_of_w", [(), (3,)])
def test_no_grouped_convolution_in_hlo(lead_of_w: tuple[int, ...]) -> None:
    text = _hlo(lead_of_w)
    assert "dot" in text or "custom-call" in text
    assert "feature_group_count" not in text
    assert "batch_group_count" not in text
    assert " convolution(" not in text


def test_the_columns_of_an_input_are_gathered_once_on_cpu() -> None:
    """The forward pass, the gradient of w and its derivative by w read the same im2col matrix."""
    x, w = jnp.ones((2, 6, 6, 16)), jnp.ones((3, 3, 16, 20))

    def slope(x: Any, w: Any) -> Any:
        loss = lambda w: jnp.sum(jnp.sin(conv(x, w, strides=2)))  # noqa: E731
        return jnp.sum(jax.grad(loss)(w) ** 2)

    step = jax.jit(lambda x, w: (slope(x, w), jax.grad(slope, 1)(x, w)))
    compiled = str(step.lower(x, w).compile().as_text())
    assert compiled.count(" conditional(") == 1  # each gather is fenced by one


def test_accelerators_run_shared_kernels_through_the_library() -> None:
    x = jax.ShapeDtypeStruct((3, 2, 6, 6, 16), jnp.float32)
    shared = jax.ShapeDtypeStruct((3, 3, 16, 5), jnp.float32)
    own = jax.ShapeDtypeStruct((3, 3, 3, 16, 5), jnp.float32)

    def count(w: Any, axis: int | None) -> int:
        def step(x: Any, w: Any) -> Any:
            y, pull = jax.vjp(partial(conv, strides=2), x, w)
            return y, pull(y)

        traced = jax.jit(jax.vmap(step, (0, axis))).trace(x, w)
        text = str(traced.lower(lowering_platforms=("cuda",)).as_text())
        assert "stablehlo.case" not in text  # a branch would wait for the device there
        return text.count("stablehlo.convolution")

    assert count(shared, None) == 2  # the third, the gradient of w, is one a task
    assert count(own, 0) == 0


@pytest.mark.parametrize("case", [CASES[1], CASES[4], CASES[7], CASES[10]])
@pytest.mark.parametrize("groups", [1, 2])
def test_accelerator_form_is_the_same_map(case: Any, groups: int) -> None:
    module = contractions
    x, w = operands(case, lead=(groups,))
    (_, h, wd, _), kernel, _, strides, padding = case
    pads = padding
    if isinstance(padding, str):
        pads = tuple(lax.padtype_to_pads((h, wd), kernel, strides, padding))
    geometry = module.Geometry((h, wd), kernel, strides, pads)

    @jax.jit
    def both(x: Any, w: Any) -> Any:
        y = module.conv_product(x, w, geometry)
        return {
            "library": [
                library.conv_library(x, w, geometry),
                library.grad_x_library(y, w, geometry),
                library.grad_w_library(x, y, geometry),
            ],
            "product": [
                y,
                module.grad_x_product(y, w, geometry),
                module.grad_w_product(x, y, geometry),
            ],
        }

    found = both(x, w)
    close(found["library"], found["product"], 1e-11)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_dtypes(dtype: Any) -> None:
    case = CASES[1]
    x, w = (a.astype(dtype) for a in operands(case))
    y = conv(x, w, strides=2)
    assert y.dtype == dtype
    exact = conv(x.astype(float), w.astype(float), strides=2)
    tolerance = 4 * {2: 2.0**-7, 4: 2.0**-23, 8: 2.0**-52}[jnp.dtype(dtype).itemsize]
    np.testing.assert_allclose(y.astype(float), exact, rtol=tolerance, atol=10 * tolerance)
    assert jax.grad(lambda w: conv(x, w).sum())(w).dtype == dtype
    assert conv(x.astype(jnp.float32), w.astype(jnp.bfloat16)).dtype == jnp.float32


def test_checkpoint_linearize_and_eager() -> None:
    case = CASES[1]
    x, w = operands(case)
    ours, theirs = losses(case)
    close(jax.grad(jax.checkpoint(ours), (0, 1))(x, w), jax.grad(theirs, (0, 1))(x, w))
    _, linear = jax.linearize(lambda w: ours(x, w), w)
    close(linear(w), jax.jvp(lambda w: theirs(x, w), (w,), (w,))[1])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"padding": "CIRCULAR"}, "padding must be"),
        ({"padding": ((1, -1), (0, 0))}, "padding must be"),
        ({"padding": ((1, 1),)}, "padding must be"),
        ({"strides": 0}, "strides must be"),
        ({"strides": (1, 1, 1)}, "strides must be"),
    ],
)
def test_wrong_options(options: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        conv(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)), **options)


def test_wrong_shapes() -> None:
    with pytest.raises(InputError, match="equal channels"):
        conv(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 1)))
    with pytest.raises(InputError, match="does not fit"):
        conv(jnp.ones((1, 2, 4, 1)), jnp.ones((3, 3, 1, 1)), padding="VALID")
    with pytest.raises(InputError, match="floating-point"):
        conv(jnp.ones((1, 4, 4, 1), jnp.uint8), jnp.ones((3, 3, 1, 1), jnp.uint8))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": (3, 3)},
        {"kernel_size": (3, 2), "strides": (2, 1), "padding": "VALID"},
        {"kernel_size": (3, 3), "strides": 2, "padding": 1, "use_bias": False},
        {"kernel_size": (3, 3), "strides": 2, "padding": (1, (0, 2))},
        {"kernel_size": (3, 3), "dtype": jnp.bfloat16},
        {"kernel_size": (3, 3), "param_dtype": jnp.bfloat16},
    ],
)
def test_module_is_a_drop_in(options: dict[str, Any]) -> None:
    init = nn.initializers.normal()
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 6, 7, 3)), jnp.float32)
    ours, theirs = (c(features=4, bias_init=init, **options) for c in (Conv, nn.Conv))
    key = jax.random.key(0)
    params = jax.jit(ours.init)(key, x)
    close(params, jax.jit(theirs.init)(key, x))
    tolerance = 2e-2 if jnp.bfloat16 in options.values() else 2e-6
    y: Any = ours.apply(params, x)
    expected: Any = theirs.apply(params, x)
    close(y.astype(jnp.float32), expected.astype(jnp.float32), tolerance)
    assert y.dtype == expected.dtype


@pytest.mark.parametrize("lead", [(), (2,)])
def test_module_takes_any_leading_axes(lead: tuple[int, ...]) -> None:
    x = jnp.ones((*lead, 4, 4, 1))
    params = Conv(2, 3).init(jax.random.key(0), x)
    close(Conv(2, 3).apply(params, x), nn.Conv(2, (3, 3)).apply(params, x), 1e-6)


def test_module_casts_uint8_as_flax_does() -> None:
    x = jnp.ones((1, 4, 4, 1), jnp.uint8)
    params = Conv(2, 3).init(jax.random.key(0), x)
    close(Conv(2, 3).apply(params, x), nn.Conv(2, (3, 3)).apply(params, x), 1e-6)


def test_numbers_of_numpy_are_numbers():
    x, w = jnp.ones((1, 5, 5, 2)), jnp.ones((3, 3, 2, 4))
    found = conv(x, w, strides=np.int64(2), padding=np.int64(1))
    np.testing.assert_array_equal(found, conv(x, w, strides=2, padding=1))
    with pytest.raises(InputError, match="strides must be one or two positive whole numbers"):
        conv(x, w, strides=2.0)
