"""State dicts in torchvision's layout, written here entry by entry, fill our nets."""

import errno
import json
import tracemalloc
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import InputError
from jaxdl.files import npz
from jaxdl.models import safetensors
from jaxdl.models.resnet import resnet
from jaxdl.models.torch_weights import fitting, load_torch_weights, read_tensors
from jaxdl.runs.weights import load_weights

IMAGE = jnp.zeros((1, 8, 8, 3))


def net(classes: int | None = 5) -> Any:
    """Two stages of one block; the second has a projection."""
    model = resnet(classes, (1, 1), stem="cifar", width=2)
    return model, *jax.tree.map(
        jnp.zeros_like, jax.eval_shape(model.init, jax.random.key(0), IMAGE)
    )


def state_dict() -> dict[str, np.ndarray]:
    """Distinct numbers under the names and in the shapes of torchvision."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (2, 3, 3, 3)}
    shapes |= norm("bn1", 2)
    for layer, narrow, wide in (("layer1.0", 2, 2), ("layer2.0", 2, 4)):
        shapes[f"{layer}.conv1.weight"] = (wide, narrow, 3, 3)
        shapes[f"{layer}.conv2.weight"] = (wide, wide, 3, 3)
        shapes |= norm(f"{layer}.bn1", wide) | norm(f"{layer}.bn2", wide)
    shapes["layer2.0.downsample.0.weight"] = (4, 2, 1, 1)
    shapes |= norm("layer2.0.downsample.1", 4)
    shapes |= {"fc.weight": (5, 4), "fc.bias": (5,)}
    tensors = {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}
    tensors["bn1.num_batches_tracked"] = np.int64(7)
    return tensors


def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{leaf}": (channels,) for leaf in leaves}


def write_safetensors(path: Path, tensors: dict[str, Any]) -> None:
    """The format by its specification, bfloat16 included."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    names = {"float32": "F32", "float16": "F16", "int64": "I64", "bfloat16": "BF16"}
    for name, tensor in tensors.items():
        data = np.asarray(tensor).tobytes()
        header[name] = {
            "dtype": names[str(tensor.dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def saved(folder: Path, kind: str, tensors: dict[str, Any]) -> Path:
    path = folder / f"net.{kind}"
    if kind == "npz":
        np.savez(path, **tensors)
    else:
        write_safetensors(path, tensors)
    return path


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_every_number_finds_its_place(tmp_path: Path, kind: str) -> None:
    given = state_dict()
    _, params, stats = net()
    params, stats, left_out = load_torch_weights(saved(tmp_path, kind, given), params, stats)
    assert left_out == ()
    block = "layer2_0"
    expected = {
        "conv1/kernel": given["layer2.0.conv1.weight"].transpose(2, 3, 1, 0),
        "downsample_0/kernel": given["layer2.0.downsample.0.weight"].transpose(2, 3, 1, 0),
        "bn2/scale": given["layer2.0.bn2.weight"],
        "bn2/bias": given["layer2.0.bn2.bias"],
    }
    for name, value in expected.items():
        module, leaf = name.split("/")
        np.testing.assert_array_equal(params[block][module][leaf], value)
    for module in ("bn1", "bn2"):
        for ours, theirs in (("mean", "running_mean"), ("var", "running_var")):
            value = given[f"layer2.0.{module}.{theirs}"]
            np.testing.assert_array_equal(stats[block][module][ours], value)
    np.testing.assert_array_equal(params["fc"]["kernel"], given["fc.weight"].T)
    np.testing.assert_array_equal(params["fc"]["bias"], given["fc.bias"])
    numbers = [v for v in given.values() if v.dtype == np.float32]
    assert len(jax.tree.leaves((params, stats))) == len(numbers)
    assert all(leaf.any() for leaf in jax.tree.leaves((params, stats)))


@pytest.mark.parametrize("classes", [3, None])
def test_a_head_of_other_classes_stays_fresh_and_is_reported(
    tmp_path: Path, classes: int | None
) -> None:
    path = saved(tmp_path, "npz", state_dict())
    _, params, stats = net(classes)
    filled = load_torch_weights(path, params, stats)
    assert filled.left_out == ("fc.bias", "fc.weight")
    assert ("fc" in filled.params) is bool(classes)
    if classes:
        np.testing.assert_array_equal(filled.params["fc"]["kernel"], params["fc"]["kernel"])
    assert filled.params["conv1"]["kernel"].all()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module."])
def test_a_prefix_that_all_names_share_is_removed(tmp_path: Path, prefix: str) -> None:
    """As `DataParallel` and `torch.compile` add it; also with a head of other classes."""
    given = state_dict()
    _, params, stats = net(3)
    expected = load_torch_weights(saved(tmp_path, "npz", given), params, stats)
    longer = {prefix + name: tensor for name, tensor in given.items()}
    found = load_torch_weights(saved(tmp_path, "npz", longer), params, stats)
    assert found.left_out == expected.left_out == ("fc.bias", "fc.weight")
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_prefix_that_some_names_lack_is_named(tmp_path: Path) -> None:
    """A detector has a head of its own beside the backbone, so nothing tells what else it needs."""
    given = {f"backbone.{name}": tensor for name, tensor in state_dict().items()}
    path = saved(tmp_path, "npz", given | {"rpn.conv.weight": np.zeros((1, 1, 3, 3))})
    with pytest.raises(InputError, match=r"no bn1\.bias, but backbone\.bn1\.bias\. Write .* begin"):
        load_torch_weights(path, *net()[1:])


def test_a_block_whose_names_end_alike_is_no_prefix(tmp_path: Path) -> None:
    """Without bn1.bias of the stem there still is that of a block."""
    given = {name: v for name, v in state_dict().items() if name != "bn1.bias"}
    with pytest.raises(InputError, match=r"has no bn1\.bias\. Give a file"):
        load_torch_weights(saved(tmp_path, "npz", given), *net()[1:])


def test_a_file_without_head_fills_the_rest(tmp_path: Path) -> None:
    given = {name: v for name, v in state_dict().items() if not name.startswith("fc.")}
    _, params, stats = net()
    filled = load_torch_weights(saved(tmp_path, "npz", given), params, stats)
    assert filled.left_out == ()
    assert not filled.params["fc"]["kernel"].any()
    assert filled.params["conv1"]["kernel"].all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_floats_become_those_of_the_net(tmp_path: Path, dtype: Any) -> None:
    given = {name: v.astype(jnp.dtype(dtype)) if v.ndim else v for name, v in state_dict().items()}
    _, params, stats = net()
    filled = load_torch_weights(saved(tmp_path, "safetensors", given), params, stats)
    kernel = filled.params["fc"]["kernel"]
    assert kernel.dtype == jnp.float32
    np.testing.assert_array_equal(kernel, given["fc.weight"].T.astype(np.float32))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"bn1.weight": None}, "has no bn1.weight"),
        ({"layer1.0.bn2.running_var": None}, "has no layer1.0.bn2.running_var"),
        ({"fc.bias": None}, "has no fc.bias"),
        ({"layer3.0.conv1.weight": (2, 2, 3, 3)}, "no place for layer3.0.conv1.weight"),
        (
            {"conv1.weight": (2, 3, 7, 7)},
            r"conv1.weight .* has shape \(2, 3, 7, 7\), and the net needs \(2, 3, 3, 3\)",
        ),
        ({"fc.weight": (5, 9)}, r"fc.weight .*\(5, 9\), and the net needs \(5, 4\)"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change: Any, sentence: str) -> None:
    given = state_dict()
    for name, shape in change.items():
        given.pop(name, None)
        if shape:
            given[name] = np.ones(shape, np.float32)
    _, params, stats = net()
    with pytest.raises(InputError, match=sentence):
        load_torch_weights(saved(tmp_path, "npz", given), params, stats)


@pytest.mark.parametrize("cut", [4, 20, -1])
def test_damaged_files_are_refused(tmp_path: Path, cut: int) -> None:
    for kind in ("npz", "safetensors"):
        path = saved(tmp_path, kind, state_dict())
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(InputError, match=rf"no \.{kind} file of numbers"):
            read_tensors(path)


def test_other_files_are_refused_with_the_way_to_convert_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Convert a \.pth by python -c .*net\.pth .*net\.npz"):
        read_tensors(tmp_path / "net.pth")
    with pytest.raises(InputError, match="there is no file"):
        read_tensors(tmp_path / "net.npz")
    path = tmp_path / "objects.npz"
    np.savez(path, a=np.array([{}], object))
    with pytest.raises(InputError, match=r"is no \.npz file"):
        read_tensors(path)
    np.savez(path, a=np.array(["text"]))
    with pytest.raises(InputError, match=r"a is of dtype <U4\. Convert it to float32"):
        read_tensors(path)


def test_of_a_large_file_the_header_alone_is_read_before_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes((2).to_bytes(8, "little") + b"{}")
    with path.open("r+b") as file:
        file.truncate(2**30)  # takes no room on the disk
    tracemalloc.start()
    with pytest.raises(InputError, match="bytes belong to no tensor"):
        read_tensors(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_a_name_in_a_file_cannot_act_on_a_terminal_or_fill_it(tmp_path: Path) -> None:
    np.savez(tmp_path / "net.npz", **{"a\n\x1b[31m" + "x" * 9000: np.array(["text"])})
    with pytest.raises(InputError, match="is of dtype") as refused:
        read_tensors(tmp_path / "net.npz")
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 500


def test_a_path_that_no_system_takes_is_refused() -> None:
    for read in (read_tensors, load_weights):
        with pytest.raises(InputError, match="is too long"):
            read("a" * 5000 + ".npz")


def test_a_file_that_may_not_be_read_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    for kind, reader in (("npz", npz), ("safetensors", safetensors)):
        path = saved(tmp_path, kind, {"a": np.zeros(1, np.float32)})
        with monkeypatch.context() as patch:
            patch.setattr(reader, "read", refuse)
            with pytest.raises(
                InputError, match=rf"net\.{kind} cannot be read \(Permission denied"
            ):
                read_tensors(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["layer2.0.conv1.weight", "bn1.running_var"])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, name: str, value: float) -> None:
    given = state_dict()
    given[name].flat[1] = value
    _, params, stats = net()
    with pytest.raises(InputError, match=rf"{name} of .*net.npz holds {value}: .* start from fin"):
        load_torch_weights(saved(tmp_path, "npz", given), params, stats)


def test_a_head_that_is_not_used_need_not_be_finite(tmp_path: Path) -> None:
    given = state_dict()
    given["fc.bias"][:] = np.nan
    _, params, stats = net(3)
    load_torch_weights(saved(tmp_path, "npz", given), params, stats)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0.1, 1e-30], jnp.float32),
        ([1 + 2**-20, 3.0], jnp.bfloat16),
        (np.int64([3, 2**53 + 1]), jnp.float32),
        (np.int64([3, -(2**31)]), jnp.int32),
        ([True, False], jnp.int8),
        (np.float32([1, 2]), jnp.complex64),
    ],
)
def test_numbers_become_those_of_the_net_as_numpy_casts_them(values: Any, dtype: Any) -> None:
    array = np.asarray(values)
    found = fitting(array, jnp.dtype(dtype), "w")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array.astype(jnp.dtype(dtype)))


@pytest.mark.parametrize(
    ("values", "dtype", "words"),
    [
        ([1.7, 2.0], jnp.int32, "w is float64, and the net needs int32"),
        ([1.0, 2.0], jnp.bool_, "w is float64, and the net needs bool"),
        ([0, 1], jnp.bool_, "w is int64, and the net needs bool"),
        ([1j], jnp.float32, "w is complex128, and the net needs float32"),
        ([1.0, -7e4], jnp.float16, "w holds numbers that are too large for float16"),
        ([2**31], jnp.int32, "w holds numbers that are too large for int32"),
        ([-1], jnp.uint8, "w holds numbers that are too large for uint8"),
        ([9], jnp.int4, "w holds numbers that are too large for int4"),
    ],
)
def test_numbers_that_the_net_cannot_hold_are_refused(values: Any, dtype: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        fitting(np.asarray(values), jnp.dtype(dtype), "w")


def test_two_arrays_of_the_net_with_one_name_in_pytorch_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, "npz", state_dict())
    both = {"bn1": {"kernel": jnp.zeros(2), "scale": jnp.zeros(2)}}
    with pytest.raises(InputError, match=r"have the one name 'bn1\.weight'"):
        load_torch_weights(path, both, {})
