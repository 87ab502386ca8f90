"""What all neural processes promise: a set has no order, weights are counts, queries are apart."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdl.errors import InputError
from jaxdl.losses import Normal, gaussian_nll
from jaxdl.meta.anp import anp
from jaxdl.meta.canp import canp
from jaxdl.meta.cnp import cnp
from jaxdl.meta.convcnp import convcnp
from jaxdl.meta.latent_process import divergence, drawn
from jaxdl.meta.lnp import lnp
from jaxdl.meta.tnp_d import tnp_d
from jaxdl.models.mlp import mlp
from jaxdl.models.process import Points
from jaxdl.models.process_paths import process_paths
from jaxdl.types import Batch, Episode, Model

RNG, KEY = np.random.default_rng(0), jax.random.key(0)
IDENTITY = Model(lambda key, x: (), lambda params, x, *, key=None, weight=None: x)
X, Y, ASKED = (jnp.asarray(RNG.uniform(-2, 2, size=(n, 1)), "float32") for n in (5, 5, 3))
LEARNERS = {
    "cnp": partial(cnp, width=8),
    "canp": partial(canp, width=4, heads=2),
    "convcnp": partial(convcnp, width=2, layers=1, density=4),
    "lnp": partial(lnp, width=8, samples=2),
    "anp": partial(anp, width=4, heads=2, samples=2),
    "tnp_d": partial(tnp_d, width=4, heads=2, layers=2),
}
SIZES = {"lnp": {"width": 8}, "anp": {"width": 4, "heads": 2}}
"""Of the nets of the latent learners."""


def learner_of(name):
    learner = LEARNERS[name](IDENTITY, gaussian_nll, ways=1)
    params = learner.init(jax.random.key(2), X)
    noise = np.random.default_rng(1).normal
    return learner, jax.tree.map(lambda p: p + 0.3 * noise(size=p.shape).astype(p.dtype), params)


FAST = ("cnp", "convcnp", "anp", "tnp_d")
"""CANP is a part of ANP, and NP one of CNP and ANP."""


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in LEARNERS],
    scope="module",
)
def answer(request):
    """`(x, y, weight, asked) -> Normal` of 8 support points and 3 queries: one program for all."""
    learner, params = learner_of(request.param)

    @jax.jit
    def run(x, y, weight, asked):
        return learner.predict(learner.adapt(KEY, params, Batch(x, y, weight)), asked)

    def padded(x=X, y=Y, weight=None, asked=ASKED, fill=0.0):
        weight = jnp.ones(len(x)) if weight is None else weight
        rest = 8 - len(x)
        x, y = (jnp.concatenate([leaf, jnp.full((rest, 1), fill)]) for leaf in (x, y))
        return run(x, y, jnp.concatenate([weight, jnp.zeros(rest)]), asked)

    return padded


def close(one, other):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), one, other)


def same(one, other):
    return all(jax.tree.leaves(jax.tree.map(partial(np.allclose, atol=1e-4), one, other)))


def test_what_a_set_promises(answer):
    found = answer()
    assert isinstance(found, Normal)
    assert (np.asarray(found.scale) > 0).all()
    order = jnp.array([3, 1, 4, 0, 2])
    close(answer(X[order], Y[order]), found)
    # What stands in a row of weight 0 counts for nothing, and a place before the others neither.
    close(answer(fill=jnp.nan), found)
    close(answer(fill=9.0), found)
    first = answer(*(jnp.concatenate([9 + X[:1], leaf]) for leaf in (X, Y)), jnp.arange(6.0) > 0)
    close(first, found)
    # A point of weight 2 is the point twice, and each point counts by input and target.
    twice = answer(*(jnp.concatenate([leaf, leaf[1:2]]) for leaf in (X, Y)))
    close(answer(weight=jnp.array([1.0, 2, 1, 1, 1])), twice)
    assert not same(twice, found)
    assert not same(answer(X.at[2].add(0.5)), found)
    assert not same(answer(y=Y.at[2].add(1.0)), found)
    # Of no point at all there is an answer, too.
    nothing = answer(weight=jnp.zeros(5))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(nothing))


def test_a_query_never_sees_another(answer):
    """Bit for bit; of a latent learner too, whose queries share the samples."""
    found, changed = answer(), answer(asked=ASKED.at[1].set(0.7))
    for one, other in zip(found, changed, strict=True):
        np.testing.assert_array_equal(one[::2], other[::2])
        assert not np.allclose(one[1], other[1])
    turned = answer(asked=ASKED[::-1])
    close(jax.tree.map(lambda leaf: leaf[::-1], turned), found)


def test_classes_and_other_widths_are_refused(key):
    learner, params = learner_of("cnp")
    with pytest.raises(InputError, match="targets are int32, and a neural process predicts num"):
        learner.adapt(key, params, Batch(X, jnp.zeros(5, "int32")))
    with pytest.raises(InputError, match=r"targets are \[5, 2\], and .* `ways=1` numbers each"):
        learner.adapt(key, params, Batch(X, jnp.ones((5, 2))))
    with pytest.raises(InputError, match="inputs of one feature, not 2"):
        convcnp(mlp((2,)), gaussian_nll, ways=1).init(key, X)
    with pytest.raises(InputError, match="`samples=0`: choose at least 1"):
        lnp(IDENTITY, gaussian_nll, ways=1, samples=0)


@pytest.mark.parametrize("name", ["cnp", pytest.param("tnp_d", marks=pytest.mark.slow)])
def test_the_loss_is_that_of_the_paper(name):
    """Of CNP, of the support set and the queries together; of TNP-D, of the queries alone."""
    learner, params = learner_of(name)
    weight = jnp.array([1.0, 1, 0, 1, 1])
    episode = Episode(Batch(X, Y, weight), Batch(ASKED, 2 * ASKED))
    metrics = jax.jit(lambda *given: learner.grad(*given)[1])(KEY, jnp.int32(0), params, episode)
    both = jnp.concatenate([X[weight > 0], ASKED]), jnp.concatenate([Y[weight > 0], 2 * ASKED])
    x, y = both if name == "cnp" else episode.query[:2]
    prediction = learner.predict(learner.adapt(KEY, params, episode.support), x)
    expected = -stats.norm.logpdf(y, *map(np.asarray, prediction)).mean()
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)


def test_short_floats_sample_what_long_ones_do():
    distribution = Normal(jnp.linspace(-1, 1, 5), jnp.linspace(0.5, 2, 5))
    exact = drawn(jax.random.key(0), distribution, 1000)
    short = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), distribution)
    found = drawn(jax.random.key(0), short, 1000)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, float), exact, rtol=0.02, atol=0.02)
    np.testing.assert_allclose(exact.mean(axis=0), distribution.mean, atol=0.2)
    np.testing.assert_allclose(exact.std(axis=0), distribution.scale, rtol=0.1)


def test_the_divergence_is_that_of_its_integral():
    (m, s), (n, t) = RNG.normal(size=(2, 2, 3)) ** 2 + 0.2
    grid = np.linspace(-30, 30, 200_001)[:, None]
    density = stats.norm.pdf(grid, m, s)
    values = density * (stats.norm.logpdf(grid, m, s) - stats.norm.logpdf(grid, n, t))
    expected = np.trapezoid(values, grid[:, 0], axis=0).sum()
    found = divergence(*(Normal(*(jnp.asarray(v) for v in each)) for each in ((m, s), (n, t))))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_the_bound_is_below_the_evidence_and_its_parts_add_up(name):
    """The evidence by 20,000 samples of the prior, per point of support set and queries."""
    learner, params = learner_of(name)
    episode = Episode(Batch(X, Y), Batch(ASKED, 2 * ASKED))
    whole = jnp.concatenate([X, ASKED]), jnp.concatenate([Y, 2 * ASKED])
    measure = jax.jit(lambda key: learner.grad(key, jnp.int32(0), params, episode)[1])
    found = [measure(key) for key in jax.random.split(KEY, 400)]
    bound = -np.mean([metrics["loss"] for metrics in found])
    for metrics in found[:3]:
        parts = metrics["kl"] - metrics["log_likelihood"]
        np.testing.assert_allclose(metrics["loss"], parts, rtol=1e-5)
    many = LEARNERS[name](IDENTITY, gaussian_nll, ways=1, samples=20_000)
    prediction = many.predict(many.adapt(KEY, params, episode.support), whole[0])
    evidence = gaussian_nll(prediction, whole[1])[1]["joint_log_likelihood"]
    error = np.std([metrics["loss"] for metrics in found]) / 20
    assert bound < evidence + 3 * error
    drawn = {float(metrics["log_likelihood"]) for metrics in found}
    assert len(drawn) > 100  # each key draws its own
    assert len({float(metrics["kl"]) for metrics in found}) == 1  # in closed form
    net = process_paths(2, latent=True, **SIZES[name])
    sets = Points(X, Y, jnp.ones(5)), Points(*whole, jnp.ones(8))
    prior, posterior = (net.encode(params.net, each).whole for each in sets)
    np.testing.assert_allclose(8 * found[0]["kl"], divergence(posterior, prior), rtol=1e-4)


def test_points_that_weigh_less_leave_more_to_the_divergence():
    """The bound is that of all points, over what they weigh together, which may be below 1."""
    learner, params = learner_of("lnp")
    found = []
    for weight in (1.0, 0.01):
        sets = [Batch(x, jnp.sin(x), jnp.full(len(x), weight)) for x in (X, ASKED)]
        _, metrics = learner.grad(KEY, jnp.int32(0), params, Episode(*sets))
        found.append((weight * metrics["kl"], metrics["loss"] - metrics["kl"]))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)
