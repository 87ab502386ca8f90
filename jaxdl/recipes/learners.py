"""The learners of the command line: `--learner NAME`, or `--learner path/to/mine.py:my_learner`.

A learner is a function `(model: Model, loss: LossFn, *, ways: int, **own) -> MetaLearner`. Each of
its `own` keyword arguments has an annotation and a default, and is a flag. Annotate the first
argument as `Embedding` to get a net whose outputs are features; `Model` has `ways` outputs.

A function that returns a `TransferLearner` trains on labelled examples of all training classes. It
may take `classes: int`, their number.
"""

from collections.abc import Callable

from jaxdl.meta.anp import anp
from jaxdl.meta.canp import canp
from jaxdl.meta.cnp import cnp
from jaxdl.meta.convcnp import convcnp
from jaxdl.meta.lnp import lnp
from jaxdl.meta.lstm_learner import lstm_learner
from jaxdl.meta.matchingnet import matchingnet
from jaxdl.meta.metaoptnet import metaoptnet
from jaxdl.meta.pfn import pfn
from jaxdl.meta.protonet import protonet
from jaxdl.meta.simpleshot import simpleshot
from jaxdl.meta.snail import snail
from jaxdl.meta.tnp_d import tnp_d
from jaxdl.recipes import gradient_learners as gradient
from jaxdl.recipes import labelled_learners as labelled
from jaxdl.recipes.metric_learners import r2d2, r2d2_of_curves, relationnet
from jaxdl.recipes.process_learners import of_means
from jaxdl.runs.keywords import with_defaults
from jaxdl.types import (
    MetaLearner,
    TransferLearner,
)

AnyLearner = MetaLearner | TransferLearner
Make = Callable[..., AnyLearner]
KNOWN = ("ways", "classes")
"""Keyword arguments that the experiment gives, and no flag."""
LEARNERS: dict[str, Make] = {
    "maml": gradient.maml,
    "fomaml": gradient.fomaml,
    "anil": gradient.anil,
    "boil": gradient.boil,
    "meta_sgd": gradient.meta_sgd,
    "meta_curvature": gradient.meta_curvature,
    "maml_pp": gradient.maml_pp,
    "es_maml": gradient.es_maml,
    "imaml": gradient.imaml,
    "reptile": gradient.reptile,
    "proto_maml": gradient.proto_maml,
    "protonet": protonet,
    "matchingnet": matchingnet,
    "relationnet": relationnet,
    "r2d2": r2d2,
    "metaoptnet": metaoptnet,
    "lstm_learner": lstm_learner,
    "snail": snail,
    "pfn": pfn,
    "finetune": labelled.finetune,
    "linear_probe": labelled.linear_probe,
    "baseline_pp": labelled.baseline_pp,
    "rfs": labelled.rfs,
    "simpleshot": simpleshot,
}
"""The learners of classification by their names on the command line. Add yours here."""
_BY_MEANS: dict[str, Callable[..., MetaLearner]] = {
    "cnp": cnp,
    "canp": canp,
    "lnp": lnp,
    "anp": anp,
    "tnp_d": tnp_d,
}
REGRESSORS: dict[str, Make] = {
    "maml": gradient.maml_of_curves,
    "fomaml": gradient.fomaml_of_curves,
    "anil": gradient.anil_of_curves,
    "meta_sgd": gradient.meta_sgd,
    "meta_curvature": gradient.meta_curvature_of_curves,
    "maml_pp": gradient.maml_pp_of_curves,
    "es_maml": gradient.es_maml_of_curves,
    "cavia": gradient.cavia_of_curves,
    "imaml": gradient.imaml_of_curves,
    "reptile": gradient.reptile_of_curves,
    "r2d2": r2d2_of_curves,
    "lstm_learner": lstm_learner,
    **{name: of_means(process) for name, process in _BY_MEANS.items()},
}
"""The learners of regression. `ways` is the number of the net's outputs."""
PROCESSES: dict[str, Make] = {
    **_BY_MEANS,
    "convcnp": convcnp,
    "maml": gradient.maml_of_curves,
}
"""The learners of regression that predict a mean and a scale, a `Normal`."""
COMPLETERS: dict[str, Make] = {**_BY_MEANS, "tnp_d": with_defaults(tnp_d, least_scale=0.1)}
"""The learners that complete pictures. All have the same least scale, so that they compare."""
TAKEN = (
    *LEARNERS,
    *PROCESSES,
    "gp",
    "mean_picture",
    "nearest_pixel",
    "untrained",
    "pretrained",
    "nearest_centroid",
    "nearest_centroid_cosine",
    "raw_logistic",
    "support_mean",
    "config",
    "run",
)
"""Names in a result that are no own learner."""
