"""Methods that look at gradients, against their defining properties and solvers of others."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import brentq, minimize, nnls

from jaxdl.errors import InputError
from jaxdl.multitask.aligned import aligned
from jaxdl.multitask.cagrad import cagrad
from jaxdl.multitask.gradvac import gradvac
from jaxdl.multitask.imtl import ImtlState, imtl, imtl_g
from jaxdl.multitask.mgda import mgda
from jaxdl.multitask.nash import nash
from jaxdl.multitask.pcgrad import pcgrad
from jaxdl.multitask.upgrad import upgrad
from tests.multitask.contract import KEY, problems, solve


def close(found, expected, rtol=1e-6, atol=1e-8):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


def test_mgda_of_two_tasks_is_the_nearest_point_of_a_segment():
    both = problems(2)
    first, second = both[:, 0], both[:, 1]
    difference = second - first
    share = np.sum(difference * second, axis=1) / np.sum(difference**2, axis=1)
    share = np.clip(share, 0, 1)[:, None]
    assert 0 < np.sum((share == 0) | (share == 1)) < len(both)
    close(solve(mgda(), both), share * first + (1 - share) * second)


def test_mgda_is_the_shortest_convex_combination_that_a_solver_finds():
    many = problems(4)
    for rows, found in zip(many, solve(mgda(), many), strict=True):
        best = minimize(
            lambda w, rows=rows: np.sum((w @ rows) ** 2),
            np.full(4, 0.25),
            jac=lambda w, rows=rows: 2 * rows @ (w @ rows),
            method="SLSQP",
            bounds=[(0, None)] * 4,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-15, "maxiter": 500},
        )
        close(found, best.x @ rows, atol=1e-5)
        # The variational inequality that no other point of the hull satisfies.
        assert np.all(rows @ found >= found @ found * (1 - 1e-9))


def test_mgda_stops_where_a_sum_of_gradients_vanishes():
    rows = problems(3, parameters=2)
    rows[:, 2] = -(0.3 * rows[:, 0] + 2 * rows[:, 1])
    close(solve(mgda(), rows), 0, atol=1e-7)


def projected(rows, task, order):
    """One gradient of PCGrad, by the algorithm's own words, in the space of the gradients."""
    mine = rows[task].copy()
    for other in order:
        if mine @ rows[other] < 0:
            mine -= mine @ rows[other] / (rows[other] @ rows[other]) * rows[other]
    return mine


def test_pcgrad_of_two_tasks_leaves_no_conflict():
    both = problems(2)
    found = solve(pcgrad(), both)
    products = np.sum(both[:, 0] * both[:, 1], axis=1)
    assert 0 < np.sum(products < 0) < len(both)
    for (first, second), product, combined in zip(both, products, found, strict=True):
        if product >= 0:
            close(combined, first + second)
            continue
        mine = first - product / (second @ second) * second
        theirs = second - product / (first @ first) * first
        close([mine @ second, theirs @ first], 0)
        close(combined, mine + theirs)


def test_pcgrad_visits_the_other_tasks_in_every_order():
    rows = problems(3, count=1)[0]
    rows -= 1.1 * rows.mean(axis=0)  # all three conflict
    possible = {}
    for flips in itertools.product((False, True), repeat=3):
        orders = [
            [t for t in range(3) if t != task][:: -1 if flip else 1]
            for task, flip in enumerate(flips)
        ]
        total = sum(projected(rows, task, order) for task, order in enumerate(orders))
        possible[tuple(np.round(total, 8))] = flips
    assert len(possible) > 1
    found = solve(pcgrad(), np.broadcast_to(rows, (200, 3, 6)))
    seen = {tuple(np.round(total, 8)) for total in found}
    # Every draw is one of the algorithm's results, and none of these is left out.
    near = lambda a, b: np.allclose(a, b, atol=1e-6)  # noqa: E731
    assert all(any(near(a, b) for b in possible) for a in seen)
    assert all(any(near(a, b) for b in seen) for a in possible)


def test_gradvac_lifts_a_cosine_to_its_target():
    both, target = problems(2), 0.3
    state = jnp.asarray([[0.0, target], [target, 0.0]])
    found = solve(gradvac(tasks=2), both, state=state)

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    def turned(mine, other):
        if cosine(mine, other) >= target:
            return mine
        gap = lambda share: cosine(mine + share * other, other) - target  # noqa: E731
        return mine + brentq(gap, 0, 1e4, xtol=1e-13, rtol=1e-13) * other

    below = [cosine(*rows) < target for rows in both]
    assert 0 < np.sum(below) < len(both)
    for (first, second), combined in zip(both, found, strict=True):
        close(combined, turned(first, second) + turned(second, first), rtol=1e-5)


def test_gradvac_remembers_the_cosines_that_it_met():
    rows = problems(2, count=1)[0].astype(np.float32)
    method = gradvac(tasks=2, beta=0.25)
    start = jnp.full((2, 2), -0.9)
    _, state = method.update(jnp.asarray(rows), start, key=KEY)
    cosine = rows[0] @ rows[1] / np.linalg.norm(rows[0]) / np.linalg.norm(rows[1])
    assert cosine > -0.9
    close(state[0, 1], 0.75 * -0.9 + 0.25 * cosine, rtol=1e-5)
    close(state[1, 0], state[0, 1], rtol=1e-5)


@pytest.mark.parametrize("c", [0.2, 0.9])
def test_cagrad_is_the_best_worst_case_that_a_solver_finds_in_the_ball(c):
    many = problems(4, count=10)
    conflicts = 0
    for rows, found in zip(many, solve(cagrad(c=c), many), strict=True):
        mean = rows.mean(axis=0)
        radius = c * np.linalg.norm(mean)
        best = minimize(
            lambda z: -z[-1],
            np.append(mean, np.min(rows @ mean)),
            jac=lambda z: np.append(np.zeros(len(z) - 1), -1.0),
            method="SLSQP",
            constraints=[
                {
                    "type": "ineq",
                    "fun": lambda z, rows=rows: rows @ z[:-1] - z[-1],
                    "jac": lambda z, rows=rows: np.hstack([rows, -np.ones((4, 1))]),
                },
                {
                    "type": "ineq",
                    "fun": lambda z, r=radius, m=mean: r**2 - np.sum((z[:-1] - m) ** 2),
                    "jac": lambda z, m=mean: np.append(-2 * (z[:-1] - m), 0),
                },
            ],
            options={"ftol": 1e-12, "maxiter": 500},
        )
        # Of a concave objective: what is as good as the maximum, and in the ball, is the maximum.
        assert np.min(rows @ found) > np.min(rows @ best.x[:-1]) - 1e-5 * np.max(
            np.abs(rows @ mean)
        )
        close(found, best.x[:-1], rtol=0, atol=1e-2 * radius)
        close(np.linalg.norm(found - mean), radius)
        conflicts += np.min(rows @ mean) < 0
    assert conflicts


def test_cagrad_without_a_ball_is_the_mean():
    many = problems(3)
    close(solve(cagrad(c=0.0), many), many.mean(axis=1))
    with pytest.raises(InputError, match=r"c in \[0, 1\)"):
        cagrad(c=1.0)


@pytest.mark.parametrize("c", [0.2, 0.9])
@pytest.mark.slow
def test_cagrad_serves_the_others_where_a_task_has_no_gradient(c):
    """Nor with one that is a million times shorter. The worst of the others has as much as at any
    of 4,000 places on the ball, where the best place is some convex sum of gradients away."""
    rows = np.concatenate([problems(3, count=12, seed=3)] * 2)
    factor = np.repeat([0, 1e-6], 12)[:, None, None]
    all_rows = np.concatenate([rows, factor * problems(1, count=24, seed=9)], axis=1)
    for seen, every, found in zip(rows, all_rows, solve(cagrad(c=c), all_rows), strict=True):
        mean = every.mean(axis=0)
        radius, scale = c * np.linalg.norm(mean), np.max(np.abs(seen @ mean))
        assert np.linalg.norm(found - mean) <= radius * (1 + 1e-9)

        def worst(d, seen=seen):
            return np.min(seen @ d)

        def on_ball(weights, seen=seen, mean=mean, radius=radius):
            towards = weights @ seen
            return mean + radius * towards / np.linalg.norm(towards)

        shares = np.random.default_rng(0).dirichlet(np.full(3, 0.5), 4000)
        best = max(worst(on_ball(weights)) for weights in shares)
        assert worst(found) > best - 2e-3 * scale


def test_nash_solves_the_bargaining_equation():
    """`gram @ a = 1 / a`: the weights are the inverse of what each task gets from their sum."""
    many, scales = problems(4), np.array([1e-3, 1.0, 30.0, 1e3])[:, None]
    solved, scaled = np.split(solve(nash(), np.concatenate([many, many * scales])), 2)
    for rows, found in zip(many, solved, strict=True):
        gains = rows @ found
        assert np.all(gains > 0)
        close((1 / gains) @ rows, found, rtol=1e-5, atol=1e-6)
    close(scaled, solved, rtol=1e-5, atol=1e-6)  # no task's scale matters


def test_imtl_gives_equal_projections_by_the_formula_of_the_paper():
    many = problems(4)
    for rows, found in zip(many, solve(imtl_g(), many), strict=True):
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        projections = units @ found
        close(projections, projections[0])
        lengths, turns = rows[0] - rows[1:], units[0] - units[1:]
        rest = rows[0] @ turns.T @ np.linalg.inv(lengths @ turns.T)
        close(found, np.append(1 - rest.sum(), rest) @ rows)


def test_imtl_is_the_impartial_sum_of_the_gradients_of_scaled_losses():
    many, log_scales = problems(3), np.array([-1.0, 0.0, 2.0])
    tx = optax.sgd(0.1)
    state = ImtlState(log_scales, tx.init(log_scales))
    found = solve(imtl(tasks=3, tx=tx), many, losses=np.ones(3), state=state)
    close(found, solve(imtl_g(), many * np.exp(log_scales)[:, None]))


def test_aligned_has_condition_one_and_the_singular_vectors_of_the_gradients():
    many = problems(4)
    deficient = problems(4)
    deficient[:, 3] = deficient[:, 0] - 2 * deficient[:, 1]
    cases = np.concatenate([many, deficient])
    ranks = np.repeat([4, 3], len(many))
    for rows, rank, found in zip(cases, ranks, solve(aligned(), cases), strict=True):
        left, values, right = np.linalg.svd(rows, full_matrices=False)
        close(found, values[rank - 1] * np.mean(left[:, :rank] @ right[:rank], axis=0))


def test_upgrad_is_the_mean_projection_onto_the_cone_where_no_loss_increases():
    many = problems(4)
    conflicts = 0
    for rows, found in zip(many, solve(upgrad(), many), strict=True):
        assert np.all(rows @ found >= -1e-9)
        # By duality, what is added to a gradient is the nearest non-negative sum to its opposite.
        added = [nnls(rows.T, -row)[0] for row in rows]
        close(found, np.mean([row + a @ rows for row, a in zip(rows, added, strict=True)], axis=0))
        conflicts += np.min(rows @ rows.mean(axis=0)) < 0
    assert conflicts


@pytest.mark.parametrize(
    ("method", "of_others", "times"),
    [
        (nash(), nash(), 1),
        (imtl_g(), imtl_g(), 1),
        (pcgrad(), pcgrad(), 1),
        (gradvac(tasks=3), gradvac(tasks=2), 1),
        (aligned(), aligned(), 2 / 3),
        (upgrad(), upgrad(), 2 / 3),
        (cagrad(c=0.0), cagrad(c=0.0), 2 / 3),
        (mgda(), mgda(), 0),
    ],
    ids=["nash", "imtl-g", "pcgrad", "gradvac", "aligned", "upgrad", "cagrad-0", "mgda"],
)
def test_a_task_without_a_gradient_counts_as_its_docstring_says(method, of_others, times):
    """Beside two others, by which place it has among them: in a mean of three, or not at all."""
    both = problems(2, count=10)
    found = solve(method, np.concatenate([np.insert(both, i, 0, axis=1) for i in range(3)]))
    expected = times * solve(of_others, both)
    close(found, np.concatenate([expected] * 3), rtol=1e-5, atol=1e-7)


def test_the_length_of_nash_is_the_root_of_the_number_of_tasks_with_a_gradient():
    """`a @ gram @ a` is `a @ (1 / a)` over those tasks, which is their number."""
    rows = problems(3)
    zeros = np.zeros_like(rows[:, :2])
    found = solve(nash(), np.concatenate([rows, zeros], axis=1))
    close(np.linalg.norm(found, axis=1), np.sqrt(3), rtol=1e-5)


def test_imtl_of_opposite_gradients_is_zero():
    rows = problems(1)
    close(solve(imtl_g(), np.concatenate([rows, -2 * rows], axis=1)), 0)


@pytest.mark.slow
@pytest.mark.parametrize("make", [mgda, cagrad, upgrad, nash, imtl_g])
def test_float32_is_enough(make):
    method = make()
    many = problems(4, count=50)
    run = jax.jit(jax.vmap(lambda g: method.update(g, method.init(None))[0]))
    found = run(jnp.asarray(many, jnp.float32))
    errors = np.linalg.norm(found - solve(method, many), axis=1)
    assert np.max(errors / np.linalg.norm(many, axis=(1, 2))) < 1e-3
