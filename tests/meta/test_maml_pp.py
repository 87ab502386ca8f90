"""MAML++ against MAML, a plain loop, finite differences, and cases by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxdl.errors import InputError
from jaxdl.grads import over_tasks
from jaxdl.losses import cross_entropy, mean_squared_error
from jaxdl.meta import estimators
from jaxdl.meta.maml import maml
from jaxdl.meta.maml_pp import maml_pp
from jaxdl.meta.multi_step import multi_step_weights
from jaxdl.meta.per_step import PerStep, divide, is_norm
from jaxdl.meta.support_statistics import by_support_statistics
from jaxdl.models.mlp import mlp
from jaxdl.types import Batch, Episode, Model

OFF = {"multi_step_until": 0, "learn_rates": False, "per_step": None}
ADAPTED = "body", "head"
"""The layers of the net that are adapted; the third is a norm."""


def apply(params, x, *, key=None, weight=None):
    """Two layers with batch norm between them."""
    del key, weight
    hidden, norm = x @ params["body"]["kernel"], params["norm_1"]
    hidden = hidden - hidden.mean(0, keepdims=True)
    hidden = hidden / jnp.sqrt(0.1 + (hidden**2).mean(0, keepdims=True))
    hidden = jnp.tanh(hidden * norm["scale"][None] + norm["bias"][None])
    return hidden @ params["head"]["kernel"] + params["head"]["bias"][None]


def init(key, x):
    del key
    shapes = {"body": {"kernel": (3, 4)}, "norm_1": {"scale": (4,), "bias": (4,)}}
    shapes["head"] = {"kernel": (4, 2), "bias": (2,)}
    draw = np.random.default_rng(1).normal
    made = partial(jax.tree.map, is_leaf=lambda leaf: isinstance(leaf, tuple))
    return made(lambda shape: jnp.asarray(draw(size=shape), x.dtype), shapes)


NET = Model(init, apply)
LEARNER = maml_pp(NET, cross_entropy, steps=3, second_order_from=20, multi_step_until=40)
"""All parts are on."""
GRAD = jax.jit(LEARNER.grad)


def episode(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    parts = [(rng.normal(size=(n, 3)), rng.integers(2, size=n)) for n in (6, 8)]
    return Episode(*(Batch(jnp.asarray(x, dtype), jnp.asarray(y)) for x, y in parts))


def params_of_learner(task):
    """Other numbers at each step, and for each array."""

    def shifted(tree):
        leaves, structure = jax.tree.flatten(tree)
        waves = [0.05 * np.cos(i + np.arange(leaf.size)) for i, leaf in enumerate(leaves)]
        pairs = zip(leaves, waves, strict=True)
        moved = [leaf + jnp.asarray(wave.reshape(leaf.shape), leaf.dtype) for leaf, wave in pairs]
        return jax.tree.unflatten(structure, moved)

    params = LEARNER.init(jax.random.key(0), task.support.x)
    return params._replace(each=shifted(params.each), rates=shifted(params.rates))


def close(found, expected, rtol=1e-5, atol=1e-7):
    check = partial(np.testing.assert_allclose, rtol=rtol, atol=atol)
    jax.tree.map(check, found, expected)


# ---- the weights


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, [0.2, 0.2, 0.2, 0.2, 0.2]),
        (50, [0.1, 0.1, 0.1, 0.1, 0.6]),
        (90, [0.02, 0.02, 0.02, 0.02, 0.92]),
        (98, [0.006, 0.006, 0.006, 0.006, 0.976]),  # the least weight: 0.03 / 5
        (99, [0.006, 0.006, 0.006, 0.006, 0.976]),
        (100, [0, 0, 0, 0, 1]),
        (5000, [0, 0, 0, 0, 1]),
    ],
)
def test_the_weights_of_the_losses_fall_to_a_least_one(step, expected):
    np.testing.assert_allclose(multi_step_weights(step, 5, until=100), expected, atol=1e-7)


# ---- with parts switched off


@pytest.mark.parametrize(
    ("steps", "estimator"),
    [
        (2, estimators.exact),
        *(
            pytest.param(steps, estimator, marks=pytest.mark.slow)
            for steps in (0, 1, 3)
            for estimator in (estimators.exact, estimators.first_order, estimators.mixed_mode)
        ),
    ],
)
def test_with_all_off_it_is_maml(steps, estimator, key):
    """With dropout in the task and of queries, too."""
    task = episode()
    net = NET if steps == 2 else mlp((4, 2), norm="batch", dropout=0.5)  # which compiles longer
    options = {"steps": steps, "estimator": estimator, "inner_dropout": True}
    ours = maml_pp(net, cross_entropy, inner_lr=0.3, **options, **OFF)
    peer = maml(net, cross_entropy, tx=optax.sgd(0.3), **options)

    @jax.jit
    def both():
        start, params = peer.init(key, task.support.x), ours.init(key, task.support.x)
        expected, metrics = peer.grad(key, 0, start, task)
        return ours.grad(key, 0, params, task), (PerStep(expected, params.each, ()), metrics)

    found, expected = both()
    assert jax.tree.leaves(found[0].each) == []
    close(found, expected, rtol=1e-6)


@pytest.mark.slow
def test_phases_of_training_are_fomaml_and_maml(key):
    """In one compiled program: first of first order, then of second."""
    task, options = episode(), {**OFF, "second_order_from": 10}
    ours = jax.jit(maml_pp(NET, cross_entropy, steps=2, **options).grad)
    start, found = NET.init(key, task.support.x), []
    params = PerStep(*divide(start, None), ())
    for step, estimator in ((9, estimators.first_order), (10, estimators.exact)):
        peer = maml(NET, cross_entropy, tx=optax.sgd(0.1), steps=2, estimator=estimator)
        grads, metrics = ours(key, jnp.int32(step), params, task)
        close((grads.start, metrics), jax.jit(peer.grad)(key, 0, start, task))
        found.append(grads.start["body"]["kernel"])
    assert not np.allclose(*found, rtol=1e-2)
    close(ours(key, jnp.int32(0), params, task)[0].start["body"]["kernel"], found[0])


# ---- all parts on


def step_by_hand(start, norms, rates, support):
    """One inner step of the adapted layers, in plain gradients."""

    def loss(rest):
        return cross_entropy(apply({**rest, "norm_1": norms}, support.x), support.y)[0]

    grads = jax.grad(loss)({name: start[name] for name in ADAPTED})
    return grads, {
        layer: {name: start[layer][name] - rates[layer][name] * grads[layer][name] for name in of}
        for layer, of in grads.items()
    }


def nets_by_hand(params, support, depth, order=2):
    """The nets after each step of a plain loop, without `descend`."""
    start, nets = params.start, []
    for k in range(depth):
        own = params.each["norm_1"], params.rates
        norms, rates = jax.tree.map(lambda leaf, k=k: leaf[min(k, 2)], own)
        grads, moved = step_by_hand(start, norms, rates, support)
        if order == 1:
            constant = lax.stop_gradient(grads)
            moved = {
                layer: {
                    name: start[layer][name] - rates[layer][name] * constant[layer][name]
                    for name in of
                }
                for layer, of in grads.items()
            }
        start = moved
        nets.append({**start, "norm_1": norms})
    return nets


@partial(jax.jit, static_argnames="order")
def loss_by_hand(params, task, weights, order=2):
    """The weighted loss, and that after the last step."""
    query = task.query
    nets = nets_by_hand(params, task.support, 3, order)
    losses = [cross_entropy(apply(net, query.x), query.y)[0] for net in nets]
    return sum(w * each for w, each in zip(weights, losses, strict=True)), losses[-1]


GRAD_BY_HAND = jax.jit(jax.grad(loss_by_hand, has_aux=True), static_argnames="order")


@pytest.mark.parametrize(
    ("step", "weights"),
    [
        pytest.param(0, [1 / 3, 1 / 3, 1 / 3], marks=pytest.mark.slow),
        pytest.param(10, [1 / 4, 1 / 4, 1 / 2], marks=pytest.mark.slow),
        (30, [1 / 12, 1 / 12, 10 / 12]),
        (39, [0.01, 0.01, 0.98]),
        (40, [0.0, 0.0, 1.0]),
    ],
)
def test_gradients_and_metrics_are_those_of_a_plain_loop(step, weights, key):
    """Of rates and norms, too: of first order before step 20, then of second."""
    with jax.enable_x64(True):
        task, order = episode(float), 1 if step < 20 else 2
        params, weights = params_of_learner(task), jnp.asarray(weights)
        grads, metrics = GRAD(key, jnp.int32(step), params, task)
        expected, last = GRAD_BY_HAND(params, task, weights, order=order)
        close((grads, metrics["loss"]), (expected, last), rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_finite_differences_of_the_weighted_loss_agree(key):
    with jax.enable_x64(True):
        task, weights = episode(float), jnp.asarray([1 / 12, 1 / 12, 10 / 12])
        params = params_of_learner(task)
        grads, _ = GRAD(key, jnp.int32(30), params, task)
        direction = jax.tree.map(jnp.cos, params)

        def value(h):
            moved = jax.tree.map(lambda p, d: p + h * d, params, direction)
            return loss_by_hand(moved, task, weights)[0]

        slope = (value(1e-5) - value(-1e-5)) / 2e-5
        along = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, grads, direction)))
        np.testing.assert_allclose(along, slope, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 3, 5])
def test_more_steps_than_in_training_have_the_rates_and_norms_of_the_last(depth, key):
    task = episode()
    params = params_of_learner(task)
    adapted = jax.jit(LEARNER.adapt, static_argnums=3)(key, params, task.support, depth)
    nets = jax.jit(nets_by_hand, static_argnums=2)(params, task.support, depth)
    close(adapted, nets[-1])


def test_no_step_predicts_with_the_norms_of_the_first(key):
    task = episode()
    params = params_of_learner(task)
    adapted = jax.jit(LEARNER.adapt, static_argnums=3)(key, params, task.support, 0)
    norms = jax.tree.map(lambda leaf: leaf[0], params.each["norm_1"])
    close(adapted, {**params.start, "norm_1": norms})


def test_each_step_has_its_rate(key):
    """On w^2 a step of rate r leaves 1 - 2 r of w."""
    line = Model(lambda key, x: jnp.ones((1, 1)), lambda w, x, *, key=None, weight=None: x @ w)
    learner = maml_pp(line, mean_squared_error, steps=3)
    params = learner.init(key, None)
    np.testing.assert_allclose(params.rates, [0.1, 0.1, 0.1])
    params = params._replace(rates=jnp.asarray([0.1, 0.25, 0.4]))
    support = Batch(jnp.ones((1, 1)), jnp.zeros((1, 1)))
    adapt = jax.jit(learner.adapt, static_argnums=3)
    for depth, left in ((1, 0.8), (3, 0.08), (5, 0.0032)):
        np.testing.assert_allclose(adapt(key, params, support, depth), [[left]], rtol=1e-5)


@pytest.mark.slow
def test_with_statistics_of_the_support_set_all_losses_count(key):
    """It is the gradient of the losses at depths 1 and 2, with their weights at step 25."""
    plain = maml_pp(mlp((4, 2), norm="batch"), cross_entropy, steps=2, multi_step_until=100)
    learner, task = by_support_statistics(plain, cross_entropy), episode()
    params = jax.jit(learner.init)(key, task.support.x)

    def weighted(params):
        losses = []
        for depth in (1, 2):
            adapted = learner.adapt(key, params, task.support, depth)
            losses.append(cross_entropy(learner.predict(adapted, task.query.x), task.query.y)[0])
        return 0.375 * losses[0] + 0.625 * losses[1]

    found, _ = jax.jit(learner.grad)(key, 25, params, task)
    close(found, jax.jit(jax.grad(weighted))(params))


# ---- what a phase costs


def outside_of_conds(program):
    """The names of the primitives outside of conditionals, and the conditionals."""
    names, conds = [], []
    for eqn in program.eqns:
        if eqn.primitive.name == "cond":
            conds.append(eqn)
            continue
        names.append(eqn.primitive.name)
        for value in jax.tree.leaves(eqn.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                more, others = outside_of_conds(getattr(value, "jaxpr", value))
                names, conds = names + more, conds + others
    return names, conds


def products_in_loops(program):
    found = [eqn.params["jaxpr"] for eqn in program.eqns if eqn.primitive.name == "scan"]
    return sum(outside_of_conds(loop)[0].count("dot_general") for loop in found)


def test_only_one_phase_is_computed(key):
    """All products stand inside one conditional, also with tasks side by side."""
    tasks = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), episode())
    params, step = params_of_learner(episode()), jnp.int32(0)
    grad = over_tasks(LEARNER.grad)
    names, conds = outside_of_conds(jax.make_jaxpr(grad)(key, step, params, tasks))
    assert "dot_general" not in names
    assert [len(cond.params["branches"]) for cond in conds] == [3]
    # All losses of first order, all of second, the last alone: products in the inner steps.
    first, second, last = map(products_in_loops, conds[0].params["branches"])
    assert first < second > last
    # A step for each task would give a selection among all phases: the test sees that.
    batched = jax.vmap(LEARNER.grad, (None, 0, None, 0))
    names, _ = outside_of_conds(jax.make_jaxpr(batched)(key, jnp.arange(2), params, tasks))
    assert "dot_general" in names


@pytest.mark.slow
def test_xla_keeps_the_conditional(key):
    tasks = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), episode())
    arguments = key, jnp.int32(0), params_of_learner(episode()), tasks
    program = jax.jit(over_tasks(LEARNER.grad)).lower(*arguments).compile().as_text()
    main = program[program.index("ENTRY") :]
    assert " conditional(" in main
    assert " dot(" not in main


# ---- norms per step


def test_norms_are_found_by_the_names_of_their_layers():
    norms = "BatchNorm_0/bias LayerNorm_12/scale block_1/norm/scale norm1/bias bn/bias a/bn_2/scale"
    others = "Dense_0/bias normal/kernel norm snub/bias"
    assert [name for name in norms.split() if not is_norm(name)] == []
    assert [name for name in others.split() if is_norm(name)] == []


def test_a_net_without_norms_has_none_per_step(key):
    learner = maml_pp(mlp((4, 2)), cross_entropy)
    assert not jax.tree.leaves(jax.eval_shape(learner.init, key, jnp.ones((2, 3))).each)


def test_parameters_per_step_can_be_chosen(key):
    task, chosen = episode(), {"steps": 2, "per_step": lambda name: name == "head/bias"}
    learner = maml_pp(NET, cross_entropy, **chosen)
    params = learner.init(key, task.support.x)
    assert jax.tree.map(jnp.shape, params.each["head"]) == {"bias": (2, 2), "kernel": None}
    params = params._replace(each=jax.tree.map(lambda leaf: jnp.eye(2), params.each))
    adapted = jax.jit(learner.adapt)(key, params, task.support)
    np.testing.assert_array_equal(adapted["head"]["bias"], [0, 1])
    assert not np.allclose(adapted["norm_1"]["bias"], params.start["norm_1"]["bias"])


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": -1}, "`steps=-1`: choose 0 or more"),
        ({"multi_step_until": -1}, "`multi_step_until=-1`: choose 0 or more"),
        ({"second_order_from": -1}, "`second_order_from=-1`: choose 0 or more"),
        (
            {"second_order_from": 1, "estimator": estimators.first_order},
            "has no second order to begin with: leave out `second_order_from=`",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        maml_pp(NET, cross_entropy, **options)


def test_a_net_of_which_nothing_is_left_to_adapt_is_refused(key):
    learner = maml_pp(NET, cross_entropy, per_step=lambda name: True)
    with pytest.raises(InputError, match="`per_step` chooses all parameters of the net"):
        learner.init(key, jnp.ones((2, 3)))
