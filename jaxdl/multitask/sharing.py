"""Nets of many tasks: hard sharing (Caruana 1997), and a mixture of experts as the soft form.

A trunk makes features from the inputs. Each task has a head of its own on these features. Every
model of `jaxdl.models` can be a trunk or a head:

    net = hard_sharing(lenet(84), [mlp((10,))] * 2)

The soft form is the multi-gate mixture of experts, and not cross-stitch units. The mixture *is*
hard sharing, with experts as the trunk and gates in the heads. So all task methods work on it
unchanged. Cross-stitch units would share all weights of their towers.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from jaxdl.errors import InputError
from jaxdl.grads import check_model
from jaxdl.types import ApplyFn, Array, InitFn, Key, Model, Params, PyTree

Activation = Callable[[Array], Array]
Found = TypeVar("Found")
Tree = TypeVar("Tree")


class TaskParams(NamedTuple):
    """Parameters of the shared trunk and of the heads: `heads` is a tuple, one per task."""

    trunk: Params
    heads: tuple[Params, ...]


class MultiTask(NamedTuple):
    """A net of many tasks. `init` and `apply` are those of a `Model` with `TaskParams`.

    `apply` returns a tuple of predictions, one per task. It takes one `x` for all tasks, or a tuple
    of inputs, one per task. The same holds for weights. `trunk` and `heads` are the parts of the
    net, for code that differentiates them separately.
    """

    init: InitFn
    apply: ApplyFn
    trunk: Model
    heads: tuple[Model, ...]


def hard_sharing(
    trunk: Model, heads: Sequence[Model], *, between: Activation = jax.nn.relu
) -> MultiTask:
    """One trunk, and a head per task on its features (Caruana 1997, "Multitask learning").

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> net = jaxdl.hard_sharing(jaxdl.mlp((8,)), [jaxdl.mlp((3,)), jaxdl.mlp((1,))])
    >>> key, x = jax.random.key(0), jnp.ones((5, 4))
    >>> params = jax.eval_shape(net.init, key, x)
    >>> [head["Dense_0"]["kernel"].shape for head in params.heads]
    [(8, 3), (8, 1)]
    >>> [y.shape for y in jax.eval_shape(net.apply, params, x)]
    [(5, 3), (5, 1)]

    Args:
        trunk: `x` to features `[n, ...]`.
        heads: one model per task. If it is the same model for all, `[mlp((10,))] * tasks`, each
            task has parameters of its own, but all heads run as one batched program.
        between: applied to the features, because nets of `jaxdl.models` end in a linear layer.

    Raises:
        InputError: if there are no heads, or if the trunk or a head is no `Model`.
    """
    for model in (trunk, *heads):
        check_model(model)

    def active(
        params: Params, x: PyTree, *, key: Key | None = None, weight: Array | None = None
    ) -> PyTree:
        return between(trunk.apply(params, x, key=key, weight=weight))

    return _net(Model(trunk.init, active), tuple(heads))


def mmoe(
    expert: Model,
    heads: Sequence[Model],
    *,
    experts: int,
    gate: Model,
    between: Activation = jax.nn.relu,
) -> MultiTask:
    """Multi-gate mixture of experts (Ma et al. 2018, doi:10.1145/3219819.3220007).

    Each task mixes the outputs of all experts. Its own gate computes the mixing weights from the
    input. Its head takes the mixture.

    Args:
        expert: the model of each of `experts` experts, with output `[n, ...]`. Each expert has
            initial parameters of its own.
        heads: one model per task, as in `hard_sharing`.
        gate: inputs to logits `[n, experts]`. That of the paper is linear, `mlp((experts,))`.
        between: applied to the output of each expert.

    Raises:
        InputError: if there are no experts or no heads; when tracing, if the gate does not return
            one logit per expert.
    """
    if experts < 1:
        raise InputError(
            f"experts={experts}: a mixture needs at least one expert. Choose 1 or more"
        )
    for model in (expert, gate, *heads):
        check_model(model)

    def init(key: Key, x: PyTree) -> Params:
        return jax.vmap(expert.init, (0, None))(jax.random.split(key, experts), x)

    def apply(
        params: Params, x: PyTree, *, key: Key | None = None, weight: Array | None = None
    ) -> PyTree:
        keys = None if key is None else jax.random.split(key, experts)

        def one(params: Params, key: Key | None) -> Array:
            return between(expert.apply(params, x, key=key, weight=weight))

        # [n, experts, ...], and the input, because the gates in the heads need it.
        return jax.vmap(one, out_axes=1)(params, keys), x

    def gated(head: Model) -> Model:
        def mix(params: Params, features: PyTree, weight: Array | None = None) -> Array:
            outputs, x = features
            logits = gate.apply(params, x, weight=weight)
            if logits.shape[-1] != experts:
                raise InputError(
                    f"the gate of {experts} experts gives {logits.shape[-1]} logits: give it one"
                    " logit per expert"
                )
            return jnp.einsum("ne,ne...->n...", jax.nn.softmax(logits), outputs)

        def init_head(key: Key, x: PyTree) -> Params:
            gate_key, head_key = jax.random.split(key)
            params = gate.init(gate_key, x[1])
            return params, head.init(head_key, mix(params, x))

        def apply_head(
            params: Params, x: PyTree, *, key: Key | None = None, weight: Array | None = None
        ) -> PyTree:
            return head.apply(params[1], mix(params[0], x, weight), key=key, weight=weight)

        return Model(init_head, apply_head)

    # The same object for the same head, so that equal heads stay one batched program.
    made = {head: gated(head) for head in heads}
    return _net(Model(init, apply), tuple(made[head] for head in heads))


def map_tasks(
    of_task: Callable[[int], Callable[..., Found]],
    kinds: Sequence[object],
    *args: Sequence[PyTree],
) -> list[Found]:
    """`of_task(task)` of each task's arguments: a list of results, one per task.

    If all tasks are of one kind, and their arguments have equal shapes and dtypes, they are stacked
    and run as one vmapped call. If not, they run one after another. Each of `args` holds one value
    per task.
    """
    rows = list(zip(*args, strict=True))
    looks = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), row) for row in rows]
    # One task alone runs without vmap, because a batch axis of length 1 makes convolutions slower.
    if len(rows) > 1 and all(
        kind == kinds[0] and look == looks[0] for kind, look in zip(kinds, looks, strict=True)
    ):
        found = jax.vmap(of_task(0))(*stack(rows))
        return [jax.tree.map(lambda leaf, t=task: leaf[t], found) for task in range(len(rows))]
    return [of_task(task)(*row) for task, row in enumerate(rows)]


def stack(trees: Sequence[Tree]) -> Tree:
    """Trees of equal shapes as one tree with a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def net_keys(key: Key | None, tasks: int) -> tuple[Key | None, list[Key | None]]:
    """A key for the trunk and one per head. Without a key (no dropout), all are None."""
    if key is None:
        return None, [None] * tasks
    trunk_key, heads_key = jax.random.split(key)
    return trunk_key, list(jax.random.split(heads_key, tasks))


def trunk_keys(key: Key | None, tasks: int) -> list[Key | None]:
    """A key per task for the trunk, where tasks have inputs of their own."""
    return [None] * tasks if key is None else list(jax.random.split(key, tasks))


def _net(trunk: Model, heads: tuple[Model, ...]) -> MultiTask:
    if not heads:
        raise InputError("a net of many tasks has no heads: give one head per task")
    tasks = len(heads)

    def init(key: Key, x: PyTree) -> TaskParams:
        trunk_key, heads_key = jax.random.split(key)
        xs = x if type(x) is tuple else (x,) * tasks  # a named one is a single input
        params = trunk.init(trunk_key, xs[0])

        def head(head: Model, key: Key, x: PyTree) -> Params:
            # A head needs only the shapes of the features, so the trunk does not run.
            looks = jax.eval_shape(lambda x: trunk.apply(params, x), x)
            return head.init(key, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), looks))

        keys = jax.random.split(heads_key, tasks)
        return TaskParams(params, tuple(map(head, heads, keys, xs)))

    def apply(
        params: TaskParams, x: PyTree, *, key: Key | None = None, weight: PyTree = None
    ) -> tuple[PyTree, ...]:
        trunk_key, keys = net_keys(key, tasks)
        weights = weight if isinstance(weight, tuple) else (weight,) * tasks

        def run(x: PyTree, weight: Array | None, key: Key | None) -> PyTree:
            return trunk.apply(params.trunk, x, key=key, weight=weight)

        def head(task: int) -> Callable[..., PyTree]:
            return lambda own, z, key, weight: heads[task].apply(own, z, key=key, weight=weight)

        if type(x) is tuple:
            features = list(map(run, x, weights, trunk_keys(trunk_key, tasks)))
        else:  # a row counts in the trunk as it counts in the task where it counts most
            whole = any(of_task is None for of_task in weights)
            most = None if whole else jnp.max(jnp.stack(weights), axis=0)
            features = [run(x, most, trunk_key)] * tasks
        return tuple(map_tasks(head, heads, params.heads, features, keys, weights))

    return MultiTask(init, apply, trunk, heads)
