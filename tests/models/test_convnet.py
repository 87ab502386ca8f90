from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.models.convnet import convnet

IMAGES = jnp.asarray(np.random.default_rng(0).random((6, 9, 8, 1)), jnp.float32)


def correlate(x: Any, kernel: Any) -> Any:
    """A 3x3 convolution with zeros around, pixel by pixel."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    out = np.zeros((*x.shape[:3], kernel.shape[-1]))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            out[:, i, j] = np.tensordot(padded[:, i : i + 3, j : j + 3], kernel, 3)
    return out


def by_hand(params: Any, x: Any, statistics: Any) -> Any:
    for block in range(2):
        x = correlate(x, params[f"Conv_{block}"]["kernel"])
        n, h, w, c = x.shape
        x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
        mean, var = statistics(block, x)
        norm = params[f"RunningBatchNorm_{block}"]
        x = np.maximum((x - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"], 0)
    head = params["Dense_0"]
    return x.reshape(len(x), -1) @ head["kernel"] + head["bias"]


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_two_blocks_by_hand(mode: Any) -> None:
    model = convnet(3, (4, 5))
    params, stats = model.init(jax.random.key(0), IMAGES)
    # Away from where they start, so that a missing scale or statistic shows.
    params, stats = jax.tree.map(lambda leaf: leaf + 0.1, (params, stats))
    logits, after = model.apply(params, stats, IMAGES, mode=mode)
    params, x = jax.tree.map(np.asarray, params), np.asarray(IMAGES, np.float64)

    def statistics(block: int, x: Any) -> Any:
        kept = stats[f"RunningBatchNorm_{block}"]
        of_batch = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return of_batch if mode == "train" else (np.asarray(kept["mean"]), np.asarray(kept["var"]))

    np.testing.assert_allclose(logits, by_hand(params, x, statistics), rtol=2e-4, atol=2e-4)
    same = jax.tree.map(np.array_equal, stats, after)
    assert all(jax.tree.leaves(same)) is (mode == "eval")


def test_dropout_is_for_training_with_a_key() -> None:
    model = convnet(3, (4,), dropout=0.5)
    params, stats = model.init(jax.random.key(0), IMAGES)

    def logits(mode: Any, seed: int | None) -> Any:
        key = None if seed is None else jax.random.key(seed)
        return np.asarray(model.apply(params, stats, IMAGES, key=key, mode=mode)[0])

    assert not np.array_equal(logits("train", 0), logits("train", 1))
    assert not np.array_equal(logits("train", 0), logits("train", None))
    np.testing.assert_array_equal(logits("eval", 0), logits("eval", None))


@pytest.mark.parametrize(
    "arguments",
    [{"classes": 0}, {"channels": ()}, {"channels": (4, 0)}, {"dropout": 1.0}],
)
def test_wrong_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"convnet cannot .*\. Give classes >= 1"):
        convnet(**{"classes": 3, **arguments})


def test_images_too_small_for_the_blocks() -> None:
    with pytest.raises(InputError, match="convnet needs images of 16x16 pixels at least"):
        convnet(3, (4, 4, 4, 4)).init(jax.random.key(0), IMAGES)
