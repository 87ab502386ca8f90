"""The training loop: every step a pure function of (key, step, state), whatever the chunks."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.tree_util import Partial

from jaxdl import parallel
from jaxdl.data.epochs import epochs
from jaxdl.errors import InputError
from jaxdl.grads import of_loss, over_tasks, supervised
from jaxdl.losses import cross_entropy
from jaxdl.models.layers.norm import RunningBatchNorm
from jaxdl.models.linen import stateful, without_stats
from jaxdl.models.mlp import mlp
from jaxdl.train.loop import copy_state, loop, per_seed
from jaxdl.train.steps import init_state, init_states, make_step, supervised_step
from jaxdl.train.streams import run_keys, task_stream
from jaxdl.types import WHOLE, Batch, TrainState

TX = optax.adam(0.1)


def sample(key):
    return jax.random.normal(key, (3,))


def loss(params, key, task, step=None):
    value = jnp.mean((params["a"] - task) ** 2) * (1 + jax.random.uniform(key))
    return value, {"loss": value}


def start(seeds=(0,)):
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    init = lambda key: {"a": jax.random.normal(key, (3,))}  # noqa: E731
    return keys, init_states(init, keys, TX)


def run(keys, state, steps, *, devices=1, tasks=4, **flags):
    axis = parallel.axis_name(devices)
    grad = over_tasks(of_loss(loss), axis_name=axis)
    chunks = loop(
        make_step(grad, TX),
        task_stream(sample, tasks),
        keys,
        state,
        steps=steps,
        devices=devices,
        **flags,
    )
    metrics = []
    for _, state, found in chunks:  # noqa: B007
        metrics.append(found["loss"])
    return state, np.concatenate(metrics, axis=1) if metrics else None


def same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def close(a, b, rtol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6), a, b)


def test_loop_does_what_a_python_loop_over_steps_does():
    keys, state = start()
    found, losses = run(keys, state, 5)
    step = make_step(over_tasks(of_loss(loss)), TX)
    expected = per_seed(state._replace(step=jnp.zeros(1, int)))[0]._replace(step=jnp.int32(0))
    for i in range(5):
        batch_key, step_key = jax.random.split(jax.random.fold_in(keys[0], i))
        batch = jax.vmap(sample)(jax.random.split(batch_key, 4))
        expected, metrics = step(step_key, expected, batch)
        np.testing.assert_allclose(losses[0, i], metrics["loss"], rtol=1e-5)
    close(per_seed(found.params)[0], expected.params)
    assert found.step == 5


def test_resumed_equals_never_stopped_bit_for_bit():
    keys, state = start((0, 1))
    never, losses = run(keys, state, 11)
    half, first = run(keys, state, 4)
    resumed, second = run(keys, half, 11)
    same_bits(never, resumed)
    np.testing.assert_array_equal(losses, np.concatenate([first, second], axis=1))


@cache
def eight_steps():
    """The state after eight steps of two seeds, and the losses."""
    return run(*start((0, 1)), 8)


@pytest.mark.parametrize("flags", [{"every": 1}, {"every": 3}, {"seconds": 0.0}])
def test_chunk_borders_change_nothing(flags):
    same_bits(eight_steps()[0], run(*start((0, 1)), 8, **flags)[0])


@pytest.mark.parametrize("ahead", [1, 3])
def test_how_many_batches_are_drawn_at_once_changes_nothing(ahead, monkeypatch):
    keys, state = start((0, 1))
    expected, losses = eight_steps()
    monkeypatch.setattr("jaxdl.train.loop.MOST_AHEAD", ahead)
    half, first = run(keys, state, 5)  # ends within a block
    found, second = run(keys, half, 8)
    close(expected, found)
    np.testing.assert_allclose(losses, np.concatenate([first, second], axis=1), rtol=1e-5)


def test_chunks_stop_at_multiples_of_every():
    keys, state = start()
    chunks = loop(
        make_step(over_tasks(of_loss(loss)), TX),
        task_stream(sample, 2),
        keys,
        state,
        steps=25,
        every=10,
    )
    ends = [i for i, _, _ in chunks]
    assert {10, 20, 25} <= set(ends)
    assert ends == sorted(ends)


@pytest.mark.parametrize("devices", [2, 4])
def test_devices_train_on_the_same_tasks(devices):
    one, losses = eight_steps()
    many, same_losses = run(*start((0, 1)), 8, devices=devices)
    close(one, many)
    np.testing.assert_allclose(losses, same_losses, rtol=1e-5)
    assert parallel.all_equal(many)
    assert len(many.params["a"].addressable_shards) == devices


def test_a_run_goes_on_with_another_number_of_devices():
    keys, state = start()
    half, _ = run(keys, state, 3, devices=4)
    close(run(keys, state, 6)[0], run(keys, parallel.local(half), 6, devices=2)[0])


def test_tasks_that_do_not_divide_among_devices_are_refused():
    keys, state = start()
    with pytest.raises(InputError, match="3 tasks do not divide among 2 devices"):
        run(keys, state, 1, devices=2, tasks=3)


def test_seeds_in_one_program_are_separate_runs():
    together, losses = run(*start((5, 6, 7)), 20)
    for index, seed in ((0, 5), (2, 7)):
        alone, loss_alone = run(*start((seed,)), 20)
        close(per_seed(together.params)[index], per_seed(alone.params)[0])
        np.testing.assert_allclose(losses[index], loss_alone[0], rtol=1e-5)
    assert np.unique(losses[:, 0]).size == 3


def test_vmapped_seeds_are_separate_runs(monkeypatch):
    """What an accelerator does with seeds, on the CPU."""
    expected, _ = run(*start((5, 6)), 20)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    close(run(*start((5, 6)), 20)[0], expected)


def test_the_callers_state_survives_and_keep_makes_a_copy():
    keys, state = start()
    before = jax.tree.map(np.array, state)
    chunks = loop(
        make_step(over_tasks(of_loss(loss)), TX),
        task_stream(sample, 2),
        keys,
        state,
        steps=3,
        every=1,
    )
    kept = [copy_state(state) for _, state, _ in chunks]
    same_bits(state, before)
    assert [int(k.step) for k in kept] == [1, 2, 3]
    assert not np.array_equal(kept[0].params["a"], kept[1].params["a"])


def test_a_finished_run_has_no_chunks():
    keys, state = start()
    done, _ = run(keys, state, 2)
    assert run(keys, done, 2)[1] is None


def test_the_sampler_data_set_is_no_constant_of_the_program():
    """As a constant, 4 MB would be 8 MB of program text and minutes of compilation at 25 MB."""
    data = jnp.ones((1000, 1000))
    stream = task_stream(Partial(lambda data, key: data[0, :3] + sample(key), data), 2)
    keys, state = start()
    programs = []
    real = parallel.compile_on

    def spy(run, devices, args, **flags):
        programs.append(jax.jit(lambda *a: run(WHOLE, *a)).lower(*args).as_text())
        return real(run, devices, args, **flags)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "compile_on", spy)
        list(loop(make_step(over_tasks(of_loss(loss)), TX), stream, keys, state, steps=1))
    assert len(programs[0]) < 1_000_000


def test_training_descends():
    keys, state = start()
    _, losses = run(keys, state, 200)
    assert losses[0, -20:].mean() < 0.8 * losses[0, :20].mean()


def test_init_state_is_step_zero():
    state = init_state({"a": jnp.ones(2)}, TX)
    assert isinstance(state, TrainState)
    assert state.step == 0
    assert state.stats == ()


# --- supervised_step: nets with statistics -------------------------------------------------------


class Net(nn.Module):
    """All that makes a step differ from a function of its parameters."""

    dropout: float = 0.4
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, mode):
        # No bias: the norm takes it away, and Adam would follow the rounding of its gradient.
        x = nn.Dense(6, use_bias=False)(x)
        x = nn.relu(RunningBatchNorm(axis_name=self.axis_name)(x, mode))
        x = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(x)
        return nn.Dense(3)(x)


IMAGES = np.random.default_rng(0).integers(0, 256, (30, 4), np.uint8)


def noisy(key, image):
    return image / 255 + 0.1 * jax.random.normal(key, image.shape)


def supervised_run(state, steps, *, devices=1, dropout=0.4, transform=noisy, **flags):
    axis = parallel.axis_name(devices)
    step = supervised_step(stateful(Net(dropout, axis)), cross_entropy, TX, axis_name=axis)
    stream = epochs(IMAGES, np.arange(30) % 3, batch=8, transform=transform)
    losses = []
    chunks = loop(step, stream, run_keys(0, 2), state, steps=steps, devices=devices, **flags)
    for _, state, metrics in chunks:  # noqa: B007
        losses.append(metrics["loss"])
    return state, np.concatenate(losses, axis=1)


def supervised_start():
    init = lambda key: stateful(Net()).init(key, jnp.ones((1, 4)))  # noqa: E731
    return init_states(init, run_keys(0, 2), TX, with_stats=True)


def test_a_supervised_step_of_a_net_without_statistics_is_make_step():
    model = mlp((5, 3), dropout=0.5)
    rng = np.random.default_rng(1)
    weight = jnp.arange(6.0)
    batch = Batch(jnp.asarray(rng.normal(size=(6, 4)), jnp.float32), jnp.arange(6) % 3, weight)
    state = other = init_state(model.init(jax.random.key(0), batch.x), TX)
    one = jax.jit(make_step(supervised(model, cross_entropy), TX))
    two = jax.jit(supervised_step(without_stats(model), cross_entropy, TX))
    for i in range(3):
        state, metrics = one(jax.random.key(i), state, batch)
        other, same = two(jax.random.key(i), other, batch)
        close((state.params, metrics), (other.params, same))
    assert other.step == 3


def test_resume_is_exact_with_dropout_augmentation_and_batch_norm():
    """In the middle of an epoch, and with what batch norm has collected."""
    never, losses = supervised_run(supervised_start(), 11)
    half, first = supervised_run(supervised_start(), 5)
    assert not np.array_equal(half.stats["RunningBatchNorm_0"]["mean"], np.zeros((2, 6)))
    resumed, second = supervised_run(half, 11, every=4)
    same_bits(never, resumed)
    np.testing.assert_array_equal(losses, np.concatenate([first, second], axis=1))
    # The test would see each of the three: without it, the losses are others.
    still = supervised_run(supervised_start(), 6, transform=lambda key, image: image / 255)
    for other in (without_dropout(), still):
        assert not np.array_equal(other[1], losses[:, :6])
    forgotten = half._replace(stats=jax.tree.map(jnp.zeros_like, half.stats))
    different = supervised_run(forgotten, 11)[0].stats
    assert not np.array_equal(jax.tree.leaves(different)[0], jax.tree.leaves(never.stats)[0])


@cache
def without_dropout():
    return supervised_run(supervised_start(), 6, dropout=0.0)


@pytest.mark.parametrize("devices", [2, 4])
def test_devices_with_batch_norm_are_one(devices):
    one, losses = without_dropout()
    many, same = supervised_run(supervised_start(), 6, dropout=0.0, devices=devices)
    np.testing.assert_allclose(losses, same, rtol=1e-4)
    close((one.params, one.stats), (many.params, many.stats), rtol=1e-3)
    assert parallel.all_equal(many)


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow), 4])
def test_a_supervised_step_leaves_out_what_has_no_weight(devices):
    """Padding of nonsense equals none, also where it lies on some devices alone."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(8, 4)), jnp.float32)
    x, y = x.at[5:].set(jnp.nan), (jnp.arange(8) % 3).at[5:].set(-100)
    weight = jnp.array([1, 0.5, 1, 2, 1, 0, 0, 0])
    # Adam would follow the sign of gradients that are rounding alone.
    axis, tx = parallel.axis_name(devices), optax.sgd(0.1)
    params, stats = stateful(Net()).init(jax.random.key(0), x[:5])
    state = init_state(params, tx, stats)

    def step_of(axis):
        return supervised_step(stateful(Net(0.0, axis)), cross_entropy, tx, axis_name=axis)

    cut = Batch(x[:5], y[:5], weight[:5])
    expected = step_of(None)(jax.random.key(0), state, cut)

    def run(shard, batch):
        return step_of(axis)(jax.random.key(0), state, shard.of(batch))

    batch = Batch(x, y, weight)
    close(parallel.compile_on(run, devices, (batch,))(batch), expected)


def test_every_device_draws_dropout_masks_of_its_own():
    """Two devices with two halves that are alike: equal masks would give equal outputs."""
    seen = []

    def loss(y, target, weight=None):
        return jnp.mean(y), {"loss": jnp.mean(y), "square": jnp.mean(y) ** 2}

    class Halves(nn.Module):
        @nn.compact
        def __call__(self, x, mode):
            w = self.param("w", nn.initializers.ones, (64,))
            return nn.Dropout(0.5, deterministic=not self.has_rng("dropout"))(x * w[None])

    step = supervised_step(stateful(Halves()), loss, TX, axis_name=parallel.AXIS)
    state = init_states(lambda key: ({"w": jnp.ones(64)}, {}), run_keys(0, 1), TX, with_stats=True)
    stream = Partial(lambda key, step, shard: shard.of(Batch(jnp.ones((2, 64)), jnp.zeros(2))))
    for _, _, metrics in loop(step, stream, run_keys(0, 1), state, steps=3, devices=2):
        seen.append(metrics["square"] - metrics["loss"] ** 2)  # the variance between devices
    assert (np.concatenate(seen, axis=1) > 1e-6).all()


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"loss": {"support": 1.0}}, r"the metric 'loss' is a dict and not an array: give each"),
        ({"loss": [1.0, 2.0]}, r"the metric 'loss' is a list and not an array"),
        ({"loss": None}, r"the metric 'loss' is a NoneType and not an array"),
        ((1.0, 2.0), r"the metrics of a step are a tuple: give a dict of arrays by name"),
    ],
)
def test_metrics_that_are_not_arrays_by_name_are_refused(metrics, message):
    keys, state = start()
    step = make_step(lambda key, step, params, batch: (params, metrics), TX)
    with pytest.raises(InputError, match=message):
        next(loop(step, task_stream(sample, 2), keys, state, steps=2))
