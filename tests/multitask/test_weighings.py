"""Methods that learn or draw weights, against NumPy and finite differences of their objectives."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.errors import InputError
from jaxdl.multitask.dwa import dwa
from jaxdl.multitask.equal import equal
from jaxdl.multitask.famo import famo
from jaxdl.multitask.gradnorm import gradnorm
from jaxdl.multitask.imtl import imtl_l
from jaxdl.multitask.rlw import rlw
from jaxdl.multitask.uncertainty import uncertainty
from tests.multitask.contract import KEY

LOSSES = np.random.default_rng(0).uniform(0.2, 3.0, (7, 3))
LR = 0.1


def weights(method, losses=LOSSES, stacked=None):
    """The weights `[steps, tasks]` of one step after another: the sum of weighed unit vectors.

    `stacked` `[steps, tasks, p]`: gradients, orthogonal and of given lengths, if they matter.
    """
    with jax.enable_x64(True):
        state, found = method.init(None), []
        tasks = losses.shape[1]
        update = jax.jit(lambda g, state, v: method.update(g, state, losses=v, key=KEY))
        for i, values in enumerate(losses):
            lengths = np.ones(tasks) if stacked is None else stacked[i]
            combined, state = update(jnp.diag(jnp.asarray(lengths)), state, jnp.asarray(values))
            found.append(np.asarray(combined) / lengths)
        return np.stack(found)


def slope(objective, at, step=1e-6):
    """The gradient by central differences."""
    unit = step * np.eye(len(at))
    return np.array([objective(at + e) - objective(at - e) for e in unit]) / (2 * step)


def close(found, expected, rtol=1e-6):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-9)


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def test_equal_is_the_mean():
    close(weights(equal()), np.full((7, 3), 1 / 3))


def test_uncertainty_follows_the_likelihood_of_the_paper():
    """The negative log-likelihoods of equations 7 and 10, as functions of sigma."""
    gaussian = np.array([True, False, True])

    def objective(log_variances, losses):
        sigma = np.exp(log_variances / 2)
        precision = np.where(gaussian, 1 / (2 * sigma**2), 1 / sigma**2)
        return np.sum(precision * losses + np.log(sigma))

    s, expected = np.zeros(3), []
    for losses in LOSSES:
        expected.append(np.where(gaussian, 0.5, 1) * np.exp(-s))
        s = s - LR * slope(lambda s, losses=losses: objective(s, losses), s)
    found = weights(uncertainty(tasks=3, tx=optax.sgd(LR), gaussian=list(gaussian)))
    close(found, np.stack(expected))


def test_impartial_losses_follow_the_objective_of_the_paper():
    s, expected = np.zeros(3), []
    for losses in LOSSES:
        expected.append(np.exp(s))
        s = s - LR * slope(lambda s, losses=losses: np.sum(np.exp(s) * losses - s), s)
    close(weights(imtl_l(tasks=3, tx=optax.sgd(LR))), np.stack(expected))


@pytest.mark.parametrize("every", [1, 2])
def test_dwa_is_the_softmax_of_ratios_of_the_last_two_periods(every):
    means = LOSSES[: len(LOSSES) // every * every].reshape(-1, every, 3).mean(axis=1)
    expected = []
    for step in range(len(LOSSES)):
        period = step // every
        ratio = means[period - 1] / means[period - 2] if period >= 2 else np.ones(3)
        expected.append(3 * softmax(ratio / 1.5))
    close(weights(dwa(tasks=3, every=every, temperature=1.5)), np.stack(expected))


def test_dwa_refuses_a_period_without_steps():
    with pytest.raises(InputError, match="every >= 1"):
        dwa(tasks=3, every=0)


def test_a_loss_that_rises_from_zero_takes_all_of_the_weight_of_dwa():
    """In float32, where the ratio is infinite from a loss of 4 on."""
    method = dwa(tasks=2, every=1)
    state, found = method.init(None), []
    for values in ([0.0, 1.0], [10.0, 1.0], [5.0, 1.0], [5.0, 1.0]):
        combined, state = method.update(jnp.eye(2), state, losses=jnp.asarray(values))
        found.append(np.asarray(combined))
    close(found[2], [2, 0])
    close(found[3], 2 * softmax(np.array([0.5, 1.0]) / 2))


def test_famo_is_its_recurrence():
    logits, expected = np.zeros(3), []
    for step, losses in enumerate(LOSSES):
        if step:
            z = softmax(logits)
            jacobian = np.diag(z) - np.outer(z, z)
            fall = np.log(LOSSES[step - 1]) - np.log(losses)
            logits = logits - LR * (jacobian.T @ fall + 0.5 * logits)
        z = softmax(logits)
        expected.append(z / losses / np.sum(z / losses))
    close(weights(famo(tasks=3, tx=optax.sgd(LR), decay=0.5)), np.stack(expected))


def test_gradnorm_goes_down_its_balance_loss_and_keeps_the_sum():
    lengths = np.random.default_rng(1).uniform(0.8, 1.2, (7, 3)) * [0.2, 1.0, 4.0]
    w, expected = np.ones(3), []
    for losses, lengths_now in zip(LOSSES, lengths, strict=True):
        expected.append(w)
        ratio = losses / LOSSES[0]
        target = np.mean(w * lengths_now) * (ratio / ratio.mean()) ** 1.5
        balance = lambda w, n=lengths_now, t=target: np.sum(np.abs(w * n - t))  # noqa: E731
        w = w - 0.1 * slope(balance, w)
        w = np.maximum(w, 0)
        w = 3 * w / w.sum()
    found = weights(gradnorm(tasks=3, tx=optax.sgd(0.1), alpha=1.5), stacked=lengths)
    close(found, np.stack(expected))


def test_gradnorm_of_a_first_loss_of_zero_goes_on_as_from_any_other():
    found = [
        weights(gradnorm(tasks=2, tx=optax.sgd(0.1), alpha=1.5), losses=np.array(losses, float))
        for losses in ([[0, 1], [10, 1], [5, 1]], [[7, 1], [7, 1], [7, 1]])  # a ratio of 1
    ]
    close(*found)


def test_gradnorm_only_rescales_the_weight_of_a_task_without_a_gradient():
    method = gradnorm(tasks=3, tx=optax.sgd(0.1), alpha=0.0)
    gradients = jnp.diag(jnp.asarray([0.0, 1.0, 2.0]))
    _, state = method.update(gradients, method.init(None), losses=jnp.ones(3))
    # Lengths 0, 1, 2 and their mean 1: only the third moves, by 0.1 times its length.
    close(state.weights, np.array([1, 1, 0.8]) * 3 / 2.8)


def test_random_weights_are_the_softmax_of_normals():
    method = rlw()
    draw = jax.jit(jax.vmap(lambda k: method.update(jnp.eye(3), (), losses=jnp.ones(3), key=k)[0]))
    drawn = np.asarray(draw(jax.random.split(KEY, 20_000)), np.float64)
    np.testing.assert_allclose(drawn.sum(axis=1), 1, rtol=1e-5)
    # The logarithm of a ratio of weights is the difference of two standard normals.
    ratios = np.log(drawn[:, 0] / drawn[:, 1])
    np.testing.assert_allclose(
        [ratios.mean(), ratios.var(), np.mean(ratios**4)], [0, 2, 12], atol=0.6, rtol=0.05
    )
    with pytest.raises(InputError, match=r"rlw needs a key.*key="):
        method.update(jnp.eye(3), (), losses=jnp.ones(3))


def test_a_method_made_for_other_tasks_is_refused():
    with pytest.raises(InputError, match="tasks=4 got gradients of 3"):
        weights(dwa(tasks=4, every=1))
