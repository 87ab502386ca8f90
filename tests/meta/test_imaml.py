"""iMAML against algebra (its problem is ridge regression to a point), unrolling and slopes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.data.sets.sinusoid import sinusoid
from jaxdl.errors import InputError
from jaxdl.losses import mean_squared_error
from jaxdl.meta.base import evaluate
from jaxdl.meta.imaml import SOLVER, imaml
from jaxdl.meta.inner import descend
from jaxdl.meta.maml import maml
from jaxdl.meta.solvers import conjugate_gradients, neumann
from jaxdl.models.mlp import mlp
from jaxdl.recipes.fit import fit
from jaxdl.recipes.gradient_learners import imaml_of_curves
from jaxdl.types import Batch, Episode, Model
from tests.meta.test_maml import LINEAR, gradient, regression

STRENGTH, RATE = 1.5, 0.1
EXACT = partial(conjugate_gradients, steps=3)


def meta_gradient(w, episode, *, strength=STRENGTH, **options):
    """In float64, compiled."""
    with jax.enable_x64(True):
        learner = imaml(LINEAR, mean_squared_error, strength=strength, **options)
        arguments = jax.tree.map(jnp.asarray, (w, episode))
        return jax.jit(learner.grad)(jax.random.key(0), 0, *arguments)


def hessian(batch):
    return 2 / len(batch.x) * batch.x.T @ batch.x


def minimum(w, support, strength=STRENGTH):
    """Of the support loss plus strength / 2 times the squared distance to w."""
    right = 2 / len(support.x) * support.x.T @ support.y + strength * w
    return np.linalg.solve(hessian(support) + strength * np.eye(3), right)


@pytest.mark.parametrize(
    "tx", [optax.sgd(RATE), optax.adam(optax.cosine_decay_schedule(0.1, 600))], ids=["sgd", "adam"]
)
def test_at_the_minimum_the_meta_gradient_is_the_closed_form(tx):
    """With any inner optimiser, because only its end counts."""
    w, episode = regression()
    at = minimum(w, episode.support)
    system = np.eye(3) + hessian(episode.support) / STRENGTH
    expected = np.linalg.solve(system, gradient(at, episode.query))
    grads, metrics = meta_gradient(w, episode, tx=tx, steps=600, solver=EXACT)
    np.testing.assert_allclose(grads, expected, rtol=1e-5)
    loss = np.mean((episode.query.x @ at - episode.query.y) ** 2)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-7)


@pytest.mark.parametrize(("strength", "damping"), [(0.5, 0.0), (2.0, 11.0)])
def test_the_meta_gradient_is_the_slope_of_a_minimum_under_a_pull_that_damping_strengthens(
    strength, damping
):
    """By central differences of what NumPy solves. A factor of `1 + damping` is the only freedom.

    The query loss is made linear at the minimum, because damping does not move the minimum itself.
    """
    w, episode = regression(5)
    weights = gradient(minimum(w, episode.support, strength), episode.query).T

    def query_loss(w):
        return (weights @ minimum(w, episode.support, (1 + damping) * strength)).item()

    shifts = 1e-4 * np.eye(3)[:, :, None]
    slope = [(query_loss(w + shift) - query_loss(w - shift)) / 2e-4 for shift in shifts]
    solver = partial(SOLVER, damping=damping, least_curvature=(1 + damping) / 2)
    options = {"tx": optax.sgd(RATE), "steps": 600, "strength": strength}
    grads, _ = meta_gradient(w, episode, solver=solver, **options)
    np.testing.assert_allclose((1 + damping) * np.asarray(grads)[:, 0], slope, rtol=1e-8)


@pytest.mark.parametrize(("steps", "damping"), [(0, 3.0), (1, 0.0), (4, 3.0)])
def test_before_it_the_query_gradient_is_that_at_the_last_step(steps, damping):
    w, episode = regression(1)
    at = w
    for _ in range(steps):
        at = at - RATE * (gradient(at, episode.support) + STRENGTH * (at - w))
    system = (1 + damping) * np.eye(3) + hessian(episode.support) / STRENGTH
    solvers = [partial(EXACT, damping=damping)]
    if not damping:
        solvers.append(partial(neumann, steps=300, rate=0.3))
    for solver in solvers:
        grads, _ = meta_gradient(w, episode, tx=optax.sgd(RATE), steps=steps, solver=solver)
        expected = np.linalg.solve(system, gradient(at, episode.query))
        np.testing.assert_allclose(grads, expected, rtol=1e-9)


SMOOTH = Model(
    init=lambda key, x: {
        "w": jax.random.normal(key, (x.shape[1], 4)),
        "v": jax.random.normal(key, (4, 1)),
    },
    apply=lambda params, x, *, key=None, weight=None: jnp.tanh(x @ params["w"]) @ params["v"],
)


def test_the_gradients_of_unrolling_and_of_differences_are_the_same_on_a_net():
    """A smooth net, a strong pull and steps until rounding: the inner problem is convex there."""
    strength = 4.0
    with jax.enable_x64(True):
        _, episode = regression(3)
        episode = jax.tree.map(jnp.asarray, episode)
        options = {"tx": optax.sgd(0.1), "steps": 200}
        exact = partial(conjugate_gradients, steps=16)
        learner = imaml(SMOOTH, mean_squared_error, strength=strength, solver=exact, **options)
        key = jax.random.key(0)
        params = learner.init(key, episode.support.x)

        def query_loss(params):
            adapted = learner.adapt(key, params, episode.support)
            return jnp.mean((learner.predict(adapted, episode.query.x) - episode.query.y) ** 2)

        def unrolled(params):
            def loss(at, key):
                prediction = SMOOTH.apply(at, episode.support.x)
                away = optax.tree.norm(optax.tree.sub(at, params), squared=True)
                return jnp.mean((prediction - episode.support.y) ** 2) + strength / 2 * away, {}

            adapted, _ = descend(loss, params, **options)
            return jnp.mean((SMOOTH.apply(adapted, episode.query.x) - episode.query.y) ** 2)

        grads, _ = jax.jit(learner.grad)(key, 0, params, episode)
        expected = jax.jit(jax.grad(unrolled))(params)
        query_loss = jax.jit(query_loss)
        direction = jax.tree.map(jnp.cos, params)
        shift = lambda h: jax.tree.map(lambda p, d: p + h * d, params, direction)  # noqa: E731
        slope = (query_loss(shift(1e-5)) - query_loss(shift(-1e-5))) / 2e-5
        along = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, grads, direction)))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-10), grads, expected)
    np.testing.assert_allclose(along, slope, rtol=1e-7)


def curved(prediction, target, weight=None):
    """Its Hessian by the prediction is diag(target), also below zero."""
    value = jnp.sum(target * prediction**2) / 2
    return value, {"loss": value}


@pytest.mark.parametrize(
    ("eigenvalues", "plain", "safe"),
    [
        # I + H / 2 is diag(-1.95, 2): of (1, 1) the curvature is 0.025. One step of 1 / 0.025.
        ((-5.9, 2.0), (40, 40), (1, 1)),
        # diag(0.25, 2): it has an inverse, and (1, 1) a curvature of 1.125, the next one 0.45.
        ((-1.5, 2.0), (4, 0.5), (1 / 1.125, 1 / 1.125)),
        ((4.0, 2.0), (1 / 3, 1 / 2), (1 / 3, 1 / 2)),
    ],
)
def test_negative_curvature_does_not_lengthen_the_meta_gradient(eigenvalues, plain, safe):
    """The net is its parameters. The query gradient is (1, 1), because there are no steps."""
    net = Model(lambda key, x: x[0], lambda params, x, *, key=None, weight=None: params)
    x = np.zeros((2, 1))
    episode = Episode(Batch(x, np.asarray(eigenvalues)), Batch(x, np.ones(2)))

    def meta_gradient(**options):
        with jax.enable_x64(True):
            learner = imaml(net, curved, tx=optax.sgd(0.1), steps=0, **options)
            return jax.jit(learner.grad)(jax.random.key(0), 0, jnp.ones(2), episode)[0]

    found = meta_gradient(solver=partial(conjugate_gradients, steps=2))
    np.testing.assert_allclose(found, plain, rtol=1e-9)
    undamped = partial(conjugate_gradients, steps=2, least_curvature=0.5)
    np.testing.assert_allclose(meta_gradient(solver=undamped), safe, rtol=1e-9)


def test_on_nets_with_indefinite_hessians_the_default_meta_gradient_stays_bounded():
    """That of plain conjugate gradients does not, on the same 200 nets and tasks.

    A zero Hessian would give the query gradient, and with damping a twelfth of it. So each is
    compared with that.
    """
    x = jnp.linspace(-2, 2, 6)[:, None]
    damping = SOLVER.keywords["damping"]
    plain = partial(conjugate_gradients, steps=5, least_curvature=-np.inf)
    no_steps = partial(conjugate_gradients, steps=0)

    @jax.jit
    @jax.vmap
    def lengths(key):
        one, two, start = jax.random.split(key, 3)
        support, query = (Batch(x, 5 * jax.random.normal(each, x.shape)) for each in (one, two))
        params = SMOOTH.init(start, x)

        def length(**options):
            learner = imaml(SMOOTH, mean_squared_error, tx=optax.sgd(0.01), steps=1, **options)
            return optax.tree.norm(learner.grad(key, 0, params, Episode(support, query))[0])

        scale = length(solver=no_steps)
        return (1 + damping) * length() / scale, length(solver=plain) / scale

    default, unbounded = lengths(jax.random.split(jax.random.key(0), 200))
    assert default.max() < 2
    assert unbounded.max() > 20


@pytest.mark.slow
def test_it_learns_sine_waves():
    """Seeds 0, 1 and 2 end at 0.38, 0.44 and 0.73. MAML is above 2 after as many steps."""
    learner = imaml_of_curves(mlp((40, 40, 1)), mean_squared_error, ways=1)
    sample = sinusoid(shots=10, queries=10)
    train_key, test_key = jax.random.split(jax.random.key(0))
    options = {"tx": optax.adam(0.001), "steps": 1500, "tasks": 25, "seeds": 1}
    params = fit(learner, sample, key=train_key, **options).params
    measure = evaluate(learner, mean_squared_error, sample, episodes=1000, depths=(0, None))
    params = jax.tree.map(lambda leaf: leaf[0], params)
    before, after = measure(test_key, params)["loss"].mean(axis=1)
    assert after < 1.0 < before


@pytest.mark.slow
def test_memory_does_not_grow_with_the_inner_steps(key):
    model, x = mlp((32, 32, 1)), jnp.ones((64, 1))
    episode = Episode(Batch(x, x), Batch(x, x))
    params = model.init(key, x)

    def temporaries(make, steps, **options):
        learner = make(model, mean_squared_error, tx=optax.sgd(0.01), steps=steps, **options)
        compiled = jax.jit(learner.grad).lower(key, 0, params, episode).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    for solver in (SOLVER, partial(neumann, steps=5, rate=0.1)):
        few, many = (temporaries(imaml, steps, solver=solver) for steps in (10, 100))
        assert many <= 1.01 * few
    assert temporaries(maml, 100) > 5 * temporaries(maml, 10)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": -1}, "`steps=-1`: choose 0 or more inner steps"),
        ({"strength": 0.0}, "`strength=0.0` does not tie .* Choose one above 0"),
        ({"tx": optax.sgd}, r"`tx=` is the function sgd. Call it"),
    ],
)
def test_what_has_no_meaning_is_refused(changes, words):
    with pytest.raises(InputError, match=words):
        imaml(LINEAR, mean_squared_error, **({"tx": optax.sgd(0.1), "steps": 1} | changes))
