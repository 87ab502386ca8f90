"""Recurrent nets against their equations, written out in NumPy, one sequence and step at a time."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.meta import estimators
from jaxdl.meta.maml import maml
from jaxdl.models.layers.cells import GRU, LSTM, RNN, recurrence
from jaxdl.models.recurrent import Sequences, gru, lstm, rnn
from jaxdl.types import Batch, Episode

CELLS = {"rnn": (rnn, RNN), "lstm": (lstm, LSTM), "gru": (gru, GRU)}
FEATURES, HIDDEN, TIME = 3, 4, 5
LENGTHS = np.array([5, 1, 0, 3])


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def rnn_by_hand(params, x):
    h, states = np.zeros(HIDDEN), []
    for row in x:
        h = np.tanh(row @ params["input"] + h @ params["recurrent"] + params["bias"])
        states.append(h)
    return states


def lstm_by_hand(params, x):
    h, c, states = np.zeros(HIDDEN), np.zeros(HIDDEN), []
    for row in x:
        z = row @ params["input"] + h @ params["recurrent"] + params["bias"]
        i, f, g, o = z[:4], z[4:8], z[8:12], z[12:]
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return states


def gru_by_hand(params, x):
    h, states = np.zeros(HIDDEN), []
    for row in x:
        by_x, by_h = row @ params["input"] + params["bias"], h @ params["recurrent"]
        r, z = sigmoid(by_x[:4] + by_h[:4]), sigmoid(by_x[4:8] + by_h[4:8])
        n = np.tanh(by_x[8:] + r * (by_h[8:] + params["candidate_bias"]))
        h = (1 - z) * n + z * h
        states.append(h)
    return states


BY_HAND = {"rnn": rnn_by_hand, "lstm": lstm_by_hand, "gru": gru_by_hand}


def net_by_hand(name, params, x, layers, bidirectional):
    """The last states of the top layer, and all of them through the head, of one sequence."""
    for layer in range(layers):
        each = params[f"layer_{layer}"]
        states = BY_HAND[name](each["forward"], x)
        last = [states[-1] if len(x) else np.zeros(HIDDEN)]
        if bidirectional:
            back = BY_HAND[name](each["backward"], x[::-1])
            last.append(back[-1] if len(x) else np.zeros(HIDDEN))
            states = [np.concatenate(pair) for pair in zip(states, back[::-1], strict=True)]
        x = np.array(states).reshape(len(x), HIDDEN * len(last))
    head = params["head"]
    return np.concatenate(last) @ head["kernel"] + head["bias"], x @ head["kernel"] + head["bias"]


def moved(params, seed=0):
    """Float64, with every bias away from where it starts."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64) + 0.3 * rng.standard_normal(leaf.shape), params
    )


def given(make, seed=0, **options):
    model = make(HIDDEN, 2, **options)
    x = np.random.default_rng(seed).standard_normal((4, TIME, FEATURES))
    params = moved(model.init(jax.random.key(seed), jnp.asarray(x, jnp.float32)))
    return model, params, x


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_is_what_the_equations_say_for_unequal_lengths(name, bidirectional):
    found = []
    for output in ("last", "all"):
        options = {"layers": 2, "bidirectional": bidirectional, "output": output}
        model, params, x = given(CELLS[name][0], **options)
        with jax.enable_x64(True):
            apply = jax.jit(model.apply)
            found.append([apply(params, Sequences(x, LENGTHS)), apply(params, x)])
    last, states = (np.asarray(each) for each in found)
    for case, lengths in enumerate((LENGTHS, np.full(4, TIME))):
        for row, length in enumerate(lengths):
            expected = net_by_hand(name, params, x[row, :length], 2, bidirectional)
            np.testing.assert_allclose(last[case, row], expected[0], atol=1e-12)
            np.testing.assert_allclose(states[case, row, :length], expected[1], atol=1e-12)
            assert not states[case, row, length:].any()


def test_padding_reaches_neither_results_nor_gradients_even_as_nan():
    model, params, x = given(lstm, bidirectional=True, layers=2, output="all")
    inside = np.arange(TIME)[None] < LENGTHS[:, None]

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def run(params, x):
        y = model.apply(params, Sequences(x, LENGTHS))
        return jnp.sum(jnp.sin(y)), y

    with jax.enable_x64(True):
        found, poisoned = (
            jax.tree.map(np.asarray, run(params, np.where(inside[:, :, None], x, padding)))
            for padding in (x, np.nan)
        )
    jax.tree.map(np.testing.assert_array_equal, found, poisoned)
    by_x = found[1][1]
    assert not by_x[~inside].any()
    assert by_x[inside].all()


@pytest.mark.parametrize("name", CELLS)
def test_derivatives_of_first_and_second_order_in_both_modes(name):
    cell = CELLS[name][1]
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        weights = jnp.asarray(0.5 * rng.standard_normal((2 + 1 + 3, cell.blocks * 3)))
        x = jnp.asarray(rng.standard_normal((3, 2, 3)))
        state = tuple(jnp.asarray(rng.standard_normal((2, 3))) for _ in range(cell.states))
        run = jax.jit(lambda *args: recurrence(cell, *args))
        check_grads(run, (weights, x, state), order=2, modes=["fwd", "rev"], atol=1e-5, rtol=1e-5)


def episode(seed):
    """Sequences of unequal length in three classes; float64."""
    rng = np.random.default_rng(seed)
    batches = [
        Batch(
            Sequences(rng.standard_normal((6, TIME, FEATURES)), rng.integers(1, TIME + 1, 6)),
            rng.integers(0, 2, 6),
        )
        for _ in range(2)
    ]
    return jax.tree.map(jnp.asarray, Episode(*batches))


def test_a_maml_step_agrees_with_finite_differences_and_between_estimators(key):
    model, params, _ = given(lstm)
    with jax.enable_x64(True):
        params, task = jax.tree.map(jnp.asarray, params), episode(0)

        def grads_by(estimator):
            learner = maml(model, cross_entropy, tx=optax.sgd(0.5), steps=2, estimator=estimator)
            return learner, jax.jit(learner.grad)(key, jnp.int32(0), params, task)[0]

        learner, exact = grads_by(estimators.exact)
        _, mixed = grads_by(estimators.mixed_mode)

        @jax.jit
        def loss(params):
            adapted = learner.adapt(key, params, task.support)
            return cross_entropy(learner.predict(adapted, task.query.x), task.query.y)[0]

        direction = jax.tree.map(lambda leaf: jnp.cos(3 * leaf), params)
        shift = lambda h: jax.tree.map(lambda p, d: p + h * d, params, direction)  # noqa: E731
        slope = (loss(shift(1e-5)) - loss(shift(-1e-5))) / 2e-5
        along = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, exact, direction)))
    np.testing.assert_allclose(along, slope, rtol=1e-7)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-12), exact, mixed)


def test_starts_orthogonal_by_gate_and_remembering():
    params = lstm(HIDDEN, 2, forget_bias=1.5).init(jax.random.key(0), jnp.zeros((1, 1, FEATURES)))
    layer = params["layer_0"]["forward"]
    np.testing.assert_array_equal(layer["bias"], [0] * 4 + [1.5] * 4 + [0] * 8)
    gates = np.split(np.asarray(layer["recurrent"]), 4, axis=1)
    for gate in gates:
        np.testing.assert_allclose(gate.T @ gate, np.eye(HIDDEN), atol=1e-5)
    assert not np.allclose(gates[0], gates[1])
    # Glorot's bound is that of one gate; of all four it would be narrower.
    most = np.abs(layer["input"]).max()
    assert np.sqrt(6 / (FEATURES + 4 * HIDDEN)) < most < np.sqrt(6 / (FEATURES + HIDDEN))


def test_initialisers_and_a_missing_head_are_arguments():
    ones = jax.nn.initializers.ones
    model = gru(HIDDEN, None, input_init=ones, recurrent_init=ones, bidirectional=True)
    x = jnp.zeros((2, TIME, FEATURES))
    params = model.init(jax.random.key(0), x)
    assert set(params) == {"layer_0"}
    assert (params["layer_0"]["backward"]["recurrent"] == 1).all()
    assert model.apply(params, x).shape == (2, 2 * HIDDEN)


def test_the_weight_gradient_is_one_product_outside_the_loops():
    model = lstm(HIDDEN, 2)
    x = jnp.ones((4, TIME, FEATURES))
    params = model.init(jax.random.key(0), x)
    grad = jax.grad(lambda params: jnp.sum(model.apply(params, x)))
    loops = [e for e in jax.make_jaxpr(grad)(params).eqns if e.primitive.name == "scan"]
    assert len(loops) == 2  # to the end, and back
    for loop in loops:
        products = [e for e in loop.params["jaxpr"].eqns if e.primitive.name == "dot_general"]
        assert [e.outvars[0].aval.shape[0] for e in products] == [len(x)]  # of states alone


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: lstm(0, 2), "at least 1"),
        (lambda: gru((8, 8), 2), "whole numbers of at least 1. .*`layers=2` makes two layers"),
        (lambda: gru(2, 0), "at least 1"),
        (lambda: rnn(2, 2, layers=0), "at least 1"),
        (lambda: lstm(2, 2, output="first"), "'last' or 'all', not 'first'"),
        (lambda: lstm(2, 2).init(jax.random.key(0), jnp.zeros((2, 3))), r"float32 \(2, 3\)"),
        (lambda: lstm(2, 2).init(jax.random.key(0), jnp.zeros((2, 0, 3))), "one step"),
        (lambda: lstm(2, 2).init(jax.random.key(0), jnp.zeros((2, 3, 1), int)), "floating-point"),
    ],
)
def test_mistakes_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
