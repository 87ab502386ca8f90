"""The same combinations as LibMTL's, of the same gradients, for the methods that its release has.

`scripts/test peers` installs it without its requirements, of which torchvision is large and serves
none of what is compared here.
"""

import importlib.util
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.multitask.cagrad import cagrad
from jaxdl.multitask.dwa import DwaState, dwa
from jaxdl.multitask.equal import equal
from jaxdl.multitask.gradvac import gradvac
from jaxdl.multitask.imtl import imtl
from jaxdl.multitask.mgda import mgda
from jaxdl.multitask.pcgrad import pcgrad
from jaxdl.multitask.uncertainty import UncertaintyState, uncertainty

torch = pytest.importorskip("torch")
if (spec := importlib.util.find_spec("LibMTL")) is None:
    pytest.skip("LibMTL is not installed", allow_module_level=True)

# The package itself imports torchvision; its parts do not.
package = types.ModuleType("LibMTL")
package.__path__ = list(spec.submodule_search_locations)
sys.modules["LibMTL"] = package
weighting = importlib.import_module("LibMTL.weighting")

SGD = optax.sgd(0.1)


def of_libmtl(name, gradients, losses, prepare, **options):
    """What its method makes of the gradients of linear losses."""
    tasks, parameters = gradients.shape

    class Net(getattr(weighting, name), torch.nn.Module):
        """All that a method asks of the net that it is mixed into."""

        def __init__(self):
            torch.nn.Module.__init__(self)
            self.device, self.rep_grad, self.task_num = "cpu", False, tasks
            self.task_name = list(range(tasks))
            self.shared = torch.nn.Parameter(torch.zeros(parameters))

        def get_share_params(self):
            return [self.shared]

        def zero_grad_share_params(self):
            self.shared.grad.zero_()

    net = Net()
    net.init_param()
    prepare(net)
    rows = torch.tensor(gradients, dtype=torch.float32)
    net.backward(rows @ net.shared + torch.tensor(losses, dtype=torch.float32), **options)
    return net.shared.grad.detach().numpy()


def nothing(net):
    """Its methods need no preparation."""


def lifted(net):
    net.rho_T = torch.full((net.task_num, net.task_num), 0.3)


HISTORY = np.array([[1.0, 2.0, 0.5], [0.5, 1.9, 0.6]], np.float32)


def third_epoch(net):
    net.epoch, net.train_loss_buffer = 2, HISTORY.T


LOG_VARIANCES = np.array([-0.5, 0.3, 1.0], np.float32)


def learned(net):
    net.loss_scale.data = torch.tensor(LOG_VARIANCES)


ONES = jnp.ones(3)
CASES = {
    "EW": (3, equal(), None, nothing, {}, 3),
    "UW": (
        3,
        uncertainty(tasks=3, tx=SGD, gaussian=True),
        UncertaintyState(jnp.asarray(LOG_VARIANCES), SGD.init(ONES)),
        learned,
        {},
        1,
    ),
    "DWA": (
        3,
        dwa(tasks=3, every=1, temperature=2.0),
        DwaState(jnp.int32(2), 0 * ONES, jnp.asarray(HISTORY[1]), jnp.asarray(HISTORY[0])),
        third_epoch,
        {"T": 2.0},
        1,
    ),
    "IMTL": (3, imtl(tasks=3, tx=SGD), None, nothing, {}, 1),
    "MGDA": (3, mgda(), None, nothing, {"mgda_gn": "none"}, 1),
    "CAGrad": (3, cagrad(c=0.5), None, nothing, {"calpha": 0.5, "rescale": 0}, 1),
    "PCGrad": (2, pcgrad(), None, nothing, {}, 1),
    "GradVac": (2, gradvac(tasks=2), jnp.full((2, 2), 0.3), lifted, {"beta": 0.5}, 1),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(5))
def test_combines_as_libmtl_does(name, seed):
    tasks, method, state, prepare, options, scale = CASES[name]
    rng = np.random.default_rng(seed)
    gradients = rng.normal(size=(tasks, 8)) * np.exp(0.5 * rng.normal(size=(tasks, 1)))
    losses = rng.uniform(0.5, 2, size=tasks)
    found, _ = method.update(
        jnp.asarray(gradients, jnp.float32),
        method.init(None) if state is None else state,
        losses=jnp.asarray(losses, jnp.float32),
        key=jax.random.key(seed),
    )
    expected = of_libmtl(name, gradients, losses, prepare, **options)
    # Its CAGrad stops where SciPy's solver does, its MGDA after so many Frank-Wolfe steps.
    close = 5e-3 if name in ("CAGrad", "MGDA") else 1e-4
    np.testing.assert_allclose(scale * found, expected, rtol=close, atol=close)
