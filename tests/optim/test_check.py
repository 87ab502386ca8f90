"""What is no optimiser, as a user gives it."""

import optax
import pytest

from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.meta.finetune import finetune
from jaxdl.meta.maml import maml
from jaxdl.models.mlp import mlp
from jaxdl.optim.check import check_tx

NET = mlp((3,))


@pytest.mark.parametrize(
    ("tx", "words"),
    [
        (optax.adam, r"`tx=` is the function adam. Call it: adam\(0.001\), say"),
        (0.1, r"`tx=0.1` is no optimiser. Give a transformation of Optax"),
        (None, r"`tx=None` is no optimiser"),
    ],
)
def test_it_is_refused_wherever_it_is_given(tx, words):
    for use in (
        check_tx,
        lambda tx: maml(NET, cross_entropy, tx=tx, steps=1),
        lambda tx: finetune(NET, cross_entropy, classes=3, ways=2, tx=tx, steps=1),
    ):
        with pytest.raises(InputError, match=words):
            use(tx)


def test_optimisers_pass():
    for tx in (optax.adam(0.1), optax.chain(optax.clip(1.0), optax.sgd(0.1)), optax.lbfgs()):
        check_tx(tx)
