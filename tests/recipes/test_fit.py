"""`fit` is the loop that one would write by hand, and keeps what validation prefers."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.data.sets.sinusoid import sinusoid
from jaxdl.errors import InputError, RunError
from jaxdl.grads import over_tasks
from jaxdl.losses import counted, cross_entropy, mean_squared_error, weighted_mean
from jaxdl.meta.base import evaluate
from jaxdl.meta.finetune import finetune
from jaxdl.meta.maml import maml
from jaxdl.meta.proto_maml import proto_maml
from jaxdl.meta.simpleshot import simpleshot
from jaxdl.models.mlp import mlp
from jaxdl.recipes.fit import fit
from jaxdl.recipes.score import score
from jaxdl.train.loop import copy_state, loop
from jaxdl.train.steps import init_states, make_step
from jaxdl.train.streams import task_stream
from jaxdl.types import Batch, Episode, MetaLearner, Model

KEY = jax.random.key(3)
SAMPLE = sinusoid(shots=5, queries=5)
LEARNER = maml(mlp((8, 1)), mean_squared_error, tx=optax.sgd(0.01), steps=1)
OPTIONS = {"tx": optax.adam(1e-2), "steps": 20, "tasks": 4, "key": KEY}


def same(found, expected, **tolerance):
    check = np.testing.assert_allclose if tolerance else np.testing.assert_array_equal
    jax.tree.map(lambda a, b: check(a, b, **tolerance), found, expected)


@pytest.mark.parametrize("seeds", [None, 3])
def test_it_is_the_loop_written_by_hand(seeds):
    keys = KEY[None] if seeds is None else jax.random.split(KEY, seeds)
    inputs = SAMPLE(keys[0]).support.x
    state = init_states(lambda key: LEARNER.init(key, inputs), keys, OPTIONS["tx"])
    step = make_step(over_tasks(LEARNER.grad), OPTIONS["tx"])
    losses = []
    for _, last, metrics in loop(step, task_stream(SAMPLE, 4), keys, state, steps=20):
        losses.append(metrics["loss"])
        state_after = copy_state(last)
    by_hand = np.concatenate(losses, axis=1)

    fitted = fit(LEARNER, SAMPLE, every=8, seeds=seeds, **OPTIONS)
    params = state_after.params if seeds else jax.tree.map(lambda leaf: leaf[0], state_after.params)
    same(fitted.params, params)
    assert fitted.history["step"].tolist() == [8, 16, 20]
    means = np.stack([by_hand[:, a:b].mean(axis=1) for a, b in [(0, 8), (8, 16), (16, 20)]])
    same(fitted.history["loss"], means if seeds else means[:, 0], rtol=1e-6)


def test_a_seed_of_several_learns_what_it_learns_alone():
    several = fit(LEARNER, SAMPLE, seeds=2, **OPTIONS)
    for seed, key in enumerate(jax.random.split(KEY, 2)):
        alone = fit(LEARNER, SAMPLE, **{**OPTIONS, "key": key})
        same(jax.tree.map(lambda leaf, s=seed: leaf[s], several.params), alone.params, rtol=1e-4)


def counting():
    """A learner whose parameter is the number of steps done, and its sampler."""
    learner = MetaLearner(
        init=lambda key, x: {"steps": jnp.zeros(())},
        adapt=lambda key, params, support, steps=None: params,
        predict=lambda adapted, x, *, key=None, weight=None: x,
        grad=lambda key, step, params, batch: ({"steps": jnp.float32(-1)}, {"loss": batch.query.y}),
    )
    batch = Batch(jnp.zeros((1, 1)), jnp.float32(0))
    return learner, lambda key: Episode(batch, batch)


@pytest.mark.parametrize(
    ("scores", "best"),
    [([1, 5, 2, 3], 4), ([1, 5, 5, 3], 4), ([np.nan, -9, np.nan, -9.5], 4), ([np.nan] * 4, 2)],
)
def test_the_best_on_validation_is_what_remains(scores, best):
    learner, sample = counting()
    asked = []

    def validate(params):
        asked.append(float(params["steps"]))
        return scores[len(asked) - 1]

    found = fit(
        learner,
        sample,
        tx=optax.sgd(1.0),
        steps=7,
        tasks=1,
        key=KEY,
        every=2,
        validate=validate,
    )
    assert asked == [2, 4, 6, 7]
    assert float(found.params["steps"]) == best
    np.testing.assert_array_equal(found.history["validation"], scores)


def test_each_seed_keeps_its_own_best():
    learner, sample = counting()
    scores = iter([3, 1, 2, 2, 1, 3])  # of seeds 0 and 1 at steps 1, 2 and 3
    found = fit(
        learner,
        sample,
        tx=optax.sgd(1.0),
        steps=3,
        tasks=1,
        key=KEY,
        every=1,
        seeds=2,
        validate=lambda params: next(scores),
    )
    assert found.params["steps"].tolist() == [1, 3]
    assert found.history["validation"].tolist() == [[3, 1], [2, 2], [1, 3]]


def test_it_reports_a_line_per_log_point():
    lines = []
    learner, sample = counting()
    fit(learner, sample, tx=optax.sgd(1.0), steps=4, tasks=1, key=KEY, every=2, report=lines.append)
    assert lines == ["step 2  loss 0.0000", "step 4  loss 0.0000"]


def test_divergence_is_told_with_its_step():
    learner, sample = counting()

    def grad(key, step, params, batch):
        return {"steps": jnp.float32(1)}, {"loss": jnp.where(step == 4, jnp.nan, 1.0)}

    with pytest.raises(RunError, match=r"the loss .*is not finite at step 5\. Try a lower"):
        fit(learner._replace(grad=grad), sample, tx=optax.sgd(1.0), steps=9, tasks=1, key=KEY)


def test_a_gradient_that_is_nan_where_the_loss_is_not_points_at_the_inner_optimiser():
    """The derivative of |g|, at a gradient of exactly 0: one step later the loss is NaN."""

    def update(updates, state, params=None):
        return jax.tree.map(lambda g: -0.1 * g * jnp.sqrt(g * g), updates), state

    tx = optax.GradientTransformation(lambda params: optax.EmptyState(), update)
    model = Model(
        lambda key, x: jnp.zeros(()),
        lambda params, x, *, key=None, weight=None: params * x,
    )
    key, one = jax.random.key(0), jnp.ones((1, 1))
    flat = Episode(Batch(one, 0 * one), Batch(one, one))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the probe of maml says it, too
        learner = maml(model, mean_squared_error, tx=tx, steps=1)
    with pytest.raises(
        RunError, match=r"its gradient is the suspect.*page inner-optimisers of the documentation$"
    ):
        fit(learner, lambda key: flat, tx=optax.sgd(0.1), steps=4, tasks=1, key=key)


def test_parameters_that_are_not_finite_are_told_too():
    learner, sample = counting()
    endless = learner._replace(grad=lambda *args: ({"steps": jnp.float32(jnp.inf)}, {"loss": 1.0}))
    with pytest.raises(RunError, match=r"the state is not finite at step 1\."):
        fit(endless, sample, tx=optax.sgd(1.0), steps=1, tasks=1, key=KEY)


def test_a_learner_of_labelled_examples_is_refused():
    learner = finetune(mlp((4,)), cross_entropy, classes=3, ways=2, tx=optax.sgd(0.1), steps=1)
    with pytest.raises(InputError, match="fit trains on episodes, and a TransferLearner on"):
        fit(learner, SAMPLE, **OPTIONS)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"steps": 0}, "`steps=0`: choose a whole number of at least 1"),
        ({"tasks": 0}, "`tasks=0`"),
        ({"seeds": 0}, "`seeds=0`"),
        ({"every": 0}, "`every=0`"),
        ({"devices": 99}, "devices"),
        ({"chunk": 3}, "chunk=3 does not divide 4 tasks"),
    ],
)
def test_mistakes_name_the_argument(wrong, words):
    with pytest.raises(InputError, match=words):
        fit(LEARNER, SAMPLE, **{**OPTIONS, **wrong})


@pytest.mark.parametrize(("units", "chunk"), [(8, None), (512, 1)])
@pytest.mark.slow
def test_on_a_cpu_tasks_that_fill_the_cache_are_taken_one_by_one(units, chunk, monkeypatch):
    asked = []

    def spy(grad, *, chunk, axis_name):
        asked.append(chunk)
        return over_tasks(grad, chunk=chunk, axis_name=axis_name)

    monkeypatch.setattr("jaxdl.recipes.fit.over_tasks", spy)
    net = mlp((units, units, units, 1))
    learner = maml(net, mean_squared_error, tx=optax.sgd(0.01), steps=1)
    fit(learner, SAMPLE, tx=optax.sgd(0.01), steps=1, tasks=2, key=jax.random.key(0))
    assert asked == [chunk]


def bare(prediction, target, weight=None):
    """A loss whose author left the metrics empty."""
    return mean_squared_error(prediction, target, weight)[0], {}


def test_a_loss_without_metrics_trains_and_is_scored_as_the_one_with():
    learner = maml(mlp((8, 1)), bare, tx=optax.sgd(0.01), steps=1)
    same(fit(learner, SAMPLE, **OPTIONS), fit(LEARNER, SAMPLE, **OPTIONS))
    params = learner.init(KEY, jnp.zeros((5, 1)))
    found, expected = (
        score(LEARNER, params, loss, SAMPLE, episodes=3, key=KEY)
        for loss in (bare, mean_squared_error)
    )
    assert found == expected


def test_a_learner_without_metrics_trains():
    learner = LEARNER._replace(grad=lambda *arguments: (LEARNER.grad(*arguments)[0], {}))
    found, expected = (fit(each, SAMPLE, **OPTIONS) for each in (learner, LEARNER))
    same(found.params, expected.params, rtol=1e-5)
    assert list(found.history) == ["step"]


def test_a_learner_without_metrics_that_diverges_is_refused():
    def grad(key, step, params, episode):
        grads = LEARNER.grad(key, step, params, episode)[0]
        return jax.tree.map(lambda leaf: jnp.where(step < 4, leaf, jnp.nan), grads), {}

    with pytest.raises(RunError, match="the state is not finite at step 5") as caught:
        fit(LEARNER._replace(grad=grad), SAMPLE, **(OPTIONS | {"steps": 5}), every=5)
    assert "loss was finite" not in str(caught.value)


def test_a_loss_that_is_a_number_alone_is_refused_with_what_to_return():
    number = lambda *arguments: mean_squared_error(*arguments)[0]  # noqa: E731
    learner = maml(mlp((8, 1)), number, tx=optax.sgd(0.01), steps=1)
    pair = r"Return the pair `\(loss, metrics\)`"
    with pytest.raises(InputError, match=pair):
        fit(learner, SAMPLE, **OPTIONS)
    params = LEARNER.init(KEY, jnp.zeros((5, 1)))
    with pytest.raises(InputError, match=pair):
        score(LEARNER, params, number, SAMPLE, episodes=3, key=KEY)


def per_point(prediction, target, weight=None):
    """A metric per example: `score` took the examples for episodes, so its interval was wrong."""
    loss, _ = mean_squared_error(prediction, target, weight)
    return loss, {"distance": jnp.abs(prediction - target)[:, 0]}


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (per_point, r"the metric distance is an array \[5\]. Let the loss return one number"),
        (
            lambda y, target, weight=None: (jnp.sum((y - target) ** 2, axis=1), {}),
            r"the loss is an array \[5\]. Let the loss return one number",
        ),
        (
            lambda y, target, weight=None: ((y - target)[:, 0], {"loss": jnp.float32(0)}),
            r"the loss is an array",
        ),
        (lambda y, target: None, r"the loss takes \(y, target\). Write loss\(prediction, target"),
    ],
)
def test_a_loss_that_is_none_is_refused_by_fit_and_by_score(loss, words):
    learner = maml(mlp((8, 1)), loss, tx=optax.sgd(0.01), steps=1)
    with pytest.raises(InputError, match=words):
        fit(learner, SAMPLE, **OPTIONS)
    with pytest.raises(InputError, match=words):
        score(LEARNER, LEARNER.init(KEY, jnp.zeros((5, 1))), loss, SAMPLE, episodes=3, key=KEY)


@pytest.mark.parametrize(
    ("drawn", "words"),
    [
        (lambda batch: (batch, batch), "the sampler drew tuple. Let it return jaxdl.Episode"),
        (lambda batch: batch, "the sampler drew Batch. Let"),
        (lambda batch: Episode(batch, (batch.x, batch.y)), "an Episode that holds tuple. Let it"),
        (
            lambda batch: Episode(batch, batch._replace(x=jnp.tile(batch.x, (1, 2)))),
            r"the support set are \[1\] and those of the query set \[2\]. Draw both alike",
        ),
        (
            lambda batch: Episode(batch, batch._replace(x={"a": batch.x})),
            "support set of an episode are .*, and those of the query set .*a.*. Draw both alike",
        ),
        (
            lambda batch: Episode(batch._replace(x=jnp.float32(1)), batch),
            "the support set of an episode has no rows: an input is a single number. Give arrays",
        ),
        (
            lambda batch: Episode(batch, batch._replace(x={})),
            "the query set of an episode has no rows: there is no input. Give arrays",
        ),
    ],
)
def test_what_is_no_episode_is_refused_with_what_to_return(drawn, words):
    sample = lambda key: drawn(SAMPLE(key).support)  # noqa: E731
    with pytest.raises(InputError, match=words):
        fit(LEARNER, sample, **OPTIONS)
    params = LEARNER.init(KEY, jnp.zeros((5, 1)))
    with pytest.raises(InputError, match=words):
        score(LEARNER, params, mean_squared_error, sample, episodes=3, key=KEY)


def test_a_sampler_may_hold_arrays_of_numpy():
    """They are arguments of the compiled programs, so indexing by a traced number works."""

    def draw(rows, key):
        x, y = rows[jax.random.randint(key, (10,), 0, len(rows))].T[:, :, None]
        return Episode(Batch(x[:5], y[:5]), Batch(x[5:], y[5:]))

    rows = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    found = []
    for data in (rows, jnp.asarray(rows)):
        sample = jax.tree_util.Partial(draw, data)
        params = fit(LEARNER, sample, **OPTIONS).params
        loss = score(LEARNER, params, mean_squared_error, sample, episodes=3, key=KEY)["loss"]
        found.append(loss.mean)
    assert found[0] == found[1] > 0


def test_a_sampler_of_numpy_may_be_vmapped_inside():
    """Outside jit, `vmap` gave NumPy a traced index."""
    rows = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)

    def draw(rows, key):
        places = jax.random.randint(key, (10,), 0, len(rows))
        x, y = jax.vmap(lambda place: rows[place])(places).T[:, :, None]
        return Episode(Batch(x[:5], y[:5]), Batch(x[5:], y[5:]))

    params = fit(LEARNER, jax.tree_util.Partial(draw, rows), **OPTIONS).params
    assert jnp.isfinite(params["Dense_0"]["kernel"]).all()
    words = "cannot run inside jit: it gives NumPy or Python a value that depends on the key"
    flipped = lambda key: SAMPLE(key) if jax.random.bernoulli(key) else None  # noqa: E731
    for wrong in (lambda key: draw(rows, key), flipped):
        with pytest.raises(InputError, match=words):
            fit(LEARNER, wrong, **OPTIONS)


def labelled(key, *, wrong):
    """Three classes. In half of the episodes, the first label of the support set is `wrong`."""
    x = jax.nn.one_hot(jnp.arange(6) % 3, 4) + 0.1 * jax.random.normal(key, (6, 4))
    y = jnp.arange(6) % 3
    odd = jax.random.bernoulli(jax.random.fold_in(key, 1))
    return Episode(Batch(x, y.at[0].set(jnp.where(odd, wrong, 0))), Batch(x, y))


@pytest.mark.parametrize("wrong", [-1, 3])
def test_wrong_labels_of_some_episodes_end_the_training_and_show_in_the_score(wrong):
    """The first episode that is drawn is right. The others were adapted to a part of the set."""
    sample = jax.tree_util.Partial(labelled, wrong=wrong)
    learner = maml(mlp((8, 3)), cross_entropy, tx=optax.sgd(0.1), steps=1)
    key = next(k for k in map(jax.random.key, range(9)) if sample(k).support.y[0] == 0)
    with pytest.raises(RunError, match=r"at step 1\. .*labels outside \[0, classes\)"):
        fit(learner, sample, **{**OPTIONS, "key": key})
    params = learner.init(KEY, jnp.zeros((1, 4)))
    found = score(learner, params, cross_entropy, sample, episodes=20, key=key)
    assert np.isnan(found["accuracy"].mean)
    assert np.isnan(found["loss"].mean)


def test_an_episode_without_a_query_that_counts_has_no_score():
    """Its accuracy was 0, which lowered the mean of the others."""

    def sample(key):
        episode = labelled(key, wrong=0)
        weight = jnp.full(6, jax.random.bernoulli(jax.random.fold_in(key, 2)).astype(float))
        return episode._replace(query=episode.query._replace(weight=weight))

    learner = maml(mlp((8, 3)), cross_entropy, tx=optax.sgd(0.1), steps=20)
    params = learner.init(KEY, jnp.zeros((1, 4)))
    found = evaluate(learner, cross_entropy, sample, episodes=20)(KEY, params)["accuracy"][0]
    assert 0 < np.isnan(found).sum() < 20
    assert np.nanmin(found) == 1


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ((0.5, 0.4), "`validate` returned tuple. Let it return one number"),
        (jnp.ones(3), r"of shape \[3\]. Let it return one number, higher for better"),
    ],
)
def test_a_validation_that_is_no_number_is_refused(returned, words):
    with pytest.raises(InputError, match=words):
        fit(LEARNER, SAMPLE, validate=lambda params: returned, **OPTIONS)


@pytest.mark.parametrize("make", [proto_maml, simpleshot])
def test_losses_that_a_learner_calls_itself_are_looked_at_too(make):
    options = {"tx": optax.sgd(0.1), "steps": 1} if make is proto_maml else {"classes": 3}
    x, y = jnp.eye(3), jnp.arange(3)
    batch = Batch(x, y)
    given = Episode(batch, batch) if make is proto_maml else batch
    number = lambda *arguments: cross_entropy(*arguments)[0]  # noqa: E731
    empty = lambda *arguments: (cross_entropy(*arguments)[0], {})  # noqa: E731
    learners = [make(mlp((4,)), loss, ways=3, **options) for loss in (number, empty)]
    params = learners[0].init(KEY, x)
    with pytest.raises(InputError, match="Return the pair"):
        learners[0].grad(KEY, jnp.int32(0), params, given)
    assert "loss" in learners[1].grad(KEY, jnp.int32(0), params, given)[1]


def binary(prediction, target, weight=None):
    """The loss of a single logit, with an accuracy, as anyone may write it."""
    logit, target = counted(weight, prediction.reshape(-1), target)
    loss = weighted_mean(optax.sigmoid_binary_cross_entropy(logit, target), weight)
    return loss, {"loss": loss, "accuracy": weighted_mean((logit > 0) == (target == 1), weight)}


@pytest.mark.parametrize("flat", [False, True])
def test_a_single_logit_of_two_classes_is_learnt(flat):
    """It has one output, or no axis for it, and labels of 0 and 1."""

    def sample(key):
        x = jax.random.normal(key, (12, 2))
        y = (x[:, 0] > 0).astype(jnp.int32)
        return Episode(Batch(x[:6], y[:6]), Batch(x[6:], y[6:]))

    net = mlp((8, 1))
    if flat:
        net = Model(net.init, lambda *args, apply=net.apply, **kw: apply(*args, **kw)[:, 0])
    learner = maml(net, binary, tx=optax.sgd(0.5), steps=1)
    options = {"tx": optax.adam(0.03), "steps": 40, "tasks": 8, "key": KEY}
    params = fit(learner, sample, **options).params
    found = score(learner, params, binary, sample, episodes=50, key=KEY)
    assert found["accuracy"].mean > 0.8
