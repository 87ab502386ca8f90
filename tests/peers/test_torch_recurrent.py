"""The states and gradients of PyTorch's recurrent modules, in float64, of packed sequences too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.models.recurrent import Sequences, gru, lstm, rnn

torch = pytest.importorskip("torch")

FEATURES, HIDDEN, TIME = 3, 5, 6
LENGTHS = np.array([6, 2, 1, 4])
NETS = {"rnn": (rnn, "RNN"), "lstm": (lstm, "LSTM"), "gru": (gru, "GRU")}


def of_torch(module, layer, suffix):
    """One direction of one layer as jaxdl's parameters, and the same for its gradients."""

    def part(pick):
        w_x, w_h, b_x, b_h = (
            pick(getattr(module, f"{kind}_l{layer}{suffix}"))
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        return {"input": w_x.T, "recurrent": w_h.T}, b_x, b_h

    return part


def params_of(module, layers, suffixes):
    made = {}
    for layer in range(layers):
        made[f"layer_{layer}"] = {}
        for name, suffix in suffixes.items():
            weights, b_x, b_h = of_torch(module, layer, suffix)(lambda p: p.detach().numpy())
            if isinstance(module, torch.nn.GRU):
                at = 2 * HIDDEN
                bias = np.concatenate([b_x[:at] + b_h[:at], b_x[at:]])
                weights["candidate_bias"] = b_h[at:]
            else:
                bias = b_x + b_h
            made[f"layer_{layer}"][name] = {**weights, "bias": bias}
    return made


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_states_and_gradients_are_those_of_pytorch(name, bidirectional):
    make, peer = NETS[name]
    torch.manual_seed(0)
    options = {"num_layers": 2, "bidirectional": bidirectional, "batch_first": True}
    module = getattr(torch.nn, peer)(FEATURES, HIDDEN, dtype=torch.float64, **options)
    x = np.random.default_rng(0).standard_normal((4, TIME, FEATURES))
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.tensor(x), torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False
    )
    states, _ = torch.nn.utils.rnn.pad_packed_sequence(module(packed)[0], batch_first=True)
    torch.sin(states).sum().backward()

    suffixes = {"forward": ""} | ({"backward": "_reverse"} if bidirectional else {})
    model = make(HIDDEN, None, layers=2, bidirectional=bidirectional, output="all")
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, params_of(module, 2, suffixes))
        given = Sequences(jnp.asarray(x), jnp.asarray(LENGTHS))
        found = np.asarray(jax.jit(model.apply)(params, given))
        grads = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(model.apply(p, given)))))(params)
    np.testing.assert_allclose(found, states.detach().numpy(), atol=1e-12)
    for layer in range(2):
        for direction, suffix in suffixes.items():
            part = of_torch(module, layer, suffix)
            weights, b_x, b_h = part(lambda p: p.grad.numpy())
            each = grads[f"layer_{layer}"][direction]
            for kind, expected in {**weights, "bias": b_x}.items():
                np.testing.assert_allclose(each[kind], expected, rtol=1e-9, atol=1e-12)
            if name == "gru":
                np.testing.assert_allclose(each["candidate_bias"], b_h[2 * HIDDEN :], rtol=1e-9)
