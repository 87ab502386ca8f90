"""jaxdl: meta-learning and deep learning in JAX.

The names of this module are the library's public face: each keeps its name, its arguments and its
meaning, or is deprecated first (CONTRIBUTING.md). A name is imported when it is first asked for, so
`import jaxdl` costs nothing; `__init__.pyi` tells type checkers and editors what there is.

    >>> import jaxdl
    >>> jaxdl.cross_entropy.__module__
    'jaxdl.losses'
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Where each name lives; `__init__.pyi` says the same to type checkers, and a test compares them.
_FACE = {
    "errors": "InputError RunError",
    "types": (
        "Batch Cells Embedding Episode Example GradFn LossFn MetaLearner Model Replay Sample "
        "Sampler Shard StatefulModel StepFn Stream TrainState TransferLearner"
    ),
    "losses": "Normal counted cross_entropy gaussian_nll mean_squared_error weighted_mean",
    "grads": "objective of_loss over_devices over_microbatches over_tasks supervised",
    "optim.lookahead": "lookahead with_slow",
    "optim.transfer": "only unfreezing with_new_head",
    "models.layers.norm": "BatchNorm",
    "models.linen": "pure stateful without_stats",
    "models.conv4": "conv4_omniglot conv4_pooled",
    "models.convnet": "convnet",
    "models.lenet": "lenet",
    "models.mlp": "mlp",
    "models.nnx": "pure_nnx",
    "models.process": "normal",
    "models.recurrent": "Sequences gru lstm rnn",
    "models.resnet": "resnet18",
    "models.resnet12": "resnet12",
    "models.torch_weights": "load_torch_weights",
    "data.duplicates": "cross_split_duplicates drop_duplicates",
    "data.episodes": "few_shot",
    "data.groups": "grouped",
    "data.epochs": "epochs",
    "data.examples": "examples",
    "data.meta_dataset": "meta_dataset_few_shot",
    "data.sets.completion": "completion",
    "data.sets.digits": "digits_few_shot",
    "data.sets.gp": "gp",
    "data.sets.images": "few_shot_arrays image_arrays",
    "data.sets.sinusoid": "sinusoid",
    "data.sets.tables": "tables",
    "data.sets.two_digits": "numbers_few_shot",
    "replay.nstep": "n_step",
    "replay.prioritized": "prioritized",
    "replay.uniform": "reservoir ring",
    "meta.anil": "anil",
    "meta.anp": "anp",
    "meta.base": "evaluate through_adaptation",
    "meta.boil": "boil",
    "meta.canp": "canp",
    "meta.cavia": "cavia",
    "meta.baseline_pp": "baseline_pp",
    "meta.cnp": "cnp",
    "meta.convcnp": "convcnp",
    "meta.es_maml": "es_maml",
    "meta.evolution": "es_estimator es_grad es_query_grad",
    "meta.feature_mean": "averaging_mean",
    "meta.finetune": "finetune",
    "meta.hypergradient": "hypergradient minimise",
    "meta.imaml": "imaml",
    "meta.estimators": "exact first_order mixed_mode rematerialised",
    "meta.memory": "auto segmented",
    "meta.inner": "descend",
    "meta.linear_probe": "linear_probe",
    "meta.lnp": "lnp",
    "meta.lstm_learner": "lstm_learner",
    "meta.maml": "fomaml maml",
    "meta.maml_pp": "maml_pp",
    "meta.meta_curvature": "meta_curvature",
    "meta.meta_sgd": "meta_sgd",
    "meta.nearest_centroid": "nearest_centroid",
    "meta.matchingnet": "matchingnet",
    "meta.metaoptnet": "metaoptnet",
    "meta.proto_maml": "proto_maml",
    "meta.pfn": "pfn",
    "meta.protonet": "protonet",
    "meta.r2d2": "r2d2",
    "meta.raw_logistic": "raw_logistic",
    "meta.rates": "scale_by_rates",
    "meta.reptile": "reptile",
    "meta.solvers": "conjugate_gradients neumann",
    "meta.rfs": "rfs",
    "meta.relation_error": "relation_error",
    "meta.relationnet": "relationnet",
    "meta.simpleshot": "simpleshot",
    "meta.snail": "snail",
    "meta.support_statistics": "by_support_statistics",
    "meta.tabular": "tabular",
    "meta.tnp_d": "tnp_d",
    "multitask.gradients": "multitask_step task_grads",
    "multitask.pcgrad": "pcgrad",
    "multitask.sharing": "hard_sharing",
    "continual.er": "er",
    "continual.ewc": "ewc",
    "rl.dqn": "dqn",
    "report.intervals": "Interval",
    "train.evaluation": "predict_all",
    "train.feed": "HostStream",
    "train.loop": "copy_state loop per_seed",
    "train.steps": "init_state init_states make_step supervised_step",
    "train.streams": "run_keys task_stream",
    "runs.cli": "command_line",
    "runs.config": "RunFlags",
    "runs.run": "Run open_run",
    "runs.stored": "load_best",
    "runs.weights": "export_weights load_weights",
    "recipes.loaded": "LoadedRun load_run",
    "recipes.fit": "Fitted fit",
    "recipes.score": "score",
    "recipes.tabular_classifier": "TabularClassifier",
}
_HOMES = {name: f"jaxdl.{module}" for module, names in _FACE.items() for name in names.split()}

__all__ = sorted(["__version__", *_HOMES])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxdl' has no attribute {name!r}: see dir(jaxdl)")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
