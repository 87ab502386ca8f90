"""A prepared TFDS set that stays on disk: streamed through the one loop, and resumed exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.data.prepare import tfds
from jaxdl.data.sets.images import image_arrays
from jaxdl.losses import cross_entropy
from jaxdl.models.linen import without_stats
from jaxdl.models.mlp import mlp
from jaxdl.train.feed import HostStream
from jaxdl.train.loop import loop
from jaxdl.train.steps import init_states, supervised_step
from jaxdl.train.streams import run_keys
from jaxdl.types import Batch

MODEL = without_stats(mlp((8, 10), dropout=0.2))
TX = optax.adam(0.01)


def batches(folder, *, batch=12, seed=3):
    """Each as the loop wants it; 40 examples: an epoch ends in the middle of the fourth batch."""

    def transform(example):
        return {"x": example["image"].astype(np.float32) / 255, "y": example["label"]}

    made = tfds.stream(
        "mnist", "train", batch_size=batch, seed=seed, transform=transform, data_dir=folder
    )
    return lambda step: Batch(made[step]["x"], made[step]["y"].astype(np.int32))


def run(fetch, state=None, *, steps, **flags):
    keys = run_keys(0, 2)
    if state is None:
        init = lambda key: MODEL.init(key, jnp.ones((1, 28, 28, 1)))  # noqa: E731
        state = init_states(init, keys, TX, with_stats=True)
    step, losses = supervised_step(MODEL, cross_entropy, TX), []
    chunks = loop(step, HostStream(fetch, 4), keys, state, steps=steps, **flags)
    for _, state, metrics in chunks:  # noqa: B007
        losses.append(metrics["loss"])
    return state, np.concatenate(losses, axis=1)


def test_resumed_in_the_middle_of_an_epoch_equals_never_stopped(tiny_mnist):
    never, losses = run(batches(tiny_mnist), steps=9)
    half, first = run(batches(tiny_mnist), steps=5)
    # As another process would: the set is opened anew, and nothing but the state is carried over.
    resumed, second = run(batches(tiny_mnist), half, steps=9, every=3)
    jax.tree.map(np.testing.assert_array_equal, never, resumed)
    np.testing.assert_array_equal(losses, np.concatenate([first, second], axis=1))


def test_the_loop_gets_every_image_once_an_epoch(tiny_mnist):
    seen = []

    def watched(step):
        seen.append(batches(tiny_mnist, batch=10)(step))
        return seen[-1]

    run(watched, steps=8)
    arrays = image_arrays("mnist", "train", data_dir=tiny_mnist)
    published = sorted(map(bytes, arrays.images))
    for epoch in (seen[:4], seen[4:]):
        images = np.concatenate([batch.x for batch in epoch]) * np.float32(255)
        assert sorted(map(bytes, images.round().astype(np.uint8))) == published
    assert not np.array_equal(seen[0].x, seen[4].x)


def test_another_seed_of_the_stream_is_another_run(tiny_mnist):
    one, two = (run(batches(tiny_mnist, seed=seed), steps=3)[1] for seed in (3, 4))
    assert not np.array_equal(one, two)


def test_a_damaged_set_stops_the_loop_with_what_the_reader_says(tiny_mnist):
    good = batches(tiny_mnist)

    def damaged(step):
        if step == 5:
            raise OSError("record 17 cannot be read")
        return good(step)

    with pytest.raises(OSError, match="record 17 cannot be read"):
        run(damaged, steps=9)
