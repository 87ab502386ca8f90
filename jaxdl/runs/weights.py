"""Weights: the arrays of a trained net by name, and the start of a training from them.

They come from a run, or from a file of `save_weights`. `params/Dense_0/kernel` names a parameter,
`stats/...` a running average. Two parameters with the same name (keys `a/b` and `a`, `b`) are
refused. Each experiment has the flag `--init-from`; its configuration has the fields `init_from`
and `init_except`.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.data.prepare.cache import save_arrays
from jaxdl.errors import InputError, in_short
from jaxdl.files import leaves
from jaxdl.files.atomic import writing
from jaxdl.files.leaves import Leaf
from jaxdl.files.npz import CONTENTS
from jaxdl.files.paths import whole_path
from jaxdl.models.torch_weights import fitting, read_tensors, refuse_not_finite
from jaxdl.runs.checkpoint import Checkpoints
from jaxdl.runs.config import flat
from jaxdl.types import Params, PyTree, TrainState


class Weights(NamedTuple):
    """Arrays by name; `seeds` is None for one net, else the length of their leading axis."""

    arrays: dict[str, np.ndarray]
    seeds: int | None


def save_weights(path: Path | str, params: Params, stats: PyTree = ()) -> None:
    """Writes the weights of one net (no seed axis) as a `.npz` that `init_from` reads.

    NumPy's format has no short floats such as bfloat16. They become float32 of the same value.

    Raises:
        InputError: if the name does not end in .npz, or two weights have the same name, or a value
            is not finite.
        RunError: if the file cannot be written.
    """
    tree = _tree(params, stats)
    _write(path, _named(zip(leaves.described(tree), leaves.on_host(tree), strict=True)))


def export_weights(directory: Path | str, path: Path | str, *, seed: int = 0) -> None:
    """Writes the weights of one seed of a run, as `save_weights` does; the first seed is 0.

    >>> import dataclasses, jaxdl, numpy as np, pathlib, tempfile
    >>> Config = dataclasses.make_dataclass("Config", ["steps", "run"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder) / "net.npz"
    ...     config = Config(20, jaxdl.RunFlags(runs_dir=pathlib.Path(folder)))
    ...     with jaxdl.open_run("example", config) as run:
    ...         run.keep_best(20, [0.8, 0.9], {"w": np.array([[1.0, 2.0], [3.0, 4.0]])})
    ...     jaxdl.export_weights(run.directory, file, seed=1)
    ...     jaxdl.load_weights(file).arrays["params/w"].tolist()
    [3.0, 4.0]

    Raises:
        InputError: as `load_weights` and `save_weights`, or if the run has no such seed.
        RunError: if the run is damaged, or the file cannot be written.
    """
    arrays, seeds = load_weights(directory)
    if seeds is None or not 0 <= seed < seeds:
        which = "one net without seeds" if seeds is None else f"seeds 0 to {seeds - 1}"
        raise InputError(f"`seed={seed}`: {directory} has {which}. Choose one that it has")
    _write(path, {name: array[seed] for name, array in arrays.items()})


def _write(path: Path | str, arrays: dict[str, np.ndarray]) -> None:
    path = whole_path(path, "path")
    if path.suffix != ".npz":
        raise InputError(f"{path}: weights are written as .npz, so let the name end in it")
    for name, array in arrays.items():
        refuse_not_finite(array, name)
    with writing(path):
        save_arrays(path, {name: _widened(array) for name, array in arrays.items()})


def _widened(array: np.ndarray) -> np.ndarray:
    """The same values; an extension dtype such as bfloat16 becomes a dtype of NumPy."""
    if array.dtype.isbuiltin != 2:
        return array
    signed = jnp.issubdtype(array.dtype, np.signedinteger)
    floating = jnp.issubdtype(array.dtype, np.floating)
    return array.astype(np.float32 if floating else np.int8 if signed else np.uint8)


def load_weights(path: Path | str) -> Weights:
    """The weights in a file, or the weights of a run: the best if the run kept any, else the last.

    >>> import jaxdl, numpy as np, pathlib, tempfile
    >>> from jaxdl.runs.weights import save_weights
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder) / "net.npz"
    ...     save_weights(file, {"Dense_0": {"kernel": np.ones((4, 2)), "bias": np.zeros(2)}})
    ...     arrays, seeds = jaxdl.load_weights(file)
    >>> {name: array.shape for name, array in arrays.items()}, seeds
    ({'params/Dense_0/bias': (2,), 'params/Dense_0/kernel': (4, 2)}, None)

    Raises:
        InputError: if the path does not exist, the run has no checkpoint yet, the file holds no
            weights, or two weights of the run have the same name.
        RunError: if the checkpoint is damaged.
    """
    return _load(whole_path(path, "path"), str(path))


def _load(path: Path, named: str) -> Weights:
    """As `load_weights`; `named` is how an error names the path."""
    if not path.exists():
        raise InputError(f"{named}: there is no such file or run. Check the path")
    if not path.is_dir():
        arrays = read_tensors(path)
        arrays.pop(CONTENTS, None)
        if not holds_weights(arrays):
            raise InputError(
                f"{named} holds no weights of jaxdl: their names begin with params/, and"
                f" it has {_some(arrays) or 'no array'}. Give a run, or a file of `save_weights`"
            )
        return Weights(arrays, None)
    for kind in ("best", "checkpoints"):
        with Checkpoints(path / kind) as checkpoints:
            if checkpoints.steps():
                found = _named(
                    pair for pair in checkpoints.arrays() if _is_weight(pair[0].path[0][1])
                )
                if not found:
                    raise InputError(f"{named}: the run has no net called params. Give another run")
                return Weights(found, len(next(iter(found.values()))))
    parts = sorted(part.parent.name for part in path.glob("*/checkpoints"))
    raise InputError(
        f"{named}: "
        + (f"choose one of its parts: {' '.join(parts)}" if parts else "no run with a checkpoint")
    )


def holds_weights(names: Iterable[str]) -> bool:
    """Whether some of these names are jaxdl's, and not PyTorch's, say."""
    return any(map(_is_weight, names))


def weights_digest(path: Path | str) -> str:
    """Eight hexadecimal digits of the weights in a file or run, PyTorch's included.

    A run stores the digest, and recognises its start weights by it.

    Raises:
        InputError, RunError: as `load_weights`.
    """
    path = whole_path(path, "init_from")
    arrays = read_tensors(path) if path.is_file() else _load(path, f"`init_from={path}`").arrays
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype} {array.shape} ".encode(errors="surrogatepass"))
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:8]


def digest_of_start(config: Any) -> str:
    """The digest of the weights that a configuration starts from; "" for a random start.

    Raises:
        InputError: as `weights_digest`, or if `init_except` is given without `init_from`.
    """
    fields = flat(config)
    path = fields.get("init_from")
    if path is None and fields.get("init_except"):
        raise InputError("`init_except=` says what not to take from `init_from=`: give both")
    return "" if path is None else weights_digest(path)


def started(
    state: TrainState, init_from: Path | None, init_except: Sequence[str] = ()
) -> TrainState:
    """A state before step 0 `[seeds]` with the weights of a file or run; see `from_weights`.

    The optimiser's state stays. If it copies the parameters, make it again from the new ones.
    """
    params, stats = from_weights(init_from, init_except, state.params, state.stats)
    return state._replace(params=params, stats=stats)


def from_weights(
    init_from: Path | None, init_except: Sequence[str], params: Params, stats: PyTree = ()
) -> tuple[Params, PyTree]:
    """Parameters and statistics `[seeds, ...]`, replaced by those of a file or run.

    From one net, all seeds start equal. From a run of several seeds, each seed takes its own.
    Names and shapes must match in both directions. Layers in `init_except` (first names below
    `params`) are exempt, and keep their values. `init_from=None` replaces nothing.

    Raises:
        InputError: naming the first leaf that differs and both shapes; or another number of seeds;
            or an unknown layer; or the first array that is not finite or that the net's dtype
            cannot hold; or as `load_weights`.
        RunError: if the checkpoint is damaged.
    """
    if init_from is None:
        return params, stats
    arrays, seeds = _load(whole_path(init_from, "init_from"), f"`init_from={init_from}`")
    old, structure = jax.tree.flatten(_tree(params, stats))
    places = leaves.described(_tree(params, stats))
    wanted = _named(zip(places, old, strict=True))
    count = len(old[0])
    if seeds not in (None, 1, count):
        raise InputError(
            f"`init_from={init_from}` has {seeds} seeds: ask for `seeds={seeds}`, or export one of"
            " them (jaxdl.runs.weights.export_weights)"
        )
    layer_of = dict(zip(wanted, map(_layer, places), strict=True))
    layers = sorted(set(layer_of.values()))
    if wanted and arrays and not wanted.keys() & arrays.keys():
        # Another learner's, say: it would be of no help to name a layer that may start anew.
        raise InputError(
            f"`init_from={init_from}` has no array with a name of this net or learner. It has"
            f" {_some(arrays)}, and {_some(wanted)} are wanted. Give weights of the same net and"
            " learner"
        )
    if unknown := [name for name in init_except if name not in layers]:
        raise InputError(
            f"`init_except={unknown[0]}`: the layers of this net are {' '.join(layers)}."
            " Choose among them"
        )
    layer_of |= {name: _layer_there(name, layers) for name in arrays if name not in wanted}
    for name, layer in layer_of.items():
        here = wanted[name].shape[1:] if name in wanted else "absent"
        there = arrays[name].shape[seeds is not None :] if name in arrays else "absent"
        if here != there and layer not in init_except:
            cure = f"; `init_except={layer}` starts this layer anew" if layer in layers else ""
            raise InputError(
                f"`init_from={init_from}`: {name} is {there} there and {here} here{cure}"
            )

    def filled(name: str, leaf: Any) -> Any:
        if layer_of[name] in init_except:
            return leaf
        new = fitting(arrays[name], leaf.dtype, f"{name} of {init_from}")
        return jnp.broadcast_to(new if seeds is not None else new[None], leaf.shape)

    new = jax.tree.unflatten(structure, [filled(name, leaf) for name, leaf in wanted.items()])
    return new["params"], new["stats"]


def _some(names: Iterable[str]) -> str:
    """The first three names."""
    first = sorted(names)
    return ", ".join(map(in_short, first[:3])) + ", ..." * (len(first) > 3)


def _tree(params: Params, stats: PyTree) -> dict[str, PyTree]:
    return {"params": params, "stats": stats}


def _named(pairs: Iterable[tuple[Leaf, Any]]) -> dict[str, Any]:
    """Arrays by name; two arrays with the same name are refused."""
    named = []
    for leaf, array in pairs:
        name = leaves.name(leaf.path)
        if leaf.dtype.startswith("key<"):
            raise InputError(f"{name} is a random key and no weight: leave it out of the net")
        named.append((name, array))
    return leaves.by_name(named)


def _layer(leaf: Leaf) -> str:
    """The layer of a leaf: `Dense_0` for `params/Dense_0/kernel`."""
    return leaf.path[:2][-1][1]


def _layer_there(name: str, layers: Sequence[str]) -> str:
    """The layer of a name that the net lacks: the longest layer name that begins the name."""
    parts = name.split("/")[1:] or [name]
    heads = ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((head for head in heads if head in layers), parts[0])


def _is_weight(name: str) -> bool:
    return name.split("/")[0] in ("params", "stats")
