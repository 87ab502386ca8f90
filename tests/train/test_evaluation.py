"""A whole set in batches gives what one batch gives, whatever the sizes, and in the mode "eval"."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxdl.data.subsets import by_class, cells
from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.models.layers.norm import RunningBatchNorm
from jaxdl.models.linen import stateful, without_stats
from jaxdl.models.mlp import mlp
from jaxdl.train.evaluation import measure, measure_subsets, predict_all
from jaxdl.train.streams import run_keys


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, mode):
        x = RunningBatchNorm()(nn.Dense(5)(x), mode)
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=mode == "eval")(x))


MODEL = stateful(Net())
EXAMPLES = jnp.asarray(np.random.default_rng(0).integers(0, 256, (23, 4)), jnp.uint8)
LABELS = jnp.arange(23) % 3


def scaled(example):
    return example.astype(jnp.float32) / 255


def trained(seed):
    """Statistics that are not those of any batch below."""
    params, stats = MODEL.init(jax.random.key(seed), jnp.ones((1, 4)))
    return params, jax.tree.map(lambda leaf: leaf + 0.3 + seed, stats)


@pytest.mark.parametrize("batch", [1, 5, 12, 22, 23, 500])
def test_a_set_in_batches_is_the_set_at_once(batch):
    params, stats = trained(0)
    found = predict_all(MODEL, scaled, batch=batch)(params, stats, EXAMPLES)
    expected, _ = MODEL.apply(params, stats, scaled(EXAMPLES), mode="eval")
    assert found.shape == (23, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_metrics_are_those_of_each_seed_over_all_examples():
    seeds = [trained(seed) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    found = measure(MODEL, cross_entropy, scaled, batch=10)(*stacked, EXAMPLES, LABELS)
    for i, (params, stats) in enumerate(seeds):
        logits, _ = MODEL.apply(params, stats, scaled(EXAMPLES), mode="eval")
        for name, value in cross_entropy(logits, LABELS)[1].items():
            np.testing.assert_allclose(found[name][i], value, rtol=1e-5)


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_devices_share_the_seeds_and_find_the_same_bits(seeds):
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(trained, range(seeds)))
    args = *stacked, EXAMPLES, LABELS
    alone = measure(MODEL, cross_entropy, scaled, batch=10)(*args)
    found = measure(MODEL, cross_entropy, scaled, batch=10, devices=4)(*args)
    assert found["loss"].shape == (seeds,)
    assert len(set(map(float, alone["loss"]))) == seeds
    jax.tree.map(np.testing.assert_array_equal, found, alone)


def test_devices_share_the_runs_on_subsets():
    table, model = by_class(EXAMPLES, np.asarray(LABELS)), without_stats(mlp((3,)))
    runs = cells(run_keys(0, 3), (0, 6), (0.1,))
    x = jnp.ones((1, 4))
    keys = jax.random.split(jax.random.key(5), 6)
    params = jax.vmap(lambda key: model.init(key, x)[0])(keys)
    args = params, {}, table, runs.subsets
    alone = measure_subsets(model, cross_entropy, scaled)(*args)
    found = measure_subsets(model, cross_entropy, scaled, devices=4)(*args)
    assert len(set(map(float, alone["loss"]))) == 6
    jax.tree.map(np.testing.assert_array_equal, found, alone)


def test_a_run_is_judged_on_its_own_subset_alone():
    """A net that is right on one class only, judged by the subset's own proportions."""
    x = jax.random.normal(jax.random.key(1), (60, 2, 2, 1))
    labels = np.arange(3).repeat(20)
    table = by_class(x, labels)._replace(sizes=jnp.array([20, 5, 10]))
    model = mlp((3,))
    params = jax.tree.map(
        lambda leaf: jnp.stack([leaf * 0] * 4), model.init(jax.random.key(0), table.x[:1])
    )
    runs = cells(run_keys(0, 2), (0, 6), (0.1,))
    judge = measure_subsets(without_stats(model), cross_entropy, lambda x: x)
    # Logits all zero: class 0 is predicted.
    found = judge(params, {}, table, runs.subsets)["accuracy"]
    np.testing.assert_allclose(found, [20 / 35] * 2 + [6 / 17] * 2, rtol=1e-6)


def test_nothing_to_predict_is_told():
    predict = predict_all(without_stats(mlp((2,))), lambda x: x, batch=4)
    with pytest.raises(InputError, match="there are no examples to predict"):
        predict({}, {}, np.zeros((0, 3), np.float32))
