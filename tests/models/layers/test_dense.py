"""Dense products: Flax's numbers, in every derivative and under every kind of vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from jaxdl.models.layers.dense import FEW, NARROW, Dense, product

LAYER = (((1,), (0,)), ((), ()))


@pytest.mark.parametrize("out", [1, 10, NARROW, NARROW + 1])
def test_a_dense_layer_computes_what_flax_computes(out, key):
    x = jax.random.normal(key, (3, 7, 20))
    ours, theirs = Dense(out), nn.Dense(out)
    params = theirs.init(key, x)
    assert jax.tree.map(jnp.shape, ours.init(key, x)) == jax.tree.map(jnp.shape, params)

    def loss(layer):
        return lambda params, x: jnp.sum(jnp.sin(layer.apply(params, x)))

    for f in (loss, lambda layer: jax.grad(loss(layer), (0, 1))):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
            f(ours)(params, x),
            f(theirs)(params, x),
        )


def matrix(x, w, *_):
    return x @ w


# Each of these takes another branch of the weight gradient: rows few or many, the narrower side
# left or right, a single column or input.
SIZES = [(5, 7, 4), (5, 4, 7), (FEW + 1, 4, 3), (5, 6, 1), (5, 1, 6), (5, 6, NARROW + 1)]


@pytest.mark.parametrize("over", ["neither", "x", "w", "both"])
@pytest.mark.parametrize("sizes", SIZES)
def test_every_derivative_under_every_vmap_is_that_of_a_matrix_product(sizes, over, key):
    rows, inputs, outputs = sizes
    with jax.enable_x64(True):
        tasks = {"neither": (), "x": (3,), "w": (3,), "both": (3,)}[over]
        keys = jax.random.split(key, 4)
        x_of = tasks if over in ("x", "both") else ()
        w_of = tasks if over in ("w", "both") else ()
        x, dx = jax.random.normal(keys[0], (2, *x_of, rows, inputs), float)
        w, dw = jax.random.normal(keys[1], (2, *w_of, inputs, outputs), float)
        axes = (0 if x_of else None, 0 if w_of else None)

        def found(times):  # a program each: one by one, its operations take longer to compile
            def loss(x, w):
                layer = lambda x, w: times(x, w, LAYER)  # noqa: E731
                return jnp.sum(jnp.sin((jax.vmap(layer, axes) if tasks else layer)(x, w)))

            def slope(x, w):  # reverse mode, to be differentiated again by either
                gx, gw = jax.grad(loss, (0, 1))(x, w)
                return jnp.vdot(gx, dx) + jnp.vdot(gw, dw)

            def derivatives(x, w):
                return (
                    loss(x, w),
                    jax.grad(loss, (0, 1))(x, w),
                    jax.grad(slope, (0, 1))(x, w),
                    jax.jvp(jax.grad(loss, (0, 1)), (x, w), (dx, dw)),
                )

            return jax.jit(derivatives)(x, w)

        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10),
            found(product),
            found(matrix),
        )


@pytest.mark.parametrize("mapped", ["x", "w", "cotangent"])
def test_each_gradient_under_vmap_of_one_operand_alone(mapped, key):
    shapes = {"x": (5, 7), "w": (7, 4), "cotangent": (5, 4)}
    operands = {
        name: jax.random.normal(
            jax.random.fold_in(key, i), (3, *shape) if name == mapped else shape
        )
        for i, (name, shape) in enumerate(shapes.items())
    }
    axes = [0 if name == mapped else None for name in shapes]

    def pulled(times):
        return lambda x, w, y: jax.vjp(lambda x, w: times(x, w, LAYER), x, w)[1](y)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        jax.vmap(pulled(product), axes)(*operands.values()),
        jax.vmap(pulled(matrix), axes)(*operands.values()),
    )


def test_tasks_with_weights_of_their_own_and_a_gradient_each(key):
    x = jax.random.normal(key, (4, 5, 20))
    w = jax.random.normal(key, (4, 20, 10))
    grad = jax.vmap(jax.grad(lambda w, x: jnp.sum(product(x, w, LAYER) ** 2)))
    y = jnp.einsum("tni,tio->tno", x, w)
    np.testing.assert_allclose(grad(w, x), 2 * jnp.einsum("tni,tno->tio", x, y), rtol=1e-4)


def test_seeds_of_tasks_with_weights_of_their_own(key):
    x = jax.random.normal(key, (2, 3, 5, 7))
    w = jax.random.normal(key, (2, 3, 7, 4))
    shared = w[:, 0]
    twice = jax.vmap(jax.vmap(lambda x, w: product(x, w, LAYER)))
    np.testing.assert_allclose(twice(x, w), x @ w, rtol=1e-5, atol=1e-5)
    once = jax.vmap(jax.vmap(lambda x, w: product(x, w, LAYER), (0, None)))
    np.testing.assert_allclose(once(x, shared), x @ shared[:, None], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shapes", [((0, 3), (3, 4)), ((2, 0), (0, 4)), ((2, 3), (3, 0))])
def test_empty_products_are_empty_or_zero(shapes):
    x, w = (jnp.ones(shape) for shape in shapes)
    np.testing.assert_array_equal(product(x, w, LAYER), x @ w)
    none = jax.vmap(lambda x: product(x, w, LAYER))(jnp.ones((0, *x.shape)))
    assert none.shape == (0, x.shape[0], w.shape[1])


def test_bfloat16_stays_bfloat16_in_the_gradients(key):
    x, w = jnp.ones((3, 5), jnp.bfloat16), jnp.ones((5, 2), jnp.bfloat16)
    y, pull = jax.vjp(lambda x, w: product(x, w, LAYER), x, w)
    assert {a.dtype for a in (y, *pull(y))} == {jnp.dtype(jnp.bfloat16)}


def test_accelerators_get_plain_products():
    def step(x, w):
        y, pull = jax.vjp(lambda x, w: product(x, w, LAYER), x, w)
        return y, pull(y)

    traced = jax.jit(jax.vmap(step)).trace(jnp.ones((4, 5, 20)), jnp.ones((4, 20, 10)))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("dot_general") == 3
    assert "optimization_barrier" not in text


def test_a_word_about_precision_is_heard():
    with jax.default_matmul_precision("highest"):
        text = str(jax.make_jaxpr(lambda x: product(x, x, LAYER))(jnp.ones((3, 3))))
    assert "HIGHEST" in text


def test_shapes_that_do_not_fit_are_refused_when_traced():
    with pytest.raises(TypeError, match="contracting dimension"):
        jax.eval_shape(lambda x, w: product(x, w, LAYER), jnp.ones((2, 5)), jnp.ones((4, 3)))


@pytest.mark.parametrize(
    ("x", "w", "numbers", "options"),
    [
        (jnp.ones((2, 3)), jnp.ones((3, 4)), LAYER, {"precision": lax.Precision.HIGHEST}),
        (jnp.ones((2, 3)), jnp.ones((3, 4)), LAYER, {"preferred_element_type": jnp.float32}),
        (jnp.ones((2, 3), int), jnp.ones((3, 4), int), LAYER, {}),
        (jnp.ones((3, 2)), jnp.ones((3, 4)), (((0,), (0,)), ((), ())), {}),
        (jnp.ones((5, 2, 3)), jnp.ones((5, 3, 4)), (((2,), (1,)), ((0,), (0,))), {}),
    ],
    ids=["precision", "type", "integers", "other axes", "batched"],
)
def test_what_is_no_plain_layer_is_left_to_lax(x, w, numbers, options):
    ours = jax.make_jaxpr(lambda x, w: product(x, w, numbers, **options))(x, w)
    theirs = jax.make_jaxpr(lambda x, w: lax.dot_general(x, w, numbers, **options))(x, w)
    assert str(ours) == str(theirs)
