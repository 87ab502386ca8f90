"""Hypergradients against algebra (ridge regression), finite differences and one another."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import expit

from jaxdl.errors import InputError
from jaxdl.grads import objective, over_tasks
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.meta import inner
from jaxdl.meta.hypergradient import hypergradient, minimise
from jaxdl.meta.maml import maml
from jaxdl.meta.solvers import conjugate_gradients, neumann
from jaxdl.models.mlp import mlp
from jaxdl.train.steps import init_state, make_step
from jaxdl.types import Batch, Episode
from tests.meta.contract import CLASSIFICATION, REGRESSION

WAYS_TO = {
    "unrolled": None,
    "conjugate gradients": partial(conjugate_gradients, steps=20),
    "Neumann series": partial(neumann, steps=400, rate=0.3),
}
by_each = pytest.mark.parametrize("solver", WAYS_TO.values(), ids=WAYS_TO)


def zeros(key, hyper, support):
    return jnp.zeros((support.x.shape[1], 1))


def converged(inner_loss, outer_loss, solver, start=zeros):
    return hypergradient(
        inner_loss, outer_loss, start=start, tx=optax.sgd(0.3), steps=400, solver=solver
    )


def found_by(grad, hyper, episode):
    """In float64, compiled."""
    with jax.enable_x64(True):
        hyper, episode = jax.tree.map(jnp.asarray, (hyper, episode))
        grads, metrics = jax.jit(grad)(jax.random.key(0), 0, hyper, episode)
        return jax.tree.map(np.asarray, grads), metrics


# ---- ridge regression: the solution, and so its derivatives, are known


def ridge(w, key, hyper, data):
    """Weighted squares and a ridge, over the number of examples. No key: it draws nothing."""
    assert key is None
    squares = jnp.sum(hyper["weight"] * ((data.x @ w - data.y) ** 2)[:, 0])
    value = (squares + hyper["strength"] * jnp.sum(w**2)) / (2 * len(data.x))
    return value, {}


def validation(w, key, hyper, data):
    """It depends on the strength directly, too."""
    value = jnp.mean((data.x @ w - data.y) ** 2) + 0.01 * hyper["strength"] ** 2
    return value, {"loss": value}


def ridge_problem():
    rng = np.random.default_rng(0)
    data = [Batch(rng.normal(size=(12, 3)), rng.normal(size=(12, 1))) for _ in range(2)]
    return {"strength": np.asarray(2.0), "weight": rng.uniform(0.5, 1.5, size=12)}, Episode(*data)


@by_each
def test_ridge_regression_has_the_hypergradient_of_algebra(solver):
    """By the strength of the ridge and by the weight of each example.

    w = A^-1 X'Sy with A = X'SX + strength I. So dw / dstrength = -A^-1 w, and
    dw / ds_i = -A^-1 x_i (x_i w - y_i).
    """
    hyper, episode = ridge_problem()
    (x, y, _), (query_x, query_y, _) = episode
    inverse = np.linalg.inv(x.T * hyper["weight"] @ x + hyper["strength"] * np.eye(3))
    w = inverse @ (x.T * hyper["weight"] @ y)
    slope = 2 / 12 * query_x.T @ (query_x @ w - query_y)
    expected = {
        "strength": -(slope.T @ inverse @ w).item() + 0.02 * hyper["strength"],
        "weight": -((slope.T @ inverse @ x.T) * (x @ w - y).T)[0],
    }
    found, metrics = found_by(converged(ridge, validation, solver), hyper, episode)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-8), found, expected)
    error = np.mean((query_x @ w - query_y) ** 2) + 0.01 * hyper["strength"] ** 2
    np.testing.assert_allclose(metrics["loss"], error, rtol=1e-8)


def test_too_few_steps_separate_the_ways():
    """Unrolled is the slope of what was done, implicit that of a minimum that was not reached."""
    hyper, episode = ridge_problem()
    options = {"start": zeros, "tx": optax.sgd(0.3), "steps": 3}
    grads = [
        found_by(hypergradient(ridge, validation, **options, solver=solver), hyper, episode)[0]
        for solver in (None, WAYS_TO["conjugate gradients"])
    ]
    assert not np.allclose(grads[0]["weight"], grads[1]["weight"], rtol=1e-2)

    def outer(strength):
        with jax.enable_x64(True):
            now = hyper | {"strength": jnp.asarray(strength)}
            w, _ = inner.descend(
                ridge, np.zeros((3, 1)), optax.sgd(0.3), now, episode.support, steps=3
            )
            return float(validation(w, None, now, episode.query)[0])

    difference = (outer(2.0 + 1e-5) - outer(2.0 - 1e-5)) / 2e-5
    np.testing.assert_allclose(grads[0]["strength"], difference, rtol=1e-7)


# ---- trees, labels and nets: what no closed form has


def learned_loss(params, key, hyper, data):
    """A net that gets the logits and the label is the loss; a ridge per layer keeps it convex."""
    logits = data.x @ params["kernel"] + params["bias"][None]
    given = jnp.concatenate([logits, jax.nn.one_hot(data.y, 3)], axis=1)
    hidden = jax.nn.softplus(given @ hyper["net"]["in"])
    errors = optax.losses.softmax_cross_entropy_with_integer_labels(logits, data.y)
    value = jnp.mean(errors + 0.1 * hidden @ hyper["net"]["out"])
    ridges = [jnp.exp(hyper["ridge"][name]) * jnp.sum(params[name] ** 2) for name in params]
    return value + sum(ridges) / 2, {}


def clean_loss(params, key, hyper, data):
    logits = data.x @ params["kernel"] + params["bias"][None]
    return cross_entropy(logits, data.y)


def start_of_classes(key, hyper, support):
    return {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}


@by_each
def test_a_learned_loss_has_the_slope_of_finite_differences(solver):
    """In a random direction of all hyperparameters: a tree, integer labels, mixed blocks."""
    rng = np.random.default_rng(1)
    data = [Batch(rng.normal(size=(9, 4)), np.arange(9) % 3) for _ in range(2)]
    hyper = {
        "net": {"in": rng.normal(size=(6, 5)), "out": rng.uniform(size=5)},
        "ridge": {"kernel": np.asarray(-0.5), "bias": np.asarray(0.1)},
    }
    grad = converged(learned_loss, clean_loss, solver, start_of_classes)
    grads, _ = found_by(grad, hyper, Episode(*data))
    direction = jax.tree.map(lambda leaf: np.cos(7 * leaf), hyper)

    def outer(h):
        moved = jax.tree.map(lambda leaf, along: leaf + h * along, hyper, direction)
        return float(found_by(grad, moved, Episode(*data))[1]["loss"])

    slope = (outer(1e-4) - outer(-1e-4)) / 2e-4
    along = sum(jax.tree.leaves(jax.tree.map(np.vdot, grads, direction)))
    np.testing.assert_allclose(along, slope, rtol=1e-6)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("problem", [CLASSIFICATION, REGRESSION], ids=["classes", "lines"])
def test_an_unrolled_initialisation_is_maml(problem, key):
    """The start is the hyperparameter: its direct path counts where the steps are unrolled."""
    model, loss, sample = problem
    value = objective(model, loss)
    grad = hypergradient(
        lambda params, key, hyper, support: value(params, key, support),
        lambda params, key, hyper, query: value(params, None, query),
        start=lambda key, hyper, support: hyper,
        tx=optax.sgd(0.1),
        steps=3,
    )
    episode = sample(key)
    params = model.init(key, episode.support.x)
    of_maml = maml(model, loss, tx=optax.sgd(0.1), steps=3).grad
    found, expected = (jax.jit(each)(key, 0, params, episode) for each in (grad, of_maml))
    check = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(check, found, expected)


def test_an_implicit_derivative_by_the_start_is_zero():
    solver = WAYS_TO["conjugate gradients"]

    def solution(start):
        loss = lambda w, key: (jnp.sum(w**2), {})  # noqa: E731
        return jnp.sum(minimise(loss, start, optax.sgd(0.1), steps=2, solver=solver))

    value, slope = jax.value_and_grad(solution)(jnp.ones(3))
    np.testing.assert_allclose(value, 3 * 0.8**2, rtol=1e-6)
    np.testing.assert_array_equal(slope, np.zeros(3))


def test_a_solution_inside_a_scan_has_the_second_derivative_of_finite_differences():
    with jax.enable_x64(True):
        a, v = jnp.asarray([0.3, -0.5, 0.7]), jnp.asarray([1.0, 2.0, -1.0])

        def loss(w, key, a):
            return jnp.sum((w - jnp.sin(a)) ** 2 / 2 + w**4 / 4 + w * a**3), {}

        def once(a, _):
            options = {"steps": 100, "solver": partial(conjugate_gradients, steps=3)}
            return minimise(loss, 0 * a, optax.sgd(0.5), a, **options), None

        slope = jax.grad(lambda a: jnp.sum(jax.lax.scan(once, a, None, length=1)[0] ** 3))
        found = jax.jit(lambda a: jax.vjp(slope, a)[1](v)[0])(a)
        expected = jax.jit(lambda a: (slope(a + 1e-5 * v) - slope(a - 1e-5 * v)) / 2e-5)(a)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_key_draws_one_hessian_for_all_products(key):
    """Of (s w - a)^2 / 2 with a random s. A Hessian that changed would not give (s s)^-1 s."""
    seen = []

    def loss(w, step_key, a):
        s = 1 + jax.random.uniform(step_key, (3,))
        return jnp.sum((s * w - a) ** 2) / 2, {}

    def solver(product, b):
        seen.extend([product(jnp.ones(3)), product(jnp.ones(3)), product(2 * jnp.ones(3)) / 2])
        return conjugate_gradients(product, b, steps=3)

    def solution(a):
        return minimise(loss, jnp.zeros(3), optax.sgd(0.1), a, steps=2, solver=solver, key=key)

    slopes = jax.jacobian(lambda a: solution(a))(jnp.ones(3))
    scale = jnp.sqrt(seen[0])
    np.testing.assert_allclose(slopes, np.diag(1 / scale), rtol=1e-5, atol=1e-6)
    for each in seen[1:]:
        np.testing.assert_allclose(each, seen[0], rtol=1e-6)


def test_memory_grows_with_the_steps_only_where_they_are_unrolled():
    hyper, episode = jax.tree.map(np.float32, ridge_problem())
    wide = jax.tree.map(lambda leaf: np.tile(leaf, (40, 1)), episode)
    hyper["weight"] = np.tile(hyper["weight"], 40)

    def temporaries(solver, steps):
        grad = hypergradient(
            ridge, validation, start=zeros, tx=optax.sgd(0.1), steps=steps, solver=solver
        )
        compiled = jax.jit(grad).lower(jax.random.key(0), 0, hyper, wide).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    solvers = partial(conjugate_gradients, steps=5), partial(neumann, steps=5, rate=0.1)
    for solver in solvers:
        assert temporaries(solver, 100) <= 1.01 * temporaries(solver, 10)
    assert temporaries(None, 100) > 5 * temporaries(None, 10)


def test_fewer_than_no_steps_are_refused():
    loss = lambda w, key: (w**2, {})  # noqa: E731
    with pytest.raises(InputError, match="steps=-1: choose 0 or more inner steps"):
        minimise(loss, 1.0, optax.sgd(0.1), steps=-1, solver=WAYS_TO["conjugate gradients"])


# ---- they train


@by_each
def test_weights_of_examples_learn_which_labels_are_wrong(solver):
    """Of 12 examples of a line, 4 have the wrong sign. Clean validation data tell them apart."""
    rng = np.random.default_rng(2)
    x, query_x = rng.normal(size=(2, 12, 3)).astype("float32")
    true = np.array([[1.0], [-2.0], [0.5]], "float32")
    wrong = np.arange(12) % 3 == 0
    y = x @ true * np.where(wrong, -1, 1)[:, None].astype("float32")
    episode = Episode(Batch(x, y), Batch(query_x, query_x @ true))

    def weighted(w, key, hyper, data):
        weight = {"weight": jax.nn.sigmoid(hyper), "strength": 0.1}
        return ridge(w, key, weight, data)

    def clean(w, key, hyper, data):
        return mean_squared_error(data.x @ w, data.y)

    tx = optax.adam(0.1)
    step = make_step(converged(weighted, clean, solver), tx)

    def train(state, key):
        state, metrics = step(key, state, episode)
        return state, metrics["loss"]

    keys = jax.random.split(jax.random.key(0), 60)
    state, losses = jax.jit(jax.lax.scan, static_argnums=0)(
        train, init_state(jnp.zeros(12), tx), keys
    )
    assert losses[-1] < 0.1 * losses[0]
    weights = expit(np.asarray(state.params))
    assert weights[wrong].max() < 0.2 < 0.5 < weights[~wrong].min()


def planes(key):
    """Planes of random slope. Of 10 support points, 3 have large errors, and no query has one."""
    slope_key, x_key, wrong_key = jax.random.split(key, 3)
    x = jax.random.normal(x_key, (20, 2))
    y = x @ jax.random.normal(slope_key, (2, 1))
    wrong = y.at[:3].add(4 * jax.random.normal(wrong_key, (3, 1)))
    return Episode(Batch(x[:10], wrong[:10]), Batch(x[10:], y[10:]))


def test_a_net_learns_to_be_a_robust_loss(key):
    """From the squared error to a number. In a task, descent on it beats that on squared error."""
    critic = mlp((8, 1))

    def learned(w, key, hyper, data):
        return jnp.mean(jax.nn.softplus(critic.apply(hyper, (data.x @ w - data.y) ** 2))), {}

    def squared(w, key, hyper, data):
        return mean_squared_error(data.x @ w, data.y)

    def mean_grad(inner_loss):
        options = {"start": zeros, "tx": optax.sgd(0.1), "steps": 30}
        return over_tasks(hypergradient(inner_loss, squared, **options))

    tx = optax.adam(0.03)
    step, baseline = make_step(mean_grad(learned), tx), mean_grad(squared)

    def train(state, key):
        episodes = jax.vmap(planes)(jax.random.split(key, 16))
        _, by_squares = baseline(key, 0, state.params, episodes)
        state, metrics = step(key, state, episodes)
        return state, (metrics["loss"], by_squares["loss"])

    state, keys = init_state(critic.init(key, jnp.ones((2, 1))), tx), jax.random.split(key, 300)
    _, (by_learned, by_squares) = jax.jit(jax.lax.scan, static_argnums=0)(train, state, keys)
    assert by_learned[-100:].mean() < 0.5 * by_squares.mean()
