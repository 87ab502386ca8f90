"""The texts that `jaxdl new learner` fills in: a learner, its test, its row, a program."""

LEARNER = '''"""{title}: say what it learns and how (authors and year, arXiv:...).

The template is MAML with a learned rate. Change `init`, `adapt` and
`predict`. Give a `grad` of your own if the meta-gradient is not the gradient of the query loss.
"""

import jax
import jax.numpy as jnp

{imports}


{signature}
    """{title}.

    Args:
        inner_lr: First value of the learned rate.
        inner_steps: Gradient steps in a task.
    """
    del ways  # the number of classes; a learner with prototypes needs it
    value = {nouns}objective(model, loss)

    def init(key, x):
        return {{"net": model.init(key, x), "rate": jnp.float32(inner_lr)}}

    def adapt(key, params, support, steps=None):
        net = params["net"]
        for _ in range(inner_steps if steps is None else steps):
            grads, _ = jax.grad(value, has_aux=True)(net, None, support)
            net = jax.tree.map(lambda leaf, grad: leaf - params["rate"] * grad, net, grads)
        return net

    def predict(adapted, x, *, key=None, weight=None):
        return model.apply(adapted, x, key=key, weight=weight)

    grad = {nouns}through_adaptation(adapt, predict, loss)
    return {nouns}MetaLearner(init, adapt, predict, grad)
'''

TYPED = (
    ("def init(key, x):", "def init(key: Key, x: PyTree) -> Params:"),
    (
        "def adapt(key, params, support, steps=None):",
        "def adapt(key: Key, params: Params, support: PyTree, steps: int | None = None) -> Params:",
    ),
    (
        "def predict(adapted, x, *, key=None, weight=None):",
        "def predict(\n        adapted: Params, x: PyTree, *, key: Key | None = None,"
        " weight: Weight | None = None\n    ) -> PyTree:",
    ),
)
"""What the rooms of jaxdl have and a first sketch does not need: the types of inner functions."""

TEST = '''"""{title}: an answer that you can compute by hand, and that a wrong formula misses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl
{imports}

KEY = jax.random.key(0)


def test_it_learns_a_task():
    """The support set itself is classified, after a few steps."""
    learner = {name}(jaxdl.mlp((16, 3)), jaxdl.cross_entropy, ways=3)
    x, y = 3 * jnp.eye(3), jnp.arange(3)
    params = learner.init(KEY, x)
    adapted = learner.adapt(KEY, params, jaxdl.Batch(x, y), 20)
    assert learner.predict(adapted, x).argmax(axis=1).tolist() == [0, 1, 2]


def padded(batch):
    """The same examples, and as many of weight 0, which must count for nothing."""
    x = jnp.concatenate([batch.x, jnp.full_like(batch.x, jnp.nan)])
    y = jnp.concatenate([batch.y, jnp.zeros_like(batch.y)])
    return jaxdl.Batch(x, y, jnp.repeat(jnp.array([1.0, 0.0]), len(batch.x)))


def test_what_holds_for_every_learner():
    """Gradients are finite and look like the parameters. Two equal tasks with padding are the one
    without: leave this out if the learner draws random numbers in a task."""
    learner = {name}(jaxdl.mlp((8, 3)), jaxdl.cross_entropy, ways=3)
    x, y = jax.random.normal(KEY, (6, 4)), jnp.arange(6) % 3
    task = jaxdl.Episode(jaxdl.Batch(x, y), jaxdl.Batch(x + 0.1, y))
    params = learner.init(KEY, x)
    grads, _ = learner.grad(KEY, jnp.int32(0), params, task)
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))

    two = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), jaxdl.Episode(*map(padded, task)))
    again, _ = jaxdl.over_tasks(learner.grad)(KEY, jnp.int32(0), params, two)
    for one, other in zip(jax.tree.leaves(grads), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-6)


def test_the_meta_gradient_is_that_of_finite_differences():
    """On a net of one weight. Its outputs w x serve as logits, and as an embedding. Change this
    if the meta-gradient of the learner is another one, as Reptile's is."""
    model = jaxdl.Model(
        lambda key, x: jnp.float32(0.5),
        lambda params, x, *, key=None, weight=None: params * x,
    )
    learner = {name}(model, jaxdl.cross_entropy, ways=2)
    support = jaxdl.Batch(jnp.array([[2.0, 0.5], [1.0, -1.0]]), jnp.array([0, 1]))
    query = jaxdl.Batch(jnp.array([[1.5, 0.0], [0.5, 1.0], [1.0, 2.0]]), jnp.array([0, 1, 1]))
    params = learner.init(KEY, support.x)
    grads, metrics = learner.grad(KEY, jnp.int32(0), params, jaxdl.Episode(support, query))

    def loss(params):
        adapted = learner.adapt(KEY, params, support)
        return jaxdl.cross_entropy(learner.predict(adapted, query.x), query.y)[0]

    leaves, structure = jax.tree.flatten(params)
    for i, found in enumerate(jax.tree.leaves(grads)):
        up, down = (
            jax.tree.unflatten(structure, [v + d * (j == i) for j, v in enumerate(leaves)])
            for d in (1e-2, -1e-2)
        )
        np.testing.assert_allclose(found, (loss(up) - loss(down)) / 2e-2, rtol=1e-2)
    np.testing.assert_allclose(metrics["loss"], loss(params), rtol=1e-5)


def test_the_answer_by_hand():
    """Replace it: write the numbers of the paper's formula for a case small enough for paper."""
    pytest.fail("write what {name} must give, and compare")
'''

ROW = '    Row("{name}", partial({name}, ways=WAYS), drops=False),\n'

PROGRAM = """\
import jax, jaxdl, optax
from {name} import {name}
images, labels, _ = jaxdl.numbers_few_shot("train")
sample = jaxdl.few_shot(images, labels, ways=5, shots=1, queries=5)
learner = {name}(jaxdl.conv4_omniglot(5), jaxdl.cross_entropy, ways=5)
options = {{"tx": optax.adam(0.001), "steps": 500, "tasks": 8, "key": jax.random.key(0)}}
params, history = jaxdl.fit(learner, sample, **options, report=print)
"""
"""What trains a learner that lies outside a clone."""
