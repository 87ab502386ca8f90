"""Weights of PyTorch in the nets of jaxdl: the door to transfer learning.

Files are read here, without PyTorch: `.safetensors`, whose format is a length, a JSON header and
raw bytes (so no dependency is needed for it), or `.npz`. A `.pth` is a pickle, which only PyTorch
should open; this line converts it, run where PyTorch is:

    python -c "import sys, torch, numpy; numpy.savez(sys.argv[2], **{k: v.numpy() for k, v in
    torch.load(sys.argv[1], map_location='cpu', weights_only=True).items()})" net.pth net.npz
"""

import json
import math
import re
import zlib
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.errors import InputError
from jaxdl.types import Params, PyTree

CONVERT = (
    'python -c "import sys, torch, numpy; numpy.savez(sys.argv[2], **{k: v.numpy() for k, v in'
    " torch.load(sys.argv[1], map_location='cpu', weights_only=True).items()})\""
)
"""The command that makes a `.npz` of a `.pth`, to be followed by the two names of files."""

# How jaxdl names what PyTorch names otherwise; a dense or convolution bias is "bias" in both.
_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1"}

# What JSON, NumPy, zip and zlib raise for bytes that are not what they should be.
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, EOFError, BadZipFile, zlib.error)


class TorchWeights(NamedTuple):
    """Parameters and statistics from a file, and the names in the file that were left out."""

    params: Params
    stats: PyTree
    left_out: tuple[str, ...]


def load_torch_weights(
    path: str | Path, params: Params, stats: PyTree, *, head: str = "fc"
) -> TorchWeights:
    """Fills a net of `jaxdl.models.resnet` from a state dict in torchvision's layout.

    Kernels turn from OIHW to HWIO, dense weights are transposed, batch norm's running averages go
    to the statistics. Every number of the net is filled and every tensor of the file used, but
    for the layer `head`: where it has another number of classes in the file, or is missing on one
    side, `params` keeps its fresh one and `left_out` names the file's.

    Args:
        path: a `.safetensors` or `.npz` file.
        params, stats: of the net that is to be filled, for their shapes, dtypes and the head.
        head: name of the last layer, whose number of classes may differ.

    Raises:
        InputError: no such file or not of this kind; a tensor that the net or the file lacks, or
            of another shape, named as in the file.
    """
    tensors = read_tensors(path)
    # A counter of batches that PyTorch keeps, and that averages of fixed momentum do not need.
    left = {name for name in tensors if not name.endswith(".num_batches_tracked")}
    wanted = {_torch_name(place): leaf for place, leaf in _leaves((params, stats))}
    heads = {name: leaf for name, leaf in wanted.items() if _is_part(name, head)}
    known = [name for name in heads if name in tensors]
    fresh_head = not known or any(tensors[n].shape[:1] != np.shape(heads[n])[-1:] for n in known)

    def filled(place: Any, leaf: Any) -> Any:
        name = _torch_name(place)
        if fresh_head and name in heads:
            return leaf
        if name not in tensors:
            raise InputError(f"{path} has no {name}; was it saved from this kind of net?")
        left.discard(name)
        found = _as_ours(tensors[name])
        if found.shape != np.shape(leaf):
            wants = _as_torchs(np.shape(leaf))
            raise InputError(
                f"{name} of {path} has shape {tensors[name].shape}, and the net needs {wants}"
            )
        return jnp.asarray(found, leaf.dtype)

    new_params, new_stats = jax.tree_util.tree_map_with_path(filled, (params, stats))
    unknown = sorted(name for name in left if not _is_part(name, head))
    if unknown:
        raise InputError(
            f"the net has no place for {unknown[0]} of {path}"
            + (f", nor for {len(unknown) - 1} others" if len(unknown) > 1 else "")
        )
    return TorchWeights(new_params, new_stats, tuple(sorted(left)))


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of a `.safetensors` or `.npz` file by name.

    Raises:
        InputError: no such file, another ending, or bytes that are not what the ending says.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".npz"):
        raise InputError(
            f"{path}: weights are read from .safetensors or .npz; a .pth becomes one by"
            f" {CONVERT} {path} {path.with_suffix('.npz')}"
        )
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path.read_bytes())
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return dict(file)
    except _DAMAGE as error:
        raise InputError(f"{path} is no {path.suffix} file of numbers: {error}") from error


def _read_safetensors(data: bytes) -> dict[str, np.ndarray]:
    """8 bytes (little-endian) of length, a JSON header of that length, then the raw tensors."""
    start = 8 + int.from_bytes(data[:8], "little")
    if not 8 < start <= len(data):
        raise ValueError("its header is cut off")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        bfloat16 = entry["dtype"] == "BF16"
        dtype = np.dtype(jnp.bfloat16 if bfloat16 else _DTYPES[entry["dtype"]])
        first, last = (start + offset for offset in entry["data_offsets"])
        if last > len(data) or last - first != math.prod(entry["shape"]) * dtype.itemsize:
            raise ValueError(f"the bytes of {name} are not all there")
        tensors[name] = np.frombuffer(data[first:last], dtype).reshape(entry["shape"])
    return tensors


def _leaves(tree: Any) -> Any:
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
