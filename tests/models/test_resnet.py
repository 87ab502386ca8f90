"""Residual nets: known sizes, blocks that start as identities, devices, precisions, learning.

That they compute what PyTorch's do is tested in tests/peers/test_torch_resnet.py.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.tree_util import Partial

from jaxdl import parallel
from jaxdl.data.prepare import sources, tfds
from jaxdl.data.sets.images import image_arrays
from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.models.resnet import resnet, resnet18, resnet34, resnet50
from jaxdl.models.resnet12 import drop_block, resnet12, resnet12_batch
from jaxdl.train.loop import loop
from jaxdl.train.steps import init_state, supervised_step
from jaxdl.train.streams import run_keys, step_keys
from jaxdl.types import Batch

KEY = jax.random.key(0)
tiny: Any = partial(resnet, depths=(1,), stem="cifar", width=4)


def images(*shape: int, seed: int = 0) -> Any:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def started(model: Any, x: Any) -> Any:
    """What `model.init(KEY, x)` makes, by NumPy: compiling a start takes longer than a training."""
    rng = np.random.default_rng(0)

    def fill(path: Any, leaf: Any) -> Any:
        if leaf.ndim == 1:
            return jnp.full(leaf.shape, float(path[-1].key in ("scale", "var")), leaf.dtype)
        values = rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(model.init, KEY, x))


def size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("make", "count", "features"),
    [(resnet18, 11_689_512, 512), (resnet34, 21_797_672, 512), (resnet50, 25_557_032, 2048)],
)
def test_sizes_are_torchvisions(make: Any, count: int, features: int) -> None:
    x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params, _ = jax.eval_shape(make(1000, stem="imagenet").init, KEY, x)
    assert size(params) == count
    params, stats = jax.eval_shape(make(None, stem="imagenet").init, KEY, x)
    assert size(params) == count - 1000 * (features + 1)
    run = partial(make(None, stem="imagenet").apply, mode="eval")
    assert jax.eval_shape(run, params, stats, x)[0].shape == (1, features)


def test_images_shrink_by_the_stem_and_by_each_further_stage() -> None:
    """Read off the convolutions: 224 pixels end as 7, and 32 with the small stem as 4."""
    for stem, pixels, last in (("imagenet", 224, 7), ("cifar", 32, 4)):
        model: Any = resnet(None, (2, 2, 2, 2), stem=stem, bottleneck=True)  # type: ignore[arg-type]
        x = jax.ShapeDtypeStruct((1, pixels, pixels, 3), jnp.float32)
        variables = jax.eval_shape(model.init, KEY, x)
        jaxpr = jax.make_jaxpr(partial(model.apply, mode="eval"))(*variables, x)
        convs = [e for e in jaxpr.eqns if e.primitive.name == "jaxdl_conv_y"]
        assert convs[-1].outvars[0].aval.shape == (1, 1, last, last, 2048)
        # v1.5: what halves the image in a block is its 3x3 convolution, and the projection.
        kernels = [(e.params["geometry"].kernel[0], e.params["geometry"].strides[0]) for e in convs]
        assert kernels.count((3, 2)) == 3
        assert kernels.count((1, 2)) == 3


def test_blocks_that_start_at_zero_are_identities() -> None:
    x = images(2, 8, 8, 3)
    model = resnet(None, (2,), stem="cifar", width=4, zero_init=True)
    params, stats = jax.jit(model.init)(KEY, x)
    kernel = np.asarray(params["layer1_0"]["conv1"]["kernel"])
    assert 0.75 < kernel.std() * np.sqrt(9 * 4 / 2) < 1.25  # He's, over outputs
    apply = jax.jit(partial(model.apply, mode="eval"))
    found, _ = apply(params, stats, x)
    stem = lax.conv_general_dilated(
        x, params["conv1"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    expected = jnp.maximum(stem / jnp.sqrt(1 + 1e-5), 0).mean((1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    params["layer1_0"]["bn2"]["scale"] = jnp.ones(4)
    moved, _ = apply(params, stats, x)
    assert not np.allclose(moved, expected, rtol=1e-2)


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        (tiny, None),
        (tiny, jnp.bfloat16),
        pytest.param(
            partial(resnet12, widths=(4, 6), dropout=0.1, block_size=2),
            jnp.bfloat16,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_they_learn_in_both_precisions(make: Any, dtype: Any) -> None:
    model, tx = make(3, dtype=dtype), optax.adam(1e-2)
    batch = Batch(images(12, 8, 8, 3), jnp.arange(12, dtype=jnp.int32) % 3)
    params, stats = started(model, batch.x)
    state = init_state(params, tx, stats)
    step = jax.jit(supervised_step(model, cross_entropy, tx))
    losses = []
    for i in range(40):
        state, metrics = step(jax.random.key(i), state, batch)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < 0.4 * losses[0]
    kept = {leaf.dtype for leaf in jax.tree.leaves((state.params, state.stats))}
    assert kept == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(
    "make",
    [
        partial(tiny, depths=(1, 1)),
        partial(tiny, depths=(1,), bottleneck=True),
        partial(resnet12, widths=(4, 6)),
    ],
)
def test_every_convolution_has_the_asked_precision_and_logits_are_float32(make: Any) -> None:
    x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    for dtype, name in ((None, "f32"), (jnp.bfloat16, "bf16")):
        model = make(3, dtype=dtype)
        evaluate = partial(model.apply, mode="eval")
        variables = jax.eval_shape(model.init, KEY, x)
        text = str(jax.make_jaxpr(evaluate)(*variables, x))
        convs = [line for line in text.splitlines() if "jaxdl_conv" in line]
        assert len(convs) > 3
        assert all(f":{name}[" in line for line in convs)
        assert jax.eval_shape(evaluate, *variables, x)[0].dtype == jnp.float32


def train_on(devices: int, axis_name: str | None) -> tuple[Any, Any]:
    """Three steps of one seed with batches of 8 on so many devices."""
    x = images(64, 6, 6, 2) * jnp.linspace(0.5, 2, 64).reshape(64, 1, 1, 1)
    y = jnp.arange(64, dtype=jnp.int32) % 3

    def draw(data: Any, key: Any, step: Any, shard: Any) -> Batch:
        batch_key, _ = step_keys(key, step)
        rows = shard.of(jax.random.permutation(batch_key, 64)[:8])
        return Batch(data[0][rows], data[1][rows])

    model, tx = tiny(3, axis_name=axis_name), optax.sgd(0.1, momentum=0.9)
    keys = run_keys(0, 1)
    params, stats = started(tiny(3), x[:1])
    stacked = jax.tree.map(lambda leaf: leaf[None], init_state(params, tx, stats))
    state = stacked._replace(step=jnp.int32(0))
    # The average over devices is what the step does; the model's axis is what is under test.
    step = supervised_step(model, cross_entropy, tx, axis_name=parallel.axis_name(devices))
    metrics = []
    stream = Partial(draw, (x, y))
    last = state
    for _, last, found in loop(step, stream, keys, state, steps=3, devices=devices):  # noqa: B007
        metrics.append(found["loss"])
    return parallel.local(last), np.concatenate(metrics, axis=1)


def test_four_devices_train_as_one_does() -> None:
    one, losses = train_on(1, None)
    many, same = train_on(4, parallel.AXIS)
    np.testing.assert_allclose(same, losses, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_resnet12_without_averages_is_the_same_net() -> None:
    """Both normalise by the statistics of the batch, but for epsilon; or each image by its own."""
    x = images(4, 8, 8, 3)
    params = started(resnet12_batch(3, widths=(2, 3)), x)
    of_batch, of_example = (
        jax.jit(resnet12_batch(3, mode, widths=(2, 3)).apply)(params, x)
        for mode in ("batch", "example")
    )
    running = resnet12(3, widths=(2, 3))
    _, stats = started(running, x)
    named = {name.replace("BatchNorm", "RunningBatchNorm"): v for name, v in params.items()}
    found, _ = jax.jit(partial(running.apply, mode="train"))(named, stats, x)
    np.testing.assert_allclose(found, of_batch, atol=2e-2)
    assert not np.allclose(of_example, of_batch, atol=2e-2)
    alone = jax.jit(resnet12_batch(3, "example", widths=(2, 3)).apply)(params, x[:1])
    np.testing.assert_allclose(alone, of_example[:1], rtol=1e-4, atol=1e-5)


def test_resnet12_has_the_size_of_the_papers() -> None:
    x = jax.ShapeDtypeStruct((1, 84, 84, 3), jnp.float32)
    params, stats = jax.eval_shape(resnet12(None).init, KEY, x)
    assert size(params) == 12_424_320
    apply = partial(resnet12(None).apply, mode="eval")
    assert jax.eval_shape(apply, params, stats, x)[0].shape == (1, 640)


def test_blocks_fall_out_as_squares_at_the_given_rate() -> None:
    x = jnp.ones((100, 10, 9, 3))
    for block in (1, 3):
        y = np.asarray(drop_block(KEY, x, rate=0.1, size=block))
        gone = y == 0
        assert 0.08 < gone.mean() < 0.11  # squares overlap a little, as published
        np.testing.assert_allclose(y.mean(), 1, rtol=1e-5)
        # Every hole is a union of whole squares: opening by the square leaves it as it is.
        windows = np.lib.stride_tricks.sliding_window_view(gone, (block, block), axis=(1, 2))
        whole = windows.all((-1, -2))
        covered = np.zeros_like(gone)
        for i in range(block):
            for j in range(block):
                covered[:, i : i + whole.shape[1], j : j + whole.shape[2]] |= whole
        np.testing.assert_array_equal(covered, gone)
    with pytest.raises(InputError, match="blocks of 5x5 do not fit into a map of 4x4"):
        drop_block(KEY, jnp.ones((1, 4, 4, 1)), rate=0.1, size=5)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: tiny(3, stem="small"), "'cifar' or 'imagenet', not 'small'"),
        (lambda: tiny(-1), "classes >= 0"),
        (lambda: tiny(3, width=0), "width >= 1"),
        (lambda: resnet(3, (), stem="cifar"), "depths >= 1"),
        (lambda: tiny(3, momentum=1.0), "momentum=1.0"),
        (lambda: resnet12(-1), "classes >= 0"),
        (lambda: resnet12(3, dropout=1.0), "dropout rate"),
        (lambda: resnet12(3, momentum=-0.1), "momentum=-0.1"),
        (lambda: resnet12_batch(3, block_size=0), "block_size >= 1"),
    ],
)
def test_wrong_options(make: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make()


def test_wrong_images() -> None:
    with pytest.raises(InputError, match="resnet needs floating-point images"):
        jax.eval_shape(tiny(3).init, KEY, jnp.ones((1, 8, 8, 3), jnp.uint8))
    with pytest.raises(InputError, match="16x16 pixels at least"):
        jax.eval_shape(resnet12(3).init, KEY, jnp.ones((1, 15, 15, 3)))


@pytest.mark.slow
@pytest.mark.realdata
def test_resnet18_learns_512_images_by_heart(tmp_path: Path, shared_data: Path) -> None:
    """It overfits within 200 steps: the check that comes before a run of hours."""
    stage = shared_data.parent / "tools" / "stage_data.py"
    subprocess.run([sys.executable, stage, tmp_path, "cifar10"], check=True, capture_output=True)
    tfds.prepare(
        sources.CIFAR10,
        tmp_path / "data",
        from_dir=tmp_path / "cifar10",
        accept_checksum=True,
        say=lambda *_: None,
    )
    data = image_arrays("cifar10", "train", data_dir=tmp_path / "data")
    x = jnp.asarray(data.images[:512], jnp.float32) / 127.5 - 1
    y = jnp.asarray(data.labels[:512], jnp.int32)
    model, tx = resnet18(10, stem="cifar", width=16), optax.sgd(0.1, momentum=0.9)
    params, stats = jax.jit(model.init)(KEY, x[:1])
    state = init_state(params, tx, stats)
    step = jax.jit(supervised_step(model, cross_entropy, tx))
    for i in range(200):
        rows = jax.random.permutation(jax.random.key(i), 512)[:128]
        state, _ = step(KEY, state, Batch(x[rows], y[rows]))
    logits, _ = model.apply(state.params, state.stats, x, mode="eval")
    assert float(jnp.mean(jnp.argmax(logits, -1) == y)) > 0.99
