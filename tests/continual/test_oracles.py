"""Each method against what can be computed by hand, mostly on linear models in float64."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize

from jaxdl.continual import agem, episodic, gem
from jaxdl.continual.agem import agem as agem_learner
from jaxdl.continual.base import alone, gradient, recall, stored
from jaxdl.continual.er import er
from jaxdl.continual.ewc import ewc
from jaxdl.continual.gem import gem as gem_learner
from jaxdl.continual.independent import independent
from jaxdl.continual.mer import mer, mer_one_batch, walker
from jaxdl.continual.online import online
from jaxdl.losses import mean_squared_error
from jaxdl.replay.uniform import reservoir
from jaxdl.types import Example, Model
from tests.continual.contract import QUICK

LINEAR = Model(
    lambda key, x: jax.random.normal(key, (x.shape[-1],)),
    lambda params, x, *, key=None, weight=None: x @ params,
)
LR, WIDTH = 0.05, 3
TX = optax.sgd(LR)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def stream(tasks, examples, seed=0):
    """Examples `[tasks * examples]` of linear regressions, one a task."""
    rng = np.random.default_rng(seed)
    x, truth = rng.normal(size=(tasks * examples, WIDTH)), rng.normal(size=(tasks, WIDTH))
    task = np.repeat(np.arange(tasks), examples)
    return Example(x, np.sum(x * truth[task], axis=1), task.astype(np.int32))


def at(examples, n):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[n]), examples)


def slope(w, x, y):
    """The gradient of the squared error of one example, or of the mean over several."""
    x, y = np.atleast_2d(x), np.atleast_1d(y)
    return 2 * (x @ w - y) @ x / len(y)


def quick(function):
    """Compiled: operation by operation takes longer, for each is compiled by itself."""
    return jax.jit(function, compiler_options=QUICK)


def learn(method, examples, count=None, step=None):
    """The states before the first example and after each."""
    states = [quick(method.init)(jax.random.key(0), at(examples, 0))]
    step = step or quick(method.step)
    for n in range(len(examples.y) if count is None else count):
        states.append(step(jax.random.key(n), states[-1], at(examples, n))[0])
    return states


def test_online_is_plain_descent():
    examples = stream(2, 3)
    states = learn(online(LINEAR, mean_squared_error, TX), examples)
    w = np.asarray(states[0].params)
    for n in range(6):
        w = w - LR * slope(w, examples.x[n], examples.y[n])
    np.testing.assert_allclose(states[-1].params, w, rtol=1e-12)


def test_an_independent_net_goes_on_from_the_one_before_and_is_then_left_alone():
    examples = stream(2, 3)
    states = learn(independent(LINEAR, mean_squared_error, TX, tasks=3), examples)
    first, second, third = np.asarray(states[0].params)
    for n in range(3):
        first = first - LR * slope(first, examples.x[n], examples.y[n])
    second = first
    for n in range(3, 6):
        second = second - LR * slope(second, examples.x[n], examples.y[n])
    np.testing.assert_allclose(states[-1].params, [first, second, third], rtol=1e-12)


@pytest.mark.parametrize("of_mean", [False, True])
def test_ewc_is_descent_on_the_loss_and_one_quadratic_penalty_a_finished_task(of_mean):
    """Penalties kept apart here, added up there; the Fisher of a linear model by hand."""
    tasks, count, samples, strength = 3, 5, 4, 0.3
    examples = stream(tasks, count)
    method = ewc(
        LINEAR, mean_squared_error, TX, strength=strength, samples=samples, of_mean=of_mean
    )
    states = learn(method, examples)
    w, finished = np.asarray(states[0].params), []
    for n in range(tasks * count):
        if n and n % count == 0:
            rows = slice(n - count, n - count + samples)
            each = np.stack(
                [slope(w, x, y) for x, y in zip(examples.x[rows], examples.y[rows], strict=True)]
            )
            fisher = each.mean(0) ** 2 if of_mean else (each**2).mean(0)
            finished.append((fisher, w))
        penalty = sum(2 * strength * fisher * (w - old) for fisher, old in finished)
        w = w - LR * (slope(w, examples.x[n], examples.y[n]) + penalty)
        np.testing.assert_allclose(states[n + 1].params, w, rtol=1e-10)
    assert len(finished) == 2


def test_the_empirical_fisher_of_a_gaussian_model_is_its_known_information():
    """With noise of variance 1/2, -log p is the squared error: the information is 2 E[x x^T]."""
    rng, count = np.random.default_rng(0), 20_000
    x, truth = rng.normal(size=(count, WIDTH)) * [1, 2, 3], np.array([1.0, -1.0, 2.0])
    y = x @ truth + rng.normal(size=count) * np.sqrt(0.5)
    method = ewc(LINEAR, mean_squared_error, optax.sgd(0.0), strength=1.0, samples=count)
    state = method.init(jax.random.key(0), Example(jnp.ones(WIDTH), jnp.float64(0), jnp.int32(0)))
    known = state.memory._replace(
        items=state.memory.items._replace(x=jnp.asarray(x), y=jnp.asarray(y)),
        kept=jnp.int32(count),
        task=jnp.int32(0),
    )
    new = Example(jnp.ones(WIDTH), jnp.float64(0), jnp.int32(1))
    state = state._replace(params=jnp.asarray(truth), memory=known)
    found = quick(method.step)(jax.random.key(0), state, new)[0].memory.importance
    np.testing.assert_allclose(found, 2 * np.array([1, 4, 9]), rtol=0.05)


def test_er_is_descent_on_the_mean_over_the_new_example_and_the_old_ones():
    examples = stream(1, 6)
    method = er(LINEAR, mean_squared_error, TX, capacity=1, replay_batch_size=4)
    states = learn(method, examples, 2)
    w = np.asarray(states[0].params)
    w = w - LR * slope(w, examples.x[0], examples.y[0])  # there are no others
    np.testing.assert_allclose(states[1].params, w, rtol=1e-12)
    both = slope(w, examples.x[:2], examples.y[:2])  # one there is, drawn once
    np.testing.assert_allclose(states[2].params, w - LR * both, rtol=1e-12)


agem_project, gem_project = quick(agem.project), quick(gem.project)


def random_gradients(seed, others):
    rng = np.random.default_rng(seed)
    split = lambda rows: {"a": jnp.asarray(rows[..., :4]), "b": jnp.asarray(rows[..., 4:])}  # noqa: E731
    new, old = rng.normal(size=7), rng.normal(size=(others, 7)) + 0.5 * rng.normal(size=7)
    return new, old, split(new), split(old)


def flat(tree):
    return np.concatenate([tree["a"], tree["b"]])


def nearest(new, old, least=0.0):
    """The nearest point whose products with all of `old` are not negative, by SciPy."""
    found = minimize(
        lambda z: np.sum((z - new) ** 2) / 2,
        new,
        jac=lambda z: z - new,
        constraints={"type": "ineq", "fun": lambda z: old @ z, "jac": lambda z: old},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 200},
    )
    return found.x


@pytest.mark.parametrize("seed", range(8))
def test_agem_takes_the_nearest_gradient_that_does_not_oppose_the_reference(seed):
    new, old, new_tree, old_tree = random_gradients(seed, 1)
    found = flat(agem_project(new_tree, jax.tree.map(lambda leaf: leaf[0], old_tree)))
    assert found @ old[0] >= -1e-12
    np.testing.assert_allclose(found, nearest(new, old), atol=1e-6)
    if new @ old[0] >= 0:
        np.testing.assert_array_equal(found, new)


def test_agem_leaves_gradients_beside_nothing_as_they_are():
    _, _, new, _ = random_gradients(0, 1)
    found = agem_project(new, jax.tree.map(jnp.zeros_like, new))
    jax.tree.map(np.testing.assert_array_equal, found, new)


@pytest.mark.parametrize("seed", range(8))
def test_gem_takes_the_nearest_gradient_that_opposes_none(seed):
    new, old, new_tree, old_tree = random_gradients(seed, 4)
    found = flat(gem_project(new_tree, old_tree, 0.0))
    assert np.all(old @ found >= -1e-10)
    np.testing.assert_allclose(found, nearest(new, old), atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_the_weights_of_gem_with_a_margin_solve_the_dual_program(seed):
    """`min v P v / 2 + q v` over `v >= margin`; a task without examples (zeros) adds nothing."""
    margin = 0.4
    new, old, new_tree, old_tree = random_gradients(seed, 3)
    if np.all(old @ new >= 0):
        new, new_tree = -new, jax.tree.map(jnp.negative, new_tree)
    padded = jax.tree.map(lambda leaf: jnp.concatenate([leaf, 0 * leaf[:1]]), old_tree)
    found = flat(gem_project(new_tree, padded, margin))
    p, q = old @ old.T, old @ new
    dual = minimize(
        lambda v: v @ p @ v / 2 + q @ v,
        np.ones(3),
        jac=lambda v: p @ v + q,
        bounds=[(margin, None)] * 3,
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-10},
    )
    np.testing.assert_allclose(found, new + dual.x @ old, atol=1e-5)


def test_a_margin_is_without_effect_where_nothing_is_opposed():
    new, old, new_tree, old_tree = random_gradients(0, 4)
    signs = np.sign(old @ new)
    agreeing = jax.tree.map(lambda leaf: leaf * signs[:, None], old_tree)
    np.testing.assert_allclose(flat(gem_project(new_tree, agreeing, 1.0)), new, rtol=1e-12)


def test_the_rings_hold_the_newest_of_each_task_and_draw_from_others_alone():
    examples = stream(3, 5)
    empty, remember = episodic.empty(at(examples, 0), 3, 2), quick(episodic.remember)
    memory = empty
    for n in (0, 5, 6, 7, 10):  # one of task 0, three of task 1, one of task 2
        memory = remember(memory, at(examples, n))
    np.testing.assert_array_equal(episodic.sizes_of(memory), [1, 2, 1])
    draw = quick(partial(episodic.draw_others, count=3000))
    for task, known in ((0, [6, 7, 10]), (1, [0, 10]), (2, [0, 6, 7])):
        batch = draw(jax.random.key(task), memory, jnp.int32(task))
        assert np.all(batch.weight == 1)
        values, counts = np.unique(np.asarray(batch.y), return_counts=True)
        np.testing.assert_array_equal(values, np.sort(examples.y[known]))
        assert np.all(np.abs(counts - 3000 / len(known)) < 150)
    one = remember(empty, at(examples, 0))
    assert not np.any(draw(jax.random.key(0), one, jnp.int32(0)).weight)


@pytest.mark.parametrize("make", [agem_learner, gem_learner], ids=["agem", "gem"])
def test_of_two_tasks_with_all_in_memory_the_old_loss_does_not_rise(make):
    """And the gradient is the projected one, of the old task's mean loss on what is in memory.

    GEM's margin is the least weight of the old gradient where it is opposed, and A-GEM has none.
    Its own task no method looks at: the first is learnt by plain descent.
    """
    each, margin = 4, 0.6 if make is gem_learner else 0.0
    options = {"margin": margin} if make is gem_learner else {"replay_batch_size": 4000}
    examples = stream(2, each, seed=8)  # the third of the new task opposes its own memory
    options |= {"tasks": 2, "memory_per_task": each}
    states = learn(make(LINEAR, mean_squared_error, TX, **options), examples)
    weights = []
    for n in range(2 * each):
        w, after = (np.asarray(state.params) for state in states[n : n + 2])
        old = slope(w, examples.x[:each], examples.y[:each])
        new = slope(w, examples.x[n], examples.y[n])
        opposed = n >= each and new @ old < 0
        weights.append(max(margin, -(new @ old) / (old @ old)) if opposed else 0)
        expected = new + weights[n] * old
        # Of A-GEM 4,000 draws of 4 examples stand for their mean.
        tolerance = 1e-10 if make is gem_learner else 0.05 * np.abs(new).max()
        np.testing.assert_allclose(after, w - LR * expected, atol=LR * tolerance)
        assert n < each or expected @ old >= -1e-12
    assert {0, margin} <= set(weights[each:])
    assert max(weights) > margin


EXAMPLES, LAST = stream(1, 6), 5
"""What MER learns from here, and the last of them."""
RESERVOIR = {"capacity": 9, "replay_batch_size": 3}


@cache
def recalling(batches):
    return quick(partial(recall, reservoir(capacity=9), count=3, batches=batches))


def rows_drawn(batches):
    """What the method draws before the last example, as it is told by its own memory and key."""
    memory = reservoir(capacity=9).init(stored(at(EXAMPLES, 0)))
    for i in range(LAST + 1):
        past, memory = recalling(batches)(jax.random.key(i), memory, at(EXAMPLES, i))
    return past


def mer_of(beta, gamma):
    return mer(LINEAR, mean_squared_error, lr=LR, beta=beta, gamma=gamma, batches=2, **RESERVOIR)


@cache
def mer_step():
    """A step of MER, compiled once for all `beta` and `gamma`."""
    return quick(lambda beta, gamma, *now: mer_of(beta, gamma).step(*now))


@cache
def learnt_by_mer(beta, gamma):
    """The parameters before the first example and after each."""
    step = partial(mer_step(), beta, gamma)
    return [np.asarray(s.params) for s in learn(mer_of(beta, gamma), EXAMPLES, step=step)]


def test_mer_that_goes_all_the_way_is_descent_on_one_example_after_another():
    *_, w, found = learnt_by_mer(1.0, 1.0)
    past = rows_drawn(2)
    for batch in range(2):
        w = w - LR * slope(w, EXAMPLES.x[LAST], EXAMPLES.y[LAST])
        for i in range(3 * batch, 3 * batch + 3):
            w = w - LR * slope(w, past.x[i], past.y[i])
    np.testing.assert_allclose(found, w, rtol=1e-10)


BETA, GAMMA = 0.3, 0.7


def test_mer_goes_back_by_beta_after_each_batch_and_by_gamma_in_the_end():
    """The closed form on quadratics: each update is affine, and so is going back a part."""
    *_, start, found = learnt_by_mer(BETA, GAMMA)
    past = rows_drawn(2)

    def affine(x, y):
        """`w -> m w + c` of an update."""
        x, y = np.asarray(x), float(y)
        return np.eye(WIDTH) - 2 * LR * np.outer(x, x), 2 * LR * y * x

    total_m, total_c = np.eye(WIDTH), np.zeros(WIDTH)
    for batch in range(2):
        m, c = affine(EXAMPLES.x[LAST], EXAMPLES.y[LAST])
        for i in range(3 * batch, 3 * batch + 3):
            next_m, next_c = affine(past.x[i], past.y[i])
            m, c = next_m @ m, next_m @ c + next_c
        m, c = (1 - BETA) * np.eye(WIDTH) + BETA * m, BETA * c
        total_m, total_c = m @ total_m, m @ total_c + c
    expected = (1 - GAMMA) * start + GAMMA * (total_m @ start + total_c)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_the_first_example_meets_no_memory():
    """One update a batch; of the memory's zeros none counts."""
    start, found, *_ = learnt_by_mer(BETA, GAMMA)
    w = start
    for _ in range(2):
        w = w - BETA * LR * slope(w, EXAMPLES.x[0], EXAMPLES.y[0])
    np.testing.assert_allclose(found, start + GAMMA * (w - start), rtol=1e-12)


def test_algorithm_6_takes_the_new_example_last():
    method = mer_one_batch(LINEAR, mean_squared_error, lr=LR, gamma=GAMMA, **RESERVOIR)
    start, after_first, *_, before, found = (s.params for s in learn(method, EXAMPLES))
    expected = start - GAMMA * LR * slope(start, EXAMPLES.x[0], EXAMPLES.y[0])
    np.testing.assert_allclose(after_first, expected, rtol=1e-12)  # there are no others
    past, w = rows_drawn(1), before
    for x, y in zip(past.x, past.y, strict=True):
        w = w - LR * slope(w, x, y)
    w = w - LR * slope(w, EXAMPLES.x[LAST], EXAMPLES.y[LAST])
    np.testing.assert_allclose(found, before + GAMMA * (w - before), rtol=1e-10)


def test_reptile_makes_gradients_agree():
    """The way is the sum of gradients, less lr times H_j g_i for each i before j."""
    examples = stream(1, 2)
    w, lr = np.random.default_rng(1).normal(size=WIDTH), 1e-3
    batch = alone(at(examples, 0))._replace(x=jnp.asarray(examples.x), y=jnp.asarray(examples.y))
    end = np.asarray(quick(walker(LINEAR, mean_squared_error, lr))(jnp.asarray(w), batch))
    one, two = (slope(w, examples.x[i], examples.y[i]) for i in range(2))
    hessian = 2 * np.outer(examples.x[1], examples.x[1])
    np.testing.assert_allclose((w - end) / lr, one + two - lr * hessian @ one, rtol=1e-9)


def test_the_gradient_is_that_of_the_loss():
    examples = stream(1, 1)
    w = jnp.arange(3.0)
    grads, metrics = gradient(LINEAR, mean_squared_error)(w, alone(at(examples, 0)))
    np.testing.assert_allclose(grads, slope(np.arange(3.0), examples.x[0], examples.y[0]))
    np.testing.assert_allclose(
        metrics["loss"], (examples.x[0] @ np.arange(3.0) - examples.y[0]) ** 2
    )
