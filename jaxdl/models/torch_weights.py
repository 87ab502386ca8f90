"""Loads weights of PyTorch into nets of jaxdl, for transfer learning.

This file reads `.safetensors` and `.npz` without PyTorch. A `.pth` is a pickle, which only PyTorch
should open. Convert it with this command, on a machine with PyTorch:

    python -c "import sys, torch, numpy; numpy.savez(sys.argv[2], **{k: v.numpy() for k, v in
    torch.load(sys.argv[1], map_location='cpu', weights_only=True).items()})" net.pth net.npz
"""

import mmap
import re
from collections import Counter
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxdl.errors import InputError, in_short
from jaxdl.files import leaves, npz
from jaxdl.files.paths import whole_path
from jaxdl.models import safetensors
from jaxdl.types import Params, PyTree

CONVERT = (
    'python -c "import sys, torch, numpy; numpy.savez(sys.argv[2], **{k: v.numpy() for k, v in'
    " torch.load(sys.argv[1], map_location='cpu', weights_only=True).items()})\""
)
"""The command that makes a `.npz` of a `.pth`; append the two file names."""

# PyTorch's names for leaves of jaxdl; a dense or convolution bias is "bias" in both.
_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


class TorchWeights(NamedTuple):
    """Parameters and statistics from a file, and the names in the file that were not used."""

    params: Params
    stats: PyTree
    left_out: tuple[str, ...]


def load_torch_weights(
    path: str | Path, params: Params, stats: PyTree, *, head: str = "fc"
) -> TorchWeights:
    """Fills a net of `jaxdl.models.resnet` from a state dict in torchvision's layout.

    Kernels are transposed from OIHW to HWIO, and dense weights are transposed. Batch norm's running
    averages go to the statistics. Every array of the net is filled, and every tensor of the file is
    used. Only the layer `head` may differ: if it has another number of classes in the file, or is
    missing on one side, the net keeps the head of `params`, and `left_out` names the file's. A
    prefix that all names of the file share, such as `module.` of a net that was trained in
    parallel, is removed.

    Args:
        path: a `.safetensors` or `.npz` file.
        params, stats: of the net to fill; they give shapes, dtypes and the head.
        head: name of the last layer, whose number of classes may differ.

    >>> import jaxdl, tempfile, jax.numpy as jnp, numpy as np
    >>> kernel = np.arange(8.0).reshape(4, 1, 1, 2)  # OIHW: four filters of 1x2
    >>> file = {"conv1.weight": kernel, "fc.weight": np.ones((1000, 4)), "fc.bias": np.ones(1000)}
    >>> head = {"kernel": jnp.zeros((4, 10)), "bias": jnp.zeros(10)}  # for ten classes
    >>> params = {"conv1": {"kernel": jnp.zeros((1, 2, 1, 4))}, "fc": head}  # HWIO
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/net.npz", **file)
    ...     loaded = jaxdl.load_torch_weights(f"{folder}/net.npz", params, stats={})
    >>> loaded.params["conv1"]["kernel"][0, :, 0].tolist()
    [[0.0, 2.0, 4.0, 6.0], [1.0, 3.0, 5.0, 7.0]]
    >>> loaded.left_out, loaded.params["fc"]["kernel"].shape
    (('fc.bias', 'fc.weight'), (4, 10))

    Raises:
        InputError: if the file does not exist or has another format; if the net or the file lacks a
            tensor, or a tensor has another shape or kind, or is not finite (named as in the file).
    """
    stored = read_tensors(path)
    wanted = leaves.by_name((_torch_name(k), leaf) for k, leaf in _leaves((params, stats)))
    prefix = _prefix(stored, wanted)
    shared = all(name.startswith(prefix) for name in stored)
    tensors = {name.removeprefix(prefix * shared): tensor for name, tensor in stored.items()}
    # PyTorch's counter of batches; running averages with a fixed momentum do not need it.
    left = {name for name in tensors if not name.endswith(".num_batches_tracked")}
    heads = {name: leaf for name, leaf in wanted.items() if _is_part(name, head)}
    known = [name for name in heads if name in tensors]
    fresh_head = not known or any(tensors[n].shape[:1] != np.shape(heads[n])[-1:] for n in known)

    def filled(place: Any, leaf: Any) -> Any:
        name = _torch_name(place)
        if fresh_head and name in heads:
            return leaf
        if name not in tensors:
            raise InputError(f"{path} has no {name}{_cure(name, prefix, tensors)}")
        left.discard(name)
        found = _as_ours(tensors[name])
        if found.shape != np.shape(leaf):
            wants = _as_torchs(np.shape(leaf))
            raise InputError(
                f"{name} of {path} has shape {tensors[name].shape}, and the net needs {wants}."
                " Give a file of the same kind of net"
            )
        return fitting(found, leaf.dtype, f"{name} of {path}")

    new_params, new_stats = jax.tree_util.tree_map_with_path(filled, (params, stats))
    unknown = sorted(name for name in left if not _is_part(name, head))
    if unknown:
        raise InputError(
            f"{path} is of another net. Give another file, because the net has no place for"
            f" {unknown[0]}" + (f", nor for {len(unknown) - 1} others" if len(unknown) > 1 else "")
        )
    return TorchWeights(new_params, new_stats, tuple(sorted(left)))


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of a `.safetensors` or `.npz` file by name.

    Raises:
        InputError: if the file does not exist, has another ending, does not have the format of its
            ending, or has arrays that are not numbers.
    """
    path = whole_path(path, "path")
    if path.suffix not in (".safetensors", ".npz"):
        raise InputError(
            f"{path}: weights are read from .safetensors or .npz. Convert a .pth by"
            f" {CONVERT} {path} {path.with_suffix('.npz')}"
        )
    if not path.is_file():
        raise InputError(f"there is no file {path}. Check the path")
    try:
        found = _mapped(path) if path.suffix == ".safetensors" else npz.read(path)
    except OSError as error:
        why = error.strerror or in_short(error)
        raise InputError(f"{path} cannot be read ({why}). Remove the cause") from error
    except MemoryError as error:
        size = f"{path.stat().st_size:,} bytes"
        raise InputError(
            f"{path} of {size} does not fit into memory. Give a smaller file"
        ) from error
    except ValueError as error:
        why = in_short(error)
        raise InputError(
            f"{path} is no {path.suffix} file of numbers: {why}. Fetch or write it again"
        ) from error
    for name, array in found.items():
        if name != npz.CONTENTS and not leaves.is_number(array.dtype):
            raise InputError(
                f"{path} is no {path.suffix} file of numbers: {in_short(name)} is of dtype"
                f" {in_short(array.dtype)}."
                " Convert it to float32"
            )
    return found


def _mapped(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a .safetensors file. Sizes are checked before more than its header is read."""
    with path.open("rb") as file:
        if not path.stat().st_size:  # which cannot be mapped
            return safetensors.read(b"")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return safetensors.read(data)


def fitting(array: np.ndarray, dtype: DTypeLike, what: str) -> jax.Array:
    """The values of `array` in the dtype of the net.

    A conversion to floats may lose digits, as from float64 to float32. Nothing else may be lost.

    Args:
        what: the name of the array and its file, for messages.

    Raises:
        InputError: if values are not finite, or of another kind (floats for integers, complex
            numbers for floats), or too large for the dtype.
    """
    refuse_not_finite(array, what)
    if _kind(array.dtype) > _kind(dtype):
        raise InputError(f"{what} is {array.dtype}, and the net needs {dtype}. Convert it")
    with np.errstate(all="ignore"):  # the check below raises
        found = jnp.asarray(array, dtype)
    whole = _kind(dtype) < 2
    if not leaves.is_finite(found) or (whole and (np.asarray(found) != array).any()):
        raise InputError(f"{what} holds numbers that are too large for {dtype}. Rescale them")
    return found


def refuse_not_finite(array: np.ndarray, what: str) -> None:
    """Refuses NaN and infinity, which would spread through a training.

    Raises:
        InputError: naming the array and the value.
    """
    if not leaves.is_finite(array):
        first = array[~np.isfinite(array)][0]
        raise InputError(
            f"{what} holds {first}: a training must start from finite numbers. Choose weights from"
            " before the divergence"
        )


def _kind(dtype: DTypeLike) -> int:
    """The rank of a kind: bool 0, integer 1, float 2, complex 3; each can hold the lower ones."""
    kinds = (np.bool_, np.integer, np.floating, np.complexfloating)
    return next(i for i, kind in enumerate(kinds) if jnp.issubdtype(dtype, kind))


def _prefix(there: Iterable[str], wanted: Container[str]) -> str:
    """What stands before most of the names that a net wants, in a file.

    >>> _prefix(["module.conv1.weight", "module.bn1.bias", "fc.bias"], ["conv1.weight", "bn1.bias"])
    'module.'
    """
    starts = ((name, [0, *(dot.end() for dot in re.finditer(r"\.", name))]) for name in there)
    found = Counter(name[:at] for name, ats in starts for at in ats if name[at:] in wanted)
    return max(found, key=found.__getitem__, default="")


def _cure(name: str, prefix: str, there: Container[str]) -> str:
    """What a file has in place of a name, and what to do."""
    if not prefix or prefix + name not in there:
        return ". Give a file of the same kind of net"
    return (
        f", but {prefix}{name}. Write the file again with those names alone that begin with"
        f" {prefix} and without this prefix"
    )


def _leaves(tree: PyTree) -> PyTree:
    return jax.tree_util.tree_leaves_with_path(tree)


def _torch_name(place: Any) -> str:
    """`layer1.0.conv1.weight` for the leaf at `layer1_0/conv1/kernel`."""
    *modules, leaf = (key.key for key in place[1:])
    return ".".join([re.sub(r"_(\d+)$", r".\1", m) for m in modules] + [_LEAVES.get(leaf, leaf)])


def _is_part(name: str, layer: str) -> bool:
    return name.startswith(f"{layer}.")


def _as_ours(tensor: np.ndarray) -> np.ndarray:
    """OIHW to HWIO, and dense weights `[out, in]` to `[in, out]`."""
    if tensor.ndim == 4:
        return tensor.transpose(2, 3, 1, 0)
    return tensor.T


def _as_torchs(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) == 4:
        return shape[3], shape[2], shape[0], shape[1]
    return shape[::-1]
