"""Transfer learning: a trained net with a new head, and which of its layers train, and from when.

A net is a pytree of parameters whose first level names its layers; lists of them here begin at the
top, with the head. Freezing is Optax's matter: each function makes one optimiser of another, so
that a training with frozen layers is the same compiled scan as any other. Running averages of
batch norm are no parameters: apply the net in the mode "eval" to keep them.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdl.errors import InputError
from jaxdl.types import Array, Params, PyTree

NEVER = 2**31 - 1
"""A step that no training comes to."""

Layers = Sequence[str | tuple[str, ...]]
"""Names of layers, or of some that belong together, from the top of the net."""


def with_new_head(trained: Params, fresh: Params, *, head: str | tuple[str, ...]) -> Params:
    """The trained parameters, but for the layers of the head, which are the fresh ones.

    Args:
        trained: a mapping of layers, as Flax makes it.
        fresh: of the net that is to be trained now; its head may have other shapes.
        head: names of the layers that are new.

    >>> import jaxdl, jax.numpy as jnp
    >>> trained = {"trunk": jnp.ones((8, 4)), "head": jnp.ones((4, 10))}  # ten classes
    >>> fresh = {"trunk": jnp.zeros((8, 4)), "head": jnp.zeros((4, 3))}  # three
    >>> params = jaxdl.with_new_head(trained, fresh, head="head")
    >>> params["trunk"] is trained["trunk"], params["head"] is fresh["head"]
    (True, True)

    Raises:
        InputError: if a net lacks the head, or their trunks differ in layers or shapes.
    """
    names = _names(head)
    _check_names(fresh, names)
    _check_names(trained, names)
    trunks = [
        {place: leaf.shape for place, leaf in _leaves(net) if _layer(place) not in names}
        for net in (trained, fresh)
    ]
    for place in sorted(trunks[0].keys() | trunks[1].keys(), key=jax.tree_util.keystr):
        there, here = (trunk.get(place, "absent") for trunk in trunks)
        if there != here:
            raise InputError(
                f"{_shown(place)} is {there} in the trained net and {here} in the new one: only the"
                f" head ({' '.join(names)}) may differ"
            )
    return {name: (fresh if name in names else trained)[name] for name in fresh}


def only(tx: optax.GradientTransformation, layers: Iterable[str]) -> optax.GradientTransformation:
    """An optimiser of these layers that leaves all others as they are: a linear probe of the head.

    Frozen layers have no moments and no weight decay.

    >>> import jaxdl, jax, jax.numpy as jnp, optax
    >>> params = {"trunk": jnp.ones(2), "head": jnp.ones(2)}
    >>> tx = jaxdl.only(optax.sgd(0.5), layers=["head"])
    >>> grads = params  # those of half the sum of squares
    >>> updates, _ = tx.update(grads, tx.init(params), params)
    >>> new = optax.apply_updates(params, updates)
    >>> new["trunk"].tolist(), new["head"].tolist()
    ([1.0, 1.0], [0.5, 0.5])

    Raises:
        InputError: at `init`, if the net has no such layer.
    """
    names = tuple(layers)

    def labels(params: Params) -> PyTree:
        _check_names(params, names)
        return _labelled(params, lambda name: "trained" if name in names else "frozen")

    return optax.partition({"trained": tx, "frozen": optax.set_to_zero()}, labels)


class Waiting(NamedTuple):
    """The state of `starting`: steps seen, the first that counts, and the optimiser's own state."""

    step: Array
    start: Array
    inner: PyTree


def starting(tx: optax.GradientTransformation, start: PyTree) -> optax.GradientTransformation:
    """An optimiser that does nothing before the step `start`, and begins there as if at step 0.

    Until then updates are 0 and its state stays as `init` made it: no decay, no moments, and a
    schedule or a bias correction counts from `start`. The number is part of the state: it may be
    traced, and differ between the runs of one program.
    """

    def init(params: Params) -> Waiting:
        return Waiting(jnp.int32(0), jnp.asarray(start, jnp.int32), tx.init(params))

    def update(
        updates: Params, state: Waiting, params: Params | None = None
    ) -> tuple[Params, Waiting]:
        def moved() -> tuple[Params, PyTree]:
            return tx.update(updates, state.inner, params)

        def kept() -> tuple[Params, PyTree]:
            return jax.tree.map(jnp.zeros_like, updates), state.inner

        found, inner = jax.lax.cond(state.step >= state.start, moved, kept)
        return found, Waiting(optax.safe_increment(state.step), state.start, inner)

    return optax.GradientTransformation(init, update)


def unfreezing(
    tx: optax.GradientTransformation, *, layers: Layers, starts: PyTree
) -> optax.GradientTransformation:
    """An optimiser that begins with each layer at a step of its own: see `starting`.

    `starts = stage * numpy.arange(len(layers))` is gradual unfreezing (Howard, Ruder 2018,
    ULMFiT, arXiv:1801.06146, section 3.3): the head alone in the first stage, and in each stage one
    layer more. 0 for all is full fine-tuning, `NEVER` for all but the head a linear probe: these
    are numbers, so that one compiled program does them all.

    Args:
        tx: one of its own for each entry of `layers`, with its own moments and counters.
        layers: all layers of the net, each once.
        starts: ints `[len(layers)]`, which may be traced.

    >>> import jaxdl, jax, jax.numpy as jnp, optax
    >>> params = {"trunk": jnp.zeros(()), "head": jnp.zeros(())}
    >>> tx = jaxdl.unfreezing(optax.sgd(1.0), layers=["head", "trunk"], starts=[0, 2])
    >>> state, update = tx.init(params), jax.jit(tx.update)
    >>> grads = {"trunk": jnp.float32(-1), "head": jnp.float32(-1)}
    >>> for _ in range(3):
    ...     updates, state = update(grads, state)
    ...     params = optax.apply_updates(params, updates)
    >>> float(params["head"]), float(params["trunk"])  # three steps, and the one from step 2 on
    (3.0, 1.0)

    Raises:
        InputError: as many starts as layers are not given; at `init`, if `layers` are not those
            of the net.
    """
    groups = [_names(group) for group in layers]
    names = [name for group in groups for name in group]
    begin = jnp.asarray(starts, jnp.int32)
    if begin.shape != (len(groups),):
        raise InputError(f"starts of shape {begin.shape} for {len(groups)} layers: give one each")
    if len(set(names)) < len(names):
        raise InputError(f"layers {' '.join(names)}: name each once")

    def labels(params: Params) -> PyTree:
        _check_names(params, names)
        if left := {_layer(place) for place, _ in _leaves(params)} - set(names):
            raise InputError(f"layers {' '.join(names)}: the net has {min(left)} too")
        group_of = {name: " ".join(group) for group in groups for name in group}
        return _labelled(params, lambda name: group_of[name])

    parts = {" ".join(group): starting(tx, begin[i]) for i, group in enumerate(groups)}
    return optax.partition(parts, labels)


def _names(group: str | tuple[str, ...]) -> tuple[str, ...]:
    return (group,) if isinstance(group, str) else group


def _leaves(params: Params) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(params)


def _layer(place: Any) -> str:
    """The name of the layer that a leaf at this path belongs to."""
    return jax.tree_util.keystr(place[:1], simple=True)


def _shown(place: Any) -> str:
    return jax.tree_util.keystr(place, simple=True, separator="/")


def _labelled(params: Params, label: Any) -> PyTree:
    return jax.tree_util.tree_map_with_path(lambda place, _: label(_layer(place)), params)


def _check_names(params: Params, names: Iterable[str]) -> None:
    known = sorted({_layer(place) for place, _ in _leaves(params)})
    for name in names:
        if name not in known:
            raise InputError(f"the net has no layer {name}: its layers are {' '.join(known)}")
