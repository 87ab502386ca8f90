"""One suite for every algorithm: what `MetaLearner` and `TransferLearner` promise.

What both share (`TaskLearner`) is tested for all rows; the gradient of an episode for `META`, and
that of labelled examples for `TRANSFER`. A new algorithm adds a row to one of the two.
"""

import inspect
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxdl import parallel
from jaxdl.errors import InputError
from jaxdl.grads import over_tasks
from jaxdl.losses import Normal
from jaxdl.meta import estimators
from jaxdl.meta.anil import anil
from jaxdl.meta.anp import anp
from jaxdl.meta.base import evaluate
from jaxdl.meta.baseline_pp import baseline_pp
from jaxdl.meta.boil import boil
from jaxdl.meta.canp import canp
from jaxdl.meta.cavia import cavia
from jaxdl.meta.cnp import cnp
from jaxdl.meta.convcnp import convcnp
from jaxdl.meta.es_maml import es_maml
from jaxdl.meta.finetune import finetune
from jaxdl.meta.imaml import SOLVER, imaml
from jaxdl.meta.linear_probe import linear_probe
from jaxdl.meta.lnp import lnp
from jaxdl.meta.lstm_learner import lstm_learner
from jaxdl.meta.maml import fomaml, maml
from jaxdl.meta.maml_pp import maml_pp
from jaxdl.meta.matchingnet import matchingnet
from jaxdl.meta.meta_curvature import meta_curvature
from jaxdl.meta.meta_sgd import meta_sgd
from jaxdl.meta.metaoptnet import metaoptnet
from jaxdl.meta.nearest_centroid import nearest_centroid
from jaxdl.meta.pfn import pfn
from jaxdl.meta.proto_maml import proto_maml
from jaxdl.meta.protonet import protonet
from jaxdl.meta.r2d2 import r2d2
from jaxdl.meta.raw_logistic import raw_logistic
from jaxdl.meta.relationnet import relationnet
from jaxdl.meta.reptile import reptile
from jaxdl.meta.rfs import rfs
from jaxdl.meta.simpleshot import simpleshot
from jaxdl.meta.snail import snail
from jaxdl.meta.solvers import conjugate_gradients, neumann
from jaxdl.meta.support_statistics import by_support_statistics
from jaxdl.meta.tabular import tabular
from jaxdl.meta.tnp_d import tnp_d
from jaxdl.models.mlp import mlp
from jaxdl.train.loop import loop
from jaxdl.train.steps import init_states, make_step
from jaxdl.train.streams import task_stream
from jaxdl.types import Batch, MetaLearner, TransferLearner
from tests.meta.contract import (
    CLASSIFICATION,
    DISTRIBUTIONS,
    REGRESSION,
    WAYS,
    Row,
    as_numbers,
    at_the_adapted,
    blobs,
    but_for_the_mean,
    implicitly,
    over_the_noise,
    uneven,
    way_back,
)
from tests.readme import example


def with_outputs(make, **options):
    """A learner that puts a head on its model: one output for a regression."""
    return lambda model, loss, **more: make(
        model, loss, ways=WAYS if loss is CLASSIFICATION[1] else 1, **options, **more
    )


SGD = optax.sgd(0.1)
SMALL_SGD = optax.sgd(0.02)
"""Of 50 steps. Steps of 0.1 diverge as training sharpens the net, and iMAML does not see them."""


def by_outputs(make, **options):
    """A learner for classes, or for the single number of a regression."""
    return lambda model, loss, **more: make(
        model, loss, ways=1 if loss is REGRESSION[1] else WAYS, **options, **more
    )


def process(name, make, **options):
    """The row of a neural process."""
    options |= {"distributes": True, "depth_matters": False, "drops": False}
    return Row(name, partial(make, ways=1), **options)


FIVE_TERMS = partial(neumann, steps=5, rate=0.04)

META = [
    Row("maml", partial(maml, tx=SGD, steps=2)),
    Row("fomaml", partial(fomaml, tx=SGD, steps=2), instead=at_the_adapted),
    Row(
        "maml, mixed mode",
        partial(maml, tx=SGD, steps=2, estimator=estimators.mixed_mode),
        regresses=False,
        variant=True,
    ),
    Row(
        "maml, adam inside",
        partial(maml, tx=optax.adam(0.05, eps_root=1e-4), steps=2),  # less makes signs of noise
        regresses=False,
        variant=True,
    ),
    Row("reptile", partial(reptile, tx=SGD, steps=2), instead=way_back),
    Row("anil", with_outputs(anil, tx=SGD, steps=2)),
    Row("boil", with_outputs(boil, tx=SGD, steps=2)),
    Row("meta_sgd", partial(meta_sgd, steps=2)),
    Row("meta_curvature", partial(meta_curvature, inner_lr=0.1, steps=2)),
    Row("maml_pp", partial(maml_pp, steps=2), heavy=True),
    Row(
        "maml_pp, statistics of the support set",
        lambda model, loss, **more: by_support_statistics(
            maml_pp(model, loss, steps=2, **more), loss
        ),
        regresses=False,
        variant=True,
    ),
    Row(
        "es_maml",
        partial(es_maml, tx=SGD, steps=2),
        heavy=True,
        instead=over_the_noise,
    ),
    Row("cavia", partial(cavia, steps=2)),
    Row("imaml", partial(imaml, tx=SMALL_SGD, steps=50), heavy=True, instead=implicitly(SOLVER)),
    Row(
        "imaml, Neumann series",
        partial(imaml, tx=SMALL_SGD, steps=50, solver=FIVE_TERMS),
        regresses=False,
        variant=True,
        instead=implicitly(FIVE_TERMS),
    ),
    Row(
        "imaml, solved",
        partial(
            imaml,
            tx=SMALL_SGD,
            steps=200,
            strength=10.0,
            solver=partial(conjugate_gradients, steps=80),
        ),
        regresses=False,
        variant=True,
        reverse_only="the minimum is a custom_vjp, whose derivative is the implicit one",
    ),
    Row(
        "README example",
        lambda model, loss: example()["maml_with_rates"](model, loss, steps=2),
        drops=False,
        variant=True,
    ),
    Row("protonet", partial(protonet, ways=WAYS), regresses=False, depth_matters=False),
    Row("proto_maml", partial(proto_maml, ways=WAYS, tx=SGD, steps=2), regresses=False),
    Row("matchingnet", partial(matchingnet, ways=WAYS), regresses=False, depth_matters=False),
    Row("relationnet", partial(relationnet, ways=WAYS), regresses=False, depth_matters=False),
    Row("metaoptnet", partial(metaoptnet, ways=WAYS, strength=1.0), depth_matters=False),
    Row("r2d2", partial(r2d2, ways=WAYS), depth_matters=False),
    Row(
        "maml, statistics of the support set",
        lambda model, loss, **more: by_support_statistics(
            maml(model, loss, tx=SGD, steps=2, **more), loss
        ),
        regresses=False,
    ),
    Row("lstm_learner", by_outputs(lstm_learner, units=16), depth_matters=False, ordered=True),
    Row(
        "snail",
        by_outputs(snail, length=2, width=4),
        depth_matters=False,
        ordered=True,
        heavy=True,
    ),
    Row("pfn", by_outputs(pfn, width=16, heads=2, layers=1), depth_matters=False),
    Row(
        "tabular",
        lambda model, loss: tabular(loss, ways=WAYS, features=8, width=16, layers=1, group=2),
        regresses=False,
        depth_matters=False,
        drops=False,
        heavy=True,
    ),
    process("cnp", partial(cnp, width=8), heavy=True),
    process("canp", partial(canp, width=8, heads=2), heavy=True),
    process("convcnp", partial(convcnp, width=4, layers=1, density=4), heavy=True),
    process("lnp", partial(lnp, width=8, samples=3), samples=True, heavy=True),
    process("anp", partial(anp, width=8, heads=2, samples=3), samples=True, heavy=True),
    process("tnp_d", partial(tnp_d, width=8, heads=2, layers=1), heavy=True),
    Row(
        "nearest centroid",
        lambda model, loss: nearest_centroid(loss, ways=WAYS),
        regresses=False,
        trains=False,
        depth_matters=False,
        drops=False,
    ),
    Row(
        "nearest centroid by cosine",
        lambda model, loss: nearest_centroid(loss, ways=WAYS, distance="cosine"),
        regresses=False,
        trains=False,
        depth_matters=False,
        drops=False,
    ),
    Row(
        "logistic regression on the inputs",
        lambda model, loss: raw_logistic(loss, ways=WAYS),
        regresses=False,
        trains=False,
        depth_matters=False,
        drops=False,
    ),
]
TRANSFER = [
    Row("finetune", partial(finetune, classes=7, ways=WAYS, tx=SGD, steps=2), regresses=False),
    Row(
        "simpleshot",
        partial(simpleshot, classes=7, ways=WAYS),
        regresses=False,
        depth_matters=False,
        instead=but_for_the_mean,
    ),
    Row(
        "finetune, statistics of the support set",
        lambda *given, **more: by_support_statistics(
            finetune(*given, classes=7, ways=WAYS, tx=SGD, steps=2, **more)
        ),
        regresses=False,
        variant=True,
    ),
    Row(
        "linear probe",
        partial(linear_probe, classes=7, ways=WAYS, tx=SGD, steps=2),
        regresses=False,
    ),
    Row(
        "baseline_pp",
        partial(baseline_pp, classes=7, ways=WAYS, tx=SGD, steps=2),
        regresses=False,
    ),
    Row("rfs", partial(rfs, classes=7, ways=WAYS), regresses=False, depth_matters=False),
]


CORE = {"maml", "protonet", "finetune"}
"""One of each kind: the only rows that the fast tests try in every way."""


def marks_of(row, core=False, essential=False):
    slow = row.variant or (row.heavy and not essential) or (core and row.name not in CORE)
    return [pytest.mark.slow] * slow


def cases_of(rows, core=False):
    """Each algorithm on each problem that it learns."""
    cases = [
        pytest.param((row, problem), id=f"{row.name} {name}", marks=marks_of(row, core))
        for row in rows
        for name, problem in row.problems.items()
    ]
    return pytest.mark.parametrize("case", cases, indirect=True)


def each(rows, core=False, essential=False):
    rows = [pytest.param(row, id=row.name, marks=marks_of(row, core, essential)) for row in rows]
    return pytest.mark.parametrize("row", rows)


@cache
def build(row, problem):
    """A learner with all its functions compiled: called op by op, each test would take seconds."""
    model, loss, sample = problem
    learner = row.make(model, loss)
    compiled = type(learner)(
        learner.init,
        jax.jit(learner.adapt, static_argnames="steps"),
        jax.jit(learner.predict),
        jax.jit(learner.grad),
    )
    episode = jax.jit(sample)(jax.random.key(1))
    params = jax.jit(learner.init)(jax.random.key(2), episode.support.x)
    return row, learner, compiled, loss, sample, episode, params


@pytest.fixture
def case(request):
    return build(*request.param)


def close(found, expected):
    check = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(check, found, expected)


def equal(one, other):
    return all(jax.tree.leaves(jax.tree.map(np.allclose, one, other)))


BACKWARDS = np.s_[::-1]


def rows_of(prediction, which):
    return jax.tree.map(lambda leaf: leaf[which], prediction)


def padded(batch):
    """The batch with rows of weight 0 between its own that hold nonsense."""
    n, real = len(batch.x), jnp.arange(len(batch.x)) * 2
    integers = jnp.issubdtype(batch.y.dtype, jnp.integer)
    y = jnp.full((2 * n, *batch.y.shape[1:]), -100 if integers else jnp.nan, batch.y.dtype)
    return Batch(
        jnp.full((2 * n, *batch.x.shape[1:]), jnp.nan).at[real].set(batch.x),
        y.at[real].set(batch.y),
        jnp.zeros(2 * n).at[real].set(1),
    )


NORMED = (mlp((8, WAYS), norm="batch"), *CLASSIFICATION[1:])
"""A net in which padding would show."""
NORMED_FEATURE = (mlp((8, 1), norm="batch"), DISTRIBUTIONS[1], lambda key: as_numbers(blobs(key)))
"""The same for learners that predict distributions, with as many inputs."""


def normed(row):
    return build(row, NORMED_FEATURE if row.distributes else NORMED)


# ---- what all of them promise: to learn a task, and to predict


@cases_of(META + TRANSFER)
def test_adapts_and_predicts_by_the_names_of_the_protocol(case):
    _, learner, *_ = case
    names = [list(inspect.signature(f).parameters) for f in (learner.adapt, learner.predict)]
    assert names == [["key", "params", "support", "steps"], ["adapted", "x", "key", "weight"]]


WITHOUT_MODEL = (
    "nearest centroid",
    "nearest centroid by cosine",
    "logistic regression on the inputs",
    "tabular",
)


@each([row for row in META + TRANSFER if row.name not in WITHOUT_MODEL])
def test_a_flax_module_is_refused_with_the_word_pure(row):
    with pytest.raises(InputError, match=r"Dense is no Model: .*pure"):
        row.make(nn.Dense(3), CLASSIFICATION[1])


@cases_of(META + TRANSFER)
def test_predictions_depend_on_depth_but_not_on_the_order_of_examples(case):
    row, _, learner, loss, _, episode, params = case

    def predict(episode, steps=None):
        adapted = learner.adapt(jax.random.key(0), params, episode.support, steps=steps)
        return learner.predict(adapted, episode.query.x)

    trained = predict(episode)
    outputs = WAYS if "accuracy" in loss(trained, episode.query.y)[1] else 1
    samples = (3,) if row.samples else ()
    for leaf in jax.tree.leaves(trained):
        assert leaf.shape == (len(episode.query.x), outputs, *samples)
    assert isinstance(trained, Normal) == row.distributes
    none, one = predict(episode, 0), predict(episode, 1)
    assert equal(none, one) != row.depth_matters
    assert equal(one, trained) != row.depth_matters
    turned = jax.tree.map(lambda leaf: leaf[::-1], episode)
    if row.ordered:
        assert not equal(rows_of(predict(turned), BACKWARDS), trained)
        turned = turned._replace(support=episode.support)
    close(rows_of(predict(turned), BACKWARDS), trained)


@each([row for row in META + TRANSFER if row.name != "fomaml"], core=True)
def test_padding_counts_for_nothing_in_predictions(row):
    _, _, learner, _, _, episode, params = normed(row)
    support, query = padded(episode.support), padded(episode.query)
    adapted, plain = (
        learner.adapt(jax.random.key(0), params, each) for each in (support, episode.support)
    )
    found = learner.predict(adapted, query.x.at[1::2].set(9.0), weight=query.weight)
    close(rows_of(found, np.s_[::2]), learner.predict(plain, episode.query.x))


@each(META + TRANSFER, essential=True)
def test_two_equal_padded_tasks_are_the_one_that_is_cut(row):
    """In gradients, which are finite, and in metrics; an absent class included. Those of an episode
    are made of its predictions, so only a `TransferLearner` has to show them row by row."""
    _, _, learner, *_, params = normed(row)
    padded, cut = map(as_numbers, uneven()) if row.distributes else uneven()
    assert len(cut.support.x) < len(padded.support.x)
    key, step = jax.random.key(0), jnp.int32(0)
    transfers = isinstance(learner, TransferLearner)
    of_tasks = (padded.query, cut.query) if transfers else (padded, cut)

    @jax.jit  # one program: what these tests cost is compiling
    def made(params):
        def predicted(episode):
            adapted = learner.adapt(key, params, episode.support)
            return learner.predict(adapted, episode.query.x, weight=episode.query.weight)

        twice = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), of_tasks[0])
        mean = over_tasks(learner.grad)(key, step, params, twice)
        of_key = jax.vmap(learner.grad, (0, None, None, None))  # a learner may draw samples
        of_keys = of_key(parallel.task_keys(key, 2), step, params, of_tasks[1])
        return mean, of_keys, [predicted(episode) for episode in (padded, cut) if transfers]

    mean, of_keys, predictions = made(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(mean))
    close(mean, jax.tree.map(lambda leaf: leaf.mean(axis=0), of_keys))
    jax.tree.map(np.testing.assert_array_equal, made(params)[0], mean)
    if transfers:
        close(predictions[0][padded.query.weight > 0], predictions[1])


@each(META + TRANSFER)
def test_dropout_in_a_task_is_asked_for(row):
    """By itself `adapt` is a function of parameters and support set, whatever its key, but for a
    learner that draws samples."""
    problem = DISTRIBUTIONS if row.distributes else CLASSIFICATION
    net, loss, sample = mlp((8, 1 if row.distributes else WAYS), dropout=0.5), *problem[1:]
    episode = sample(jax.random.key(1))

    def predictions(**options):
        learner = row.make(net, loss, **options)

        @jax.jit
        @partial(jax.vmap, in_axes=(0, None))
        def of_key(key, params):
            return learner.predict(learner.adapt(key, params, episode.support), episode.query.x)

        params = learner.init(jax.random.key(2), episode.support.x)
        return of_key(jax.random.split(jax.random.key(3)), params)

    found = predictions()
    one, other = (rows_of(found, each) for each in (0, 1))
    if row.samples:
        assert not np.allclose(one.mean, other.mean)
    else:
        jax.tree.map(np.testing.assert_array_equal, one, other)
    if row.drops:
        one, other = predictions(inner_dropout=True)
        assert not np.allclose(one, other)


@cases_of(META + TRANSFER, core=True)
def test_evaluation_reports_each_depth_on_the_same_episodes(case):
    _, learner, _, loss, sample, _, params = case
    run = evaluate(learner, loss, sample, episodes=5, depths=(0, None, 0), chunk=2)
    found = run(jax.random.key(5), params)["loss"]
    assert found.shape == (3, 5)
    close(found[0], found[2])
    assert np.unique(found[1]).size == 5


# ---- what `grad` promises, whatever it is the gradient of


def assert_looks_like_params(case, batch):
    row, _, learner, _, _, _, params = case
    assert list(inspect.signature(learner.grad).parameters)[:3] == ["key", "step", "params"]
    inspect.signature(learner.grad).bind(*range(4))  # by position: the last has a name of its own
    grads, metrics = learner.grad(jax.random.key(0), jnp.int32(0), params, batch)
    same = lambda g, p: np.testing.assert_equal((g.shape, g.dtype), (p.shape, p.dtype))  # noqa: E731
    jax.tree.map(same, grads, params)
    assert "loss" in metrics
    assert all(np.shape(value) == () and np.isfinite(value) for value in metrics.values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert row.trains == any(np.any(leaf) for leaf in jax.tree.leaves(grads))


def assert_chunks_agree(case, draw):
    _, learner, *_, params = case
    batch = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(3), 4))
    arguments = jax.random.key(0), jnp.int32(0), params, batch
    together = jax.jit(over_tasks(learner.grad))(*arguments)
    close(jax.jit(over_tasks(learner.grad, chunk=1))(*arguments), together)


def assert_same_gradient(row, one, other):
    _, _, learner, *_, params = normed(row)
    found = (learner.grad(jax.random.key(0), jnp.int32(0), params, each) for each in (one, other))
    close(*found)


def assert_training_lowers_the_loss(case, draw):
    _, learner, _, _, _, episode, _ = case
    tx = optax.adam(0.01)
    keys = jax.random.split(jax.random.key(4), 1)
    state = init_states(lambda key: learner.init(key, episode.support.x), keys, tx)
    step = make_step(over_tasks(learner.grad), tx)
    chunks = loop(step, task_stream(draw, 16), keys, state, steps=300)
    losses = np.concatenate([metrics["loss"][0] for _, _, metrics in chunks])
    assert losses[-50:].mean() < 0.85 * losses[:10].mean()


# ---- a MetaLearner: the gradient of an episode


@cases_of(META)
def test_the_gradient_of_an_episode_looks_like_params(case):
    _, learner, *_, episode, _ = case
    assert isinstance(learner, MetaLearner)
    assert_looks_like_params(case, episode)


@cases_of(META, core=True)
def test_chunks_of_tasks_do_not_change_the_gradient(case):
    *_, sample, _, _ = case
    assert_chunks_agree(case, sample)


@each([row for row in META if row.name != "fomaml"], core=True)
def test_padding_in_an_episode_counts_for_nothing_in_the_gradient(row):
    *_, episode, _ = normed(row)
    filled = jax.tree.map(padded, episode, is_leaf=lambda x: isinstance(x, Batch))
    assert_same_gradient(row, filled, episode)


@pytest.mark.parametrize("label", [-1, WAYS])
@each([row for row in META if not row.distributes], essential=True)
def test_a_label_of_no_class_in_the_support_set_ends_the_training(row, label):
    """Its class has another example, without which a learner goes on as if nothing were wrong."""
    _, _, learner, _, _, episode, params = build(row, CLASSIFICATION)
    support = episode.support._replace(y=episode.support.y.at[0].set(label))
    found = learner.grad(jax.random.key(0), jnp.int32(0), params, episode._replace(support=support))
    grads, metrics = found
    assert np.isnan(metrics["loss"]) or any(np.isnan(v).any() for v in jax.tree.leaves(grads))


@pytest.mark.slow
@cases_of([row for row in META if row.trains])
def test_training_on_episodes_lowers_the_loss(case):
    *_, sample, _, _ = case
    assert_training_lowers_the_loss(case, sample)


# ---- a TransferLearner: the gradient of labelled examples


@cases_of(TRANSFER)
def test_the_gradient_of_examples_looks_like_params(case):
    _, learner, *_, episode, _ = case
    assert isinstance(learner, TransferLearner)
    assert_looks_like_params(case, episode.query)


@cases_of(TRANSFER, core=True)
def test_chunks_of_batches_do_not_change_the_gradient(case):
    *_, sample, _, _ = case
    assert_chunks_agree(case, lambda key: sample(key).query)


@each(TRANSFER)
def test_padding_among_examples_counts_for_nothing_in_the_gradient(row):
    *_, episode, _ = normed(row)
    assert_same_gradient(row, padded(episode.query), episode.query)


@pytest.mark.slow
@cases_of(TRANSFER)
def test_training_on_examples_lowers_the_loss(case):
    """The examples of one episode: the classes of another would contradict them."""
    *_, episode, _ = case
    assert_training_lowers_the_loss(case, lambda key: episode.query)
