"""Metric learners as easyfsl has them: the same predictions, and gradients by the embedding.

`scripts/test peers` installs it without its requirements, of which torchvision is large and serves
none of what is compared here. Where easyfsl departs from a paper, its scores are converted, and a
comment says how.
"""

import importlib
import importlib.util
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.losses import cross_entropy
from jaxdl.meta.matchingnet import matchingnet
from jaxdl.meta.protonet import protonet
from jaxdl.meta.relationnet import RelationParams, relationnet
from jaxdl.meta.simpleshot import simpleshot
from jaxdl.models.mlp import mlp
from jaxdl.types import Batch, Episode, Model

torch = pytest.importorskip("torch")
if importlib.util.find_spec("easyfsl") is None:
    pytest.skip("easyfsl is not there: scripts/test peers does that", allow_module_level=True)

# The packages themselves import torchvision; the methods do not.
for folder in ("methods", "modules"):
    package = types.ModuleType(f"easyfsl.{folder}")
    (place,) = importlib.util.find_spec("easyfsl").submodule_search_locations
    package.__path__ = [f"{place}/{folder}"]
    sys.modules[package.__name__] = package
nets = types.ModuleType("easyfsl.modules.predesigned_modules")
nets.default_matching_networks_support_encoder = None
nets.default_matching_networks_query_encoder = None
nets.default_relation_module = None
sys.modules[nets.__name__] = nets

INPUTS, HIDDEN, WIDTH, WAYS = 6, 7, 5, 3


def of_easyfsl(module, name):
    return getattr(importlib.import_module(f"easyfsl.methods.{module}"), name)


def episode(shape=(INPUTS,)):
    """Two examples of the first class, three of the second, one of the third; 9 queries."""
    rng = np.random.default_rng(0)
    support = Batch(rng.normal(size=(6, *shape)), np.array([0, 1, 2, 1, 0, 1]))
    return Episode(support, Batch(rng.normal(size=(9, *shape)), np.arange(9) % WAYS))


def embedding():
    """Two dense layers with relu between them, as `mlp`."""
    torch.manual_seed(0)
    first, second = torch.nn.Linear(INPUTS, HIDDEN), torch.nn.Linear(HIDDEN, WIDTH)
    return torch.nn.Sequential(first, torch.nn.ReLU(), second).double()


def array(tensor):
    return tensor.detach().numpy().astype(float)


def as_params(tensors):
    k0, b0, k1, b1 = map(array, tensors)
    return {"Dense_0": {"kernel": k0.T, "bias": b0}, "Dense_1": {"kernel": k1.T, "bias": b1}}


def scores_of(classifier, task, dtype=torch.float64):
    support, query = task
    classifier.process_support_set(torch.tensor(support.x, dtype=dtype), torch.tensor(support.y))
    return classifier(torch.tensor(query.x, dtype=dtype))


def backward(logits, task):
    torch.nn.functional.cross_entropy(logits, torch.tensor(task.query.y)).backward()
    return array(logits)


def by_jaxdl(learner, params, task, *, train=True):
    with jax.enable_x64(True):
        params, task = jax.tree.map(jnp.asarray, (params, task))

        @jax.jit
        def run(params):
            adapted = learner.adapt(jax.random.key(0), params, task.support)
            logits = learner.predict(adapted, task.query.x)
            if not train:
                return logits
            return logits, learner.grad(jax.random.key(0), jnp.int32(0), params, task)[0]

        return jax.tree.map(np.asarray, run(params))


def assert_same(found, expected, tolerance=1e-9):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for part, wanted in zip(found, expected, strict=True):
        size = max(np.abs(leaf).max() for leaf in jax.tree.leaves(wanted))
        assert size > 1e-3, "nothing would be compared"
        for one, other in zip(jax.tree.leaves(part), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * size)


def test_prototypical_networks():
    """Its scores are minus the distances, and the paper's are minus their squares."""
    task, net = episode(), embedding()
    classifier = of_easyfsl("prototypical_networks", "PrototypicalNetworks")(net)
    logits = backward(-(scores_of(classifier, task) ** 2), task)
    learner = protonet(mlp((HIDDEN, WIDTH)), cross_entropy, ways=WAYS)
    found = by_jaxdl(learner, as_params(net.parameters()), task)
    assert_same(found, (logits, as_params(p.grad for p in net.parameters())))


class Zeros(torch.nn.Module):
    """In place of the LSTMs of full-context embeddings: it adds nothing to the features."""

    def forward(self, x, state=None):
        if state is None:
            return torch.zeros(1, x.shape[1], 2 * x.shape[2]), None
        return torch.zeros_like(state[0]), state[1]


class Unit(torch.nn.Module):
    """easyfsl brings only the support features to length 1, and the paper the queries, too."""

    def forward(self, x):
        return torch.nn.functional.normalize(x)


def test_matching_networks():
    """In float32, as its labels are, and up to the 1e-6 that it adds to each probability."""
    task, net = episode(), embedding().float()
    classifier = of_easyfsl("matching_networks", "MatchingNetworks")(
        torch.nn.Sequential(net, Unit()),
        feature_dimension=WIDTH,
        support_encoder=Zeros(),
        query_encoder=Zeros(),
    )
    logits = backward(scores_of(classifier, task, torch.float32), task)
    learner = matchingnet(mlp((HIDDEN, WIDTH)), cross_entropy, ways=WAYS)
    found = by_jaxdl(learner, as_params(net.parameters()), task)
    assert_same(found, (logits, as_params(p.grad for p in net.parameters())), 1e-4)


MAPS, UNITS = 4, 5


def test_relation_networks():
    """With a module of one 1x1 convolution, so that the pairs are what is compared."""
    task = episode((3, 2, 2))
    torch.manual_seed(0)
    embed = torch.nn.Conv2d(3, MAPS, 1)
    relate = [torch.nn.Conv2d(2 * MAPS, UNITS, 1), torch.nn.Linear(UNITS, 1)]
    pool = [torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    classifier = of_easyfsl("relation_networks", "RelationNetworks")(
        torch.nn.Sequential(embed, torch.nn.Tanh()),
        feature_dimension=MAPS,
        relation_module=torch.nn.Sequential(relate[0], *pool, relate[1]),
    ).double()
    logits = backward(scores_of(classifier, task), task)

    def params_of(part):
        (k0, b0), (k1, b1), (k2, b2) = (
            (array(part(layer.weight)).reshape(len(layer.weight), -1).T, array(part(layer.bias)))
            for layer in (embed, *relate)
        )
        return RelationParams((k0, b0), (k1, b1, k2, b2))

    def embed_apply(params, x, *, key=None, weight=None):
        return jnp.tanh(x @ params[0] + params[1])

    def relate_apply(params, x, *, key=None, weight=None):
        k1, b1, k2, b2 = params
        return jax.nn.relu(x @ k1 + b1).mean((1, 2)) @ k2 + b2

    learner = relationnet(
        Model(None, embed_apply), cross_entropy, ways=WAYS, module=Model(None, relate_apply)
    )
    last = Episode(*(part._replace(x=np.moveaxis(part.x, 1, -1)) for part in task))
    with jax.numpy_rank_promotion("allow"):
        found = by_jaxdl(learner, params_of(lambda p: p), last)
    assert_same(found, (logits, params_of(lambda p: p.grad)))


def test_simpleshot():
    """Its scores are cosines to the class means, and the paper's are minus squared distances."""
    task, net = episode(), embedding()
    mean = np.random.default_rng(2).normal(size=WIDTH)
    classifier = of_easyfsl("simple_shot", "SimpleShot")(
        net, feature_centering=torch.tensor(mean), feature_normalization=2.0
    )
    cosines = array(scores_of(classifier, task))
    lengths = np.linalg.norm(array(classifier.prototypes), axis=1)
    expected = 2 * cosines * lengths - 1 - lengths**2
    learner = simpleshot(mlp((HIDDEN, WIDTH)), cross_entropy, classes=WAYS, ways=WAYS)
    params = learner.init(jax.random.key(0), jnp.ones((2, INPUTS)))
    params = params._replace(
        net=params.net._replace(features=as_params(net.parameters())), mean=mean
    )
    assert_same(by_jaxdl(learner, params, task, train=False), expected)
