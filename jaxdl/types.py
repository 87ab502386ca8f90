"""The nouns of jaxdl. Reading starts here; this file imports nothing of jaxdl but its errors.

Everything is a pure function or a NamedTuple of pure functions. One seam holds the
library together: supervised learning, multi-task learning and meta-learning each *are* a
`GradFn`; batching over tasks or devices *wraps* one; Optax turns its result into updates.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, Protocol

import jax
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Shaped

from jaxdl.errors import InputError

Array = jax.Array
Key = jax.Array
"""A typed PRNG key of `jax.random.key`, or an array of them."""
PyTree = Any
Params = PyTree
Grads = PyTree
Scalar = Float[Array, ""]
Count = Int[Array, ""]
"""How many steps are done, or how many items there are."""
Weight = Shaped[Array, " n"]
"""How much each example counts: 0 or 1, or any number that is not negative."""
Metrics = dict[str, Array]
"""Values to report, by name: scalars, or arrays with the leading axes of the caller's vmap."""


class Batch(NamedTuple):
    """A batch of examples, stacked along the leading axis of `x`, `y` and `weight`.

    `weight` is 0 or 1, or any non-negative number, per example. It masks the padding of a last
    partial batch and of unequal lengths. None counts every example once. An example of weight 0
    counts neither in the loss nor in statistics of the batch, whatever its input and target are.

    >>> import jaxdl, jax.numpy as jnp
    >>> x, y = jnp.array([[1.0], [2.0], [0.0]]), jnp.array([[2.0], [6.0], [0.0]])
    >>> batch = jaxdl.Batch(x, y, weight=jnp.array([1, 1, 0]))  # the third row is padding
    >>> loss, metrics = jaxdl.mean_squared_error(2 * batch.x, batch.y, batch.weight)
    >>> float(loss)  # (0 + 4) / 2
    2.0
    """

    x: PyTree
    y: PyTree
    weight: Shaped[Array, "n ..."] | None = None


class Episode(NamedTuple):
    """One task: a learner adapts on `support` and is evaluated on `query`.

    Classification: two batches with x `[ways * shots, ...]` and `[ways * queries, ...]` and
    int32 labels in `[0, ways)`. Where the numbers vary from episode to episode, both are padded,
    with weights. Regression: two batches `[points, features]`.

    >>> import jaxdl, jax.numpy as jnp
    >>> support = jaxdl.Batch(jnp.array([[1.0], [2.0]]), jnp.array([[2.0], [4.0]]))
    >>> query = jaxdl.Batch(jnp.array([[5.0]]), jnp.array([[13.0]]))
    >>> episode = jaxdl.Episode(support, query)
    >>> slope = jnp.mean(episode.support.y / episode.support.x)  # all that this learner learns
    >>> loss, metrics = jaxdl.mean_squared_error(slope * episode.query.x, episode.query.y)
    >>> float(slope), float(loss)
    (2.0, 9.0)
    """

    support: PyTree
    query: PyTree


class Cells(NamedTuple):
    """Rows of a table, and which of their cells are known. The value of another does not count.

    A column without a known cell in the support set is as if it were not there.

    >>> import jaxdl, jax.numpy as jnp
    >>> x = jnp.array([[1.0, jnp.nan], [3.0, 4.0]])
    >>> jaxdl.Cells(x, known=~jnp.isnan(x)).known.tolist()
    [[True, False], [True, True]]
    """

    values: Float[Array, "n features"]
    known: Bool[Array, "n features"]


class Example(NamedTuple):
    """One example of a stream of tasks: `x` and `y` without a batch axis, and the task's number.

    `task` is an int32 scalar in `[0, tasks)`. Some learners use it, others ignore it.

    >>> import jaxdl, jax, jax.numpy as jnp, optax
    >>> learner = jaxdl.er(
    ...     jaxdl.mlp((8, 2)), jaxdl.cross_entropy, optax.sgd(0.1), capacity=10, replay_batch_size=3
    ... )
    >>> example = jaxdl.Example(jnp.ones(4), jnp.int32(1), task=jnp.int32(0))
    >>> key = jax.random.key(0)
    >>> state, metrics = jax.jit(learner.step)(key, learner.init(key, example), example)
    >>> int(state.step)
    1
    """

    x: PyTree
    y: PyTree
    task: Int[Array, ""]


class InitFn(Protocol):
    """Makes parameters for inputs that look like `x` (a batch, leading axis included)."""

    def __call__(self, key: Key, x: PyTree) -> Params: ...


class ApplyFn(Protocol):
    """Forward pass over a batch. A key switches dropout on; None switches it off.

    `weight` `[n]` says how much each example counts in statistics of the batch, as `Batch.weight`
    does. A net without such statistics ignores it.
    """

    def __call__(
        self, params: Params, x: PyTree, /, *, key: Key | None = None, weight: Weight | None = None
    ) -> PyTree: ...


class Model(NamedTuple):
    """A net as two pure functions. Its parameters are the only state that it has.

    - `init(key, x) -> params`: for inputs that look like the batch x.
    - `apply(params, x, *, key=None, weight=None) -> y`: dropout where there is a key.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> def init(key, x):
    ...     return jnp.zeros(x.shape[1])
    >>> def apply(params, x, *, key=None, weight=None):
    ...     return x @ params  # linear regression, without a bias
    >>> model, x, y = jaxdl.Model(init, apply), jnp.eye(2), jnp.array([1.0, 2.0])
    >>> grad = jaxdl.supervised(model, jaxdl.mean_squared_error)
    >>> params = model.init(jax.random.key(0), x)
    >>> grads, _ = grad(jax.random.key(1), jnp.int32(0), params, jaxdl.Batch(x, y))
    >>> model.apply(params - grads, x).tolist()  # one step of gradient descent, lr 1
    [1.0, 2.0]
    """

    init: InitFn
    apply: ApplyFn


Embedding = Annotated[Model, "features"]
"""A `Model` whose outputs are features, for learners that compare them or put a head on them.

It is a `Model`, and the annotation says which net a learner wants. Its outputs are `[n, ...]`:
learners flatten them to vectors. A learner that needs their length asks in its `init`:
`jax.eval_shape(features.apply, params, x).shape`.
"""

NormMode = Literal["train", "eval"]
"""The statistics of normalisation: "train" uses those of the batch, "eval" the running averages."""


class StatefulInitFn(Protocol):
    """Makes parameters and statistics for inputs that look like `x`."""

    def __call__(self, key: Key, x: PyTree) -> tuple[Params, PyTree]: ...


class StatefulApplyFn(Protocol):
    """Forward pass over a batch, and the statistics after it. The mode "eval" does not change them.

    `key` and `weight` are those of an `ApplyFn`.
    """

    def __call__(
        self,
        params: Params,
        stats: PyTree,
        x: PyTree,
        *,
        key: Key | None = None,
        weight: Weight | None = None,
        mode: NormMode,
    ) -> tuple[PyTree, PyTree]: ...


class StatefulModel(NamedTuple):
    """A net that also keeps statistics, such as the running averages of batch norm.

    - `init(key, x) -> (params, stats)`, for inputs that look like the batch x.
    - `apply(params, stats, x, *, key=None, weight=None, mode) -> (y, stats)`.

    No gradient goes through `stats`: they are data that training collects. The mode has no
    default, so that every caller chooses it.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> def init(key, x):
    ...     return (), jnp.zeros(())
    >>> def apply(params, mean, x, *, key=None, weight=None, mode):
    ...     if mode == "eval":
    ...         return x - mean, mean
    ...     return x - x.mean(), 0.5 * mean + 0.5 * x.mean()  # a running average
    >>> model, x = jaxdl.StatefulModel(init, apply), jnp.array([3.0, 5.0])
    >>> params, stats = model.init(jax.random.key(0), x)
    >>> y, stats = model.apply(params, stats, x, mode="train")
    >>> float(stats), model.apply(params, stats, x, mode="eval")[0].tolist()
    (2.0, [1.0, 3.0])
    """

    init: StatefulInitFn
    apply: StatefulApplyFn


class LossFn(Protocol):
    """`(prediction, target, weight) -> (scalar, metrics)`, the mean over the weighted examples.

    Metrics are single numbers by name. The metric `loss` is what is logged and checked, and need
    not be what is minimised; where there is none, the loss itself is logged. The metric `accuracy`
    says that predictions `[n, ..., classes]` have an output per class. Then a label without an
    output is a fault. A single output is the logit of two classes, with labels of your own. Write
    your own loss with `losses.counted` and `losses.weighted_mean`. Then examples of weight 0 count
    for nothing.

    >>> import jaxdl, jax.numpy as jnp
    >>> def halved(loss: jaxdl.LossFn) -> jaxdl.LossFn:
    ...     def half(prediction, target, weight=None):
    ...         value, metrics = loss(prediction, target, weight)
    ...         return value / 2, metrics | {"half": value / 2}
    ...     return half
    >>> value, metrics = halved(jaxdl.mean_squared_error)(jnp.array([[3.0]]), jnp.array([[1.0]]))
    >>> float(value), sorted(metrics)
    (2.0, ['half', 'loss'])
    """

    def __call__(
        self, prediction: PyTree, target: PyTree, weight: Weight | None = None
    ) -> tuple[Scalar, Metrics]: ...


class GradFn(Protocol):
    """The seam: `(key, step, params, batch) -> (grads, metrics)`.

    The seam is a gradient and not a loss, because Reptile, evolution strategies and gradient
    surgery are not the `jax.grad` of any scalar. `step` is the outer step, an unbatched int32.
    `batch` is the data of one gradient: a `Batch` of examples, the `Episode` of a meta-learner, or
    many of them, stacked along a leading axis. `grads` have the structure and shapes of `params`.

    Pass the arguments by position, because a wrapper does not know the name of the last one.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> def clipped(grad: jaxdl.GradFn) -> jaxdl.GradFn:  # wraps one and returns another
    ...     def clip(key, step, params, batch):
    ...         grads, metrics = grad(key, step, params, batch)
    ...         return jax.tree.map(lambda leaf: jnp.clip(leaf, -1, 1), grads), metrics
    ...     return clip
    >>> grad = clipped(jaxdl.of_loss(lambda w, key, batch, step=None: (w**2, {})))
    >>> grads, metrics = grad(jax.random.key(0), jnp.int32(0), jnp.float32(3), None)
    >>> float(grads)  # 2 * 3, clipped
    1.0
    """

    def __call__(
        self, key: Key, step: Count, params: Params, batch: PyTree, /
    ) -> tuple[Grads, Metrics]: ...


class Sampler(Protocol):
    """`key -> one episode` or `key -> one batch`, drawn inside jit.

    A sampler that holds a data set is a `jax.tree_util.Partial`. The data set is then an argument
    of the compiled program. JAX would write a closed-over array into the program as text.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> def draw(images, key):  # three of them
    ...     return images[jax.random.randint(key, (3,), 0, len(images))]
    >>> sample: jaxdl.Sampler = jax.tree_util.Partial(draw, jnp.zeros((100, 28, 28)))
    >>> jax.jit(lambda sample, key: sample(key))(sample, jax.random.key(0)).shape
    (3, 28, 28)
    """

    def __call__(self, key: Key, /) -> PyTree: ...


class Shard(NamedTuple):
    """The part of each step's tasks or examples that a device takes: part `index` of `parts`.

    A shard cuts keys and indices, not data. So any number of devices trains on the same tasks.
    `index` lies in `[0, parts)` and may be traced.

    >>> import jaxdl, jax.numpy as jnp
    >>> rows = jnp.array([7, 1, 4, 9, 0, 2])  # of the examples of one step
    >>> [jaxdl.Shard(index, parts=2).of(rows).tolist() for index in range(2)]
    [[7, 1, 4], [9, 0, 2]]
    """

    index: Any
    parts: int

    def of(self, items: PyTree) -> PyTree:
        """The slice of `items` that belongs to this device, along the leading axis.

        Raises:
            InputError: if that axis is not a multiple of `parts`.
        """
        if self.parts == 1:
            return items
        return jax.tree.map(self._slice, items)

    def _slice(self, leaf: Array) -> Array:
        if leaf.shape[0] % self.parts:
            raise InputError(
                f"{leaf.shape[0]} tasks do not divide among {self.parts} devices;"
                f" choose a multiple of {self.parts} tasks, or fewer devices"
            )
        size = leaf.shape[0] // self.parts
        return lax.dynamic_slice_in_dim(leaf, self.index * size, size)


WHOLE = Shard(0, 1)
"""The shard of a device that works alone."""


class Stream(Protocol):
    """`(run key, step, shard) -> batch`: a device's part of the batch of one step.

    The key is that of the whole run, so that an epoch can have one order. Fold the step into the
    key to draw something new at each step. A stream that holds a data set is a
    `jax.tree_util.Partial`: the data set is then an argument of the compiled program.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> def draw(x, y, key, step, shard=jaxdl.Shard(0, 1)):  # 8 examples, new ones at each step
    ...     rows = jax.random.randint(jax.random.fold_in(key, step), (8,), 0, len(x))
    ...     return jaxdl.Batch(x[shard.of(rows)], y[shard.of(rows)])
    >>> stream: jaxdl.Stream = jax.tree_util.Partial(draw, jnp.arange(100), jnp.ones(100))
    >>> key, shards = jax.random.key(0), [jaxdl.Shard(0, 1), jaxdl.Shard(0, 2), jaxdl.Shard(1, 2)]
    >>> draws = jax.jit(lambda stream, step: [stream(key, step, shard).x for shard in shards])
    >>> whole, first, second = draws(stream, 5)
    >>> whole.tolist() == first.tolist() + second.tolist()  # on one device, and on two
    True
    """

    def __call__(self, key: Key, step: Any, shard: Shard = WHOLE, /) -> PyTree: ...


class AdaptFn(Protocol):
    """Learning inside one task. `steps` overrides the number of inner steps of training.

    The key is for random numbers of the method itself. It switches dropout on only if the learner
    was made with `inner_dropout=True`.
    """

    def __call__(
        self, key: Key, params: Params, support: PyTree, steps: int | None = None
    ) -> PyTree: ...


class PredictFn(Protocol):
    """Prediction for a batch of inputs, from the value that `adapt` returned.

    `key` and `weight` are those of an `ApplyFn`.
    """

    def __call__(
        self, adapted: Any, x: PyTree, /, *, key: Key | None = None, weight: Weight | None = None
    ) -> PyTree: ...


class MetaLearner(NamedTuple):
    """A meta-learning algorithm as four pure functions that take one episode at a time.

    - `init(key, x) -> params`: the meta-parameters of the algorithm. x is a batch of inputs.
    - `adapt(key, params, support, steps=None) -> adapted`: opaque to all but `predict`.
    - `predict(adapted, x, *, key=None, weight=None) -> y`.
    - `grad(key, step, params, episode) -> (grads, metrics)`: the `GradFn` of one `Episode`.

    >>> import jaxdl, jax, jax.numpy as jnp
    >>> def init(key, x):
    ...     return jnp.zeros(())
    >>> def adapt(key, params, support, steps=None):
    ...     return params + jnp.mean(support.y)  # all that it learns in a task
    >>> def predict(adapted, x, *, key=None, weight=None):
    ...     return jnp.full_like(x, adapted)
    >>> grad = jaxdl.through_adaptation(adapt, predict, jaxdl.mean_squared_error)
    >>> learner, x = jaxdl.MetaLearner(init, adapt, predict, grad), jnp.ones((1, 1))
    >>> episode = jaxdl.Episode(jaxdl.Batch(x, 2 * x), jaxdl.Batch(x, 3 * x))
    >>> key, params = jax.random.key(0), learner.init(jax.random.key(1), x)
    >>> float(learner.grad(key, jnp.int32(0), params, episode)[0])  # of (params + 2 - 3)^2 at 0
    -2.0
    """

    init: InitFn
    adapt: AdaptFn
    predict: PredictFn
    grad: GradFn


class TransferLearner(NamedTuple):
    """A learner that trains on labelled examples. It uses tasks only to adapt.

    - `init`, `adapt` and `predict` are those of a `MetaLearner`.
    - `grad(key, step, params, batch) -> (grads, metrics)`: the `GradFn` of one `Batch`, whose
      labels are the training classes. It takes no tasks. `adapt` may replace the parameters that
      belong to the training classes alone.

    >>> import jaxdl, jax, jax.numpy as jnp, optax
    >>> learner = jaxdl.finetune(
    ...     jaxdl.mlp((8,)), jaxdl.cross_entropy, classes=64, ways=5, tx=optax.sgd(0.1), steps=10
    ... )
    >>> isinstance(learner, jaxdl.TransferLearner)
    True
    >>> key, x = jax.random.key(0), jnp.ones((3, 4))
    >>> params, batch = learner.init(key, x), jaxdl.Batch(x, y=jnp.array([63, 7, 12]))
    >>> grads, metrics = jax.jit(learner.grad)(key, jnp.int32(0), params, batch)
    >>> adapted = jax.jit(learner.adapt)(key, params, jaxdl.Batch(x, y=jnp.array([4, 0, 2])))
    >>> learner.predict(adapted, x).shape
    (3, 5)
    """

    init: InitFn
    adapt: AdaptFn
    predict: PredictFn
    grad: GradFn


class TaskLearner(Protocol):
    """The part that `MetaLearner` and `TransferLearner` share: `init`, `adapt` and `predict`.

    Code that only uses a learner takes this type. Code that trains one needs its `grad`, too.
    """

    @property
    def init(self) -> InitFn:
        """Makes parameters."""
        ...

    @property
    def adapt(self) -> AdaptFn:
        """Learns a task from its support set."""
        ...

    @property
    def predict(self) -> PredictFn:
        """Predicts from the value that `adapt` returned."""
        ...


class TrainState(NamedTuple):
    """All that the next step needs. Metrics are not part of it.

    `step` is an int32 scalar: how many steps are done. `opt_state` is Optax's. `stats` are those of
    a `StatefulModel`, and empty for other nets. `init_state` makes the first state.

    >>> import jaxdl, jax.numpy as jnp, optax
    >>> params, tx = jnp.zeros(3), optax.adam(1e-3)
    >>> state = jaxdl.TrainState(jnp.int32(0), params, tx.init(params))
    >>> state = state._replace(step=state.step + 1, params=params + 1)
    >>> int(state.step), state.params.tolist(), state.stats
    (1, [1.0, 1.0, 1.0], ())
    """

    step: Count
    params: Params
    opt_state: PyTree
    stats: PyTree = ()


class StepFn(Protocol):
    """`(key, state, batch) -> (state, metrics)`; `state` is any pytree with a `step`.

    >>> import jaxdl, jax, jax.numpy as jnp, optax
    >>> def watched(step: jaxdl.StepFn) -> jaxdl.StepFn:  # the metrics of another, and one more
    ...     def watch(key, state, batch):
    ...         state, metrics = step(key, state, batch)
    ...         return state, metrics | {"norm": optax.tree.norm(state.params)}
    ...     return watch
    >>> tx, grad = optax.sgd(0.25), jaxdl.of_loss(lambda w, key, batch, step=None: (w @ w, {}))
    >>> state = jaxdl.init_state(jnp.array([3.0, 4.0]), tx)
    >>> step = jax.jit(watched(jaxdl.make_step(grad, tx)))
    >>> state, metrics = step(jax.random.key(0), state, None)
    >>> int(state.step), float(metrics["norm"])  # [3, 4] - 0.25 * [6, 8]
    (1, 2.5)
    """

    def __call__(self, key: Key, state: PyTree, batch: PyTree) -> tuple[PyTree, Metrics]: ...


class Sample(NamedTuple):
    """Items `[count, ...]` drawn from a memory, with a weight and an index `[count]` for each.

    - `weights`: how much each item counts in a mean over the sample. The largest is 1. All are 1 if
      the memory draws every item with equal probability.
    - `indices`: the row of each item in the memory, int32, for `Replay.update`.

    >>> import jax.numpy as jnp, jaxdl
    >>> drawn = jaxdl.Sample(jnp.array([7.0, 9.0]), weights=jnp.ones(2), indices=jnp.arange(2))
    >>> float(jnp.mean(drawn.weights * drawn.items))
    8.0
    """

    items: PyTree
    weights: Float[Array, " count"]
    indices: Int[Array, " count"]


class SampleFn(Protocol):
    """Draws `count` items with replacement.

    `is_exponent`, in [0, 1], is the importance-sampling exponent. With 1, the weights correct the
    unequal probabilities of the draw in full. With 0, all weights are 1.
    """

    def __call__(
        self, key: Key, state: PyTree, count: int, *, is_exponent: ArrayLike = 1.0
    ) -> Sample: ...


class Replay(NamedTuple):
    """A memory of past items as five pure functions over a state of plain arrays.

    - `init(item) -> state`: an empty memory for items like this one, a pytree of arrays.
    - `add(key, state, items) -> state`: one item, or a batch of them along one more leading axis.
    - `sample(key, state, count, *, is_exponent=1.0) -> Sample`: see `SampleFn`.
    - `update(state, indices, priorities) -> state`: new priorities `[count]` of the items at these
      indices. A memory without priorities returns its state unchanged.
    - `size(state) -> int32`: how many items there are to draw from.

    One learner serves every memory:

    >>> import jax, jax.numpy as jnp, jaxdl
    >>> def learn(memory: jaxdl.Replay, state, key):
    ...     items, weights, indices = memory.sample(key, state, 4)
    ...     errors = items - 7  # a step on the mean of weights * errors**2 comes here
    ...     return memory.update(state, indices, jnp.abs(errors) + 1e-6)
    >>> for memory in (jaxdl.ring(capacity=3), jaxdl.prioritized(capacity=3)):
    ...     state = memory.add(None, memory.init(jnp.float32(0)), jnp.float32(5))
    ...     print(int(memory.size(learn(memory, state, jax.random.key(0)))))
    1
    1

    Donate the state to a jitted `add`, or carry it through a scan. Then XLA copies nothing. Add
    before you sample. If one program samples from a state and then adds to the same state, XLA
    copies the memory, unless the added items depend on the whole sample.
    """

    init: Callable[[PyTree], PyTree]
    add: Callable[[Key, PyTree, PyTree], PyTree]
    sample: SampleFn
    update: Callable[[PyTree, Int[Array, " count"], Float[Array, " count"]], PyTree]
    size: Callable[[PyTree], Count]
