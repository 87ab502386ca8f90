"""Batches from the host are the batches of a stream on the device, whatever the blocks."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from jaxdl import parallel
from jaxdl.errors import InputError
from jaxdl.grads import over_devices, supervised
from jaxdl.losses import mean_squared_error
from jaxdl.models.mlp import mlp
from jaxdl.train.feed import Feed, HostStream
from jaxdl.train.loop import loop
from jaxdl.train.steps import init_states, make_step
from jaxdl.train.streams import run_keys
from jaxdl.types import Batch

STEPS = 11
RNG = np.random.default_rng(0)
TABLE = Batch(
    RNG.normal(size=(STEPS, 4, 3)).astype(np.float32),
    RNG.normal(size=(STEPS, 4, 1)).astype(np.float32),
)
MODEL = mlp((5, 1), dropout=0.3)
TX = optax.adam(0.1)
KEYS = run_keys(0, 2)


def fetch(step):
    return Batch(TABLE.x[step], TABLE.y[step])


def start():
    return init_states(lambda key: MODEL.init(key, jnp.ones((1, 3))), KEYS, TX)


def chunks(stream, state, *, steps=STEPS, devices=1, model=MODEL, **flags):
    axis = parallel.axis_name(devices)
    step = make_step(over_devices(supervised(model, mean_squared_error), axis), TX)
    return loop(step, stream, KEYS, state, steps=steps, devices=devices, **flags)


def run(*arguments, **flags):
    losses = []
    for _, state, metrics in chunks(*arguments, **flags):  # noqa: B007
        losses.append(metrics["loss"])
    return state, np.concatenate(losses, axis=1)


def same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def feeding():
    return [thread for thread in threading.enumerate() if thread.name.startswith("jaxdl-feed")]


@pytest.fixture(autouse=True)
def _threads_end():
    yield
    assert not feeding()


@pytest.fixture(scope="module")
def on_the_device():
    def draw(table, key, step, shard):
        return shard.of(jax.tree.map(lambda leaf: leaf[step], table))

    return run(Partial(draw, jax.tree.map(jnp.asarray, TABLE)), start())


@pytest.mark.parametrize(
    ("ahead", "flags"), [(1, {}), (3, {"every": 4}), (16, {}), (16, {"seconds": 0.0})]
)
def test_the_host_feeds_what_a_stream_on_the_device_holds(on_the_device, ahead, flags):
    same_bits(run(HostStream(fetch, ahead), start(), **flags), on_the_device)


def test_each_batch_is_fetched_once_and_in_order():
    asked = []
    run(HostStream(lambda step: (asked.append(step), fetch(step))[1], 4), start(), every=3)
    assert asked == list(range(STEPS))


@pytest.mark.parametrize("stop", [4, 7])
def test_resumed_equals_never_stopped_bit_for_bit(on_the_device, stop):
    asked = []
    half, first = run(HostStream(fetch, 4), start(), steps=stop)
    source = HostStream(lambda step: (asked.append(step), fetch(step))[1], 4)
    state, second = run(source, half)
    same_bits((state, np.concatenate([first, second], axis=1)), on_the_device)
    assert asked[0] == stop


def test_devices_share_each_batch():
    model = mlp((5, 1))  # dropout draws other masks on every device
    one, losses = run(HostStream(fetch, 4), start(), model=model)
    many, same = run(HostStream(fetch, 4), start(), model=model, devices=2)
    np.testing.assert_allclose(losses, same, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, many)


def test_the_next_block_is_fetched_while_the_device_works():
    fetched = threading.Event()

    def watched(step):
        if step == 5:
            fetched.set()
        return fetch(step)

    generator = chunks(HostStream(watched, 3), start(), every=3)
    next(generator)  # within the first block, 0 to 2; nobody has asked for the second, 3 to 5
    assert fetched.wait(10)
    generator.close()


class Broken(Exception):
    pass


@pytest.mark.parametrize("at", [0, 5])
def test_what_fetch_raises_comes_out_as_it_is(at):
    raised = Broken("the disk is gone")

    def broken(step):
        if step == at:
            raise raised
        return fetch(step)

    done = 0
    with pytest.raises(Broken) as caught:
        for done, _, _ in chunks(HostStream(broken, 3), start()):  # noqa: B007
            pass
    assert caught.value is raised
    assert not feeding()  # although the traceback still holds the frame of the loop
    assert done == at // 3 * 3  # all whole blocks before


def test_batches_of_another_shape_are_an_error_too():
    with pytest.raises(ValueError, match="same shape"):
        run(HostStream(lambda step: np.ones(1 + step), 3), start())


def test_a_loop_that_is_left_early_ends_the_thread_soon():
    asked = []

    def slow(step):
        asked.append(step)
        time.sleep(0.05 if step > 3 else 0)
        return fetch(step % STEPS)

    for _ in chunks(HostStream(slow, 4), start(), steps=1000):
        break
    assert not feeding()
    assert len(asked) <= 8  # the first block, and what the thread had begun of the second


def test_blocks_hold_a_batch_at_least():
    with pytest.raises(InputError, match="ahead=0: choose at least 1"):
        run(HostStream(fetch, 0), start())


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (-1, "example 2 has the label -1, but the 10 classes have the labels 0 to 9"),
        (10, "example 2 has the label 10, but the 10 classes have the labels 0 to 9"),
    ],
)
def test_a_label_that_is_none_stops_the_loop(label, words):
    """As the unlabelled part of many a TFDS set has them."""

    def fetched(step):
        return Batch(TABLE.x[step], np.array([0, 9, label if step == 5 else 3, 1]))

    feed = Feed(HostStream(fetched, 2, 10), 0, STEPS)
    for step in range(4):  # all whole blocks before
        feed.stream(step)
    with pytest.raises(InputError, match=words):
        feed.stream(4)
    feed.close()


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_integers_become_int32_and_what_is_no_batch_stays(dtype):
    labels = np.array([0, 200, 255, 1]).astype(dtype)
    feed = Feed(HostStream(lambda step: Batch(TABLE.x[step], labels), classes=256), 0, STEPS)
    batch = feed.stream(0)(KEYS[0], jnp.int32(0))
    feed.close()
    assert batch.y.dtype == jnp.int32
    np.testing.assert_array_equal(batch.y, labels)
    other = Feed(HostStream(lambda step: -labels.astype(np.int16)), 0, STEPS)
    found = other.stream(0)(KEYS[0], jnp.int32(0))
    other.close()
    np.testing.assert_array_equal(found, -labels.astype(int))


def test_a_missing_label_of_weight_zero_may_be_any_number_and_a_count_too():
    labels, weight = np.array([-100, 9, 3, 10]), np.array([0, 1, 1, 0.0])
    masked = HostStream(lambda step: Batch(TABLE.x[step], labels, weight), classes=10)
    counts = HostStream(lambda step: Batch(TABLE.x[step], -labels))  # targets of a regression
    for source, expected in ((masked, [0, 9, 3, 0]), (counts, -labels)):
        feed = Feed(source, 0, STEPS)
        batch = feed.stream(0)(KEYS[0], jnp.int32(0))
        feed.close()
        np.testing.assert_array_equal(batch.y, expected)


def test_integers_that_do_not_fit_stop_the_loop():
    feed = Feed(HostStream(lambda step: Batch(TABLE.x[step], np.array([3_000_000_000]))), 0, STEPS)
    with pytest.raises(InputError, match=r"the batch\.y has integers .* do not fit into int32"):
        feed.stream(0)
    feed.close()


def test_a_label_of_weight_zero_may_be_any_integer():
    labels = np.array([0, np.iinfo(np.int64).min, 2, 1])
    source = HostStream(
        lambda step: Batch(TABLE.x[step], labels, np.array([1, 0, 1, 1.0])), classes=3
    )
    feed = Feed(source, 0, STEPS)
    assert feed.stream(0)(KEYS[0], jnp.int32(0)).y.tolist() == [0, 0, 2, 1]
    feed.close()
