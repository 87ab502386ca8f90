"""Transfer learning: a trained net with a new head, frozen layers and gradual unfreezing.

A net is a pytree of parameters. Its first level names its layers. Lists of layers begin at the top
of the net, with the head. An optimiser does the freezing: each function makes one optimiser from
another. So training with frozen layers is the same compiled scan as any other training. Running
averages of batch norm are no parameters: apply the net in the mode "eval" to keep them.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdl.errors import InputError
from jaxdl.types import Array, Params, PyTree

NEVER = 2**31 - 1
"""A step that no training reaches."""

Layers = Sequence[str | tuple[str, ...]]
"""Names of layers, or tuples of names that form one group, from the top of the net."""


def with_new_head(trained: Params, fresh: Params, *, head: str | tuple[str, ...]) -> Params:
    """The trained parameters, with the layers of the head replaced by the fresh ones.

    Args:
        trained: a mapping of layers, as Flax makes it.
        fresh: the same for the net to be trained now. Its head may have other shapes.
        head: names of the new layers.

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
                f"{_shown(place)} is {there} in the trained net and {here} in the new one: give two"
                f" nets that differ in the head ({' '.join(names)}) alone"
            )
    return {name: (fresh if name in names else trained)[name] for name in fresh}


def only(tx: optax.GradientTransformation, layers: Iterable[str]) -> optax.GradientTransformation:
    """An optimiser that trains these layers alone. With the head alone, it trains a linear probe.

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
    names = _names(layers if isinstance(layers, str) else tuple(layers))

    def labels(params: Params) -> PyTree:
        _check_names(params, names)
        return _labelled(params, lambda name: "trained" if name in names else "frozen")

    return optax.partition({"trained": tx, "frozen": optax.set_to_zero()}, labels)


class Waiting(NamedTuple):
    """The state of `starting`: steps done, the step to start at, and the optimiser's own state."""

    step: Array
    start: Array
    inner: PyTree


def starting(tx: optax.GradientTransformation, start: PyTree) -> optax.GradientTransformation:
    """An optimiser that does nothing before the step `start`. There it begins as if at step 0.

    Before `start`, updates are 0 and its state does not change. So there is no decay and there are
    no moments, and a schedule or a bias correction counts from `start`. `start` is part of the
    state. So it may be traced, and may differ between the runs of one program.
    """

    def init(params: Params) -> Waiting:
        return Waiting(jnp.int32(0), jnp.asarray(start, jnp.int32), tx.init(params))

    def update(
        updates: Params, state: Waiting, params: Params | None = None
    ) -> tuple[Params, Waiting]:
        def moved() -> tuple[Params, PyTree]:
            found = tx.update(updates, state.inner, params)
            # A rate of float32 would lengthen the updates of bfloat16 parameters.
            return jax.tree.map(
                lambda new, old: new.astype(old.dtype), found, (updates, state.inner)
            )

        def kept() -> tuple[Params, PyTree]:
            return jax.tree.map(jnp.zeros_like, updates), state.inner

        found, inner = jax.lax.cond(state.step >= state.start, moved, kept)
        return found, Waiting(optax.safe_increment(state.step), state.start, inner)

    return optax.GradientTransformation(init, update)


def unfreezing(
    tx: optax.GradientTransformation, *, layers: Layers, starts: PyTree
) -> optax.GradientTransformation:
    """An optimiser that starts to train each layer at a step of its own: see `starting`.

    `starts = stage * numpy.arange(len(layers))` is gradual unfreezing (Howard, Ruder 2018,
    ULMFiT, arXiv:1801.06146, section 3.3): the head alone in the first stage, and one more layer in
    each later stage. Starts of 0 are full fine-tuning. `NEVER` for all but the head is a linear
    probe. The starts are arrays, so one compiled program serves all of these.

    Args:
        tx: the optimiser. Each entry of `layers` has moments and counters of its own.
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
        InputError: if there are not as many starts as layers; at `init`, if `layers` are not the
            layers of the net.
    """
    groups = [_names(group) for group in layers]
    names = [name for group in groups for name in group]
    begin = jnp.asarray(starts, jnp.int32)
    if begin.shape != (len(groups),):
        raise InputError(
            f"starts of shape {begin.shape} for {len(groups)} layers: give one per layer"
        )
    if len(set(names)) < len(names):
        raise InputError(f"layers {' '.join(names)}: name each once")

    def labels(params: Params) -> PyTree:
        _check_names(params, names)
        if left := {_layer(place) for place, _ in _leaves(params)} - set(names):
            raise InputError(
                f"layers {' '.join(names)}: the net has {min(left)} too. Name all of its layers"
            )
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
            raise InputError(f"the net has no layer {name}: choose among {' '.join(known)}")
