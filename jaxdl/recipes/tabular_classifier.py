"""`TabularClassifier`: a trained net of tabular, in scikit-learn's conventions."""

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped
from numpy.typing import ArrayLike

from jaxdl.errors import InputError, damaged, extra, in_short
from jaxdl.files import leaves
from jaxdl.files.atomic import read_json
from jaxdl.files.paths import whole_path
from jaxdl.models.torch_weights import fitting
from jaxdl.recipes.loaded import LoadedRun
from jaxdl.recipes.tabular import OWN, classify, learner_of_tables, optimiser, probabilities
from jaxdl.runs.identity import recorded_config
from jaxdl.runs.keywords import fits
from jaxdl.runs.recorded import CONFIG
from jaxdl.runs.stored import load_last
from jaxdl.runs.weights import load_weights
from jaxdl.train.loop import per_seed
from jaxdl.train.steps import init_states
from jaxdl.train.streams import run_keys
from jaxdl.types import Array, Params, TrainState

LARGEST = 4096
"""The most that a size of a net is here, such as its width."""


class TabularClassifier:
    """A classifier of tables that a run of the experiment tabular has trained.

    It has scikit-learn's conventions, and works in its pipelines and cross-validations. `fit`
    stores the rows, and takes no steps. A missing number is NaN. A prediction is the mean over
    `members` orders of the columns and of the classes.

        classifier = jaxdl.TabularClassifier("results/tabular/tabular.npz").fit(x, y)
        probabilities = classifier.predict_proba(other)  # [m, classes]

    A clone of jaxdl has this file of weights. Your own training gives the directory of a run, such
    as `runs/tabular/...`, or a file of `export_weights`. The configuration of a file is in the JSON
    file of the same name beside it: a copy of the run's result.json.

    Args:
        run: the directory of the run, or a file of its weights.
        seed: which of the seeds that trained in the run, from 0. A file holds one net: 0.
        members: how many orders there are.
        random_state: the seed of the orders.

    Attributes:
        classes_: the classes in y, sorted.
        n_features_in_: the columns of x.

    >>> import jaxdl
    >>> jaxdl.TabularClassifier("runs/tabular/none", members=4)
    TabularClassifier(run='runs/tabular/none', members=4)
    """

    _estimator_type = "classifier"

    def __init__(
        self,
        run: Path | str | None = None,
        *,
        seed: int = 0,
        members: int = 8,
        random_state: int = 0,
    ) -> None:
        # As scikit-learn asks: what is given is stored as it is, and checked in `fit`.
        self.run, self.seed, self.members, self.random_state = run, seed, members, random_state

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments by name."""
        del deep  # no argument is an estimator
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> "TabularClassifier":
        """Sets arguments.

        Raises:
            InputError: for another name.
        """
        for name, value in params.items():
            if name not in self.get_params():
                raise InputError(
                    f"Invalid parameter {name!r} for estimator {self}. Choose among"
                    f" {', '.join(self.get_params())}"
                )
            setattr(self, name, value)
        return self

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        defaults = inspect.signature(type(self)).parameters
        given = self.get_params().items()
        shown = [f"{name}={value!r}" for name, value in given if value != defaults[name].default]
        return f"{type(self).__name__}({', '.join(shown)})"[:N_CHAR_MAX]

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks of an estimator."""
        with extra("data"):
            from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags
        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(allow_nan=True),
        )

    def __sklearn_is_fitted__(self) -> bool:
        """Whether `fit` was called."""
        return hasattr(self, "classes_")

    def fit(self, X: ArrayLike, y: ArrayLike) -> "TabularClassifier":
        """Stores rows `[n, columns]` and their classes `[n]`, and loads the net.

        Raises:
            InputError: if `run` is no run or file of tabular, or has no such seed; if the JSON file
                beside a file is missing or is of another net; if the net was trained for fewer
                columns or classes; or without scikit-learn, which checks the arrays.
            RunError: if the run or the configuration of the file is damaged.
            ValueError: for arrays that no classifier takes.
        """
        with extra("data"):
            from sklearn.utils.multiclass import check_classification_targets
            from sklearn.utils.validation import validate_data
        x, labels = validate_data(self, X, y, dtype=np.float64, ensure_all_finite="allow-nan")
        check_classification_targets(labels)
        loaded = loaded_tables(self.run, self.seed)
        if self.members < 1:
            raise InputError(f"members={self.members} is no ensemble. Choose at least 1")
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        self._rows = x, numbers
        self._loaded = loaded.params, {name: loaded.config[name] for name in (*OWN, "classes")}
        self._answer(x[:1])  # refuses too many columns or classes
        return self

    def predict_proba(self, X: ArrayLike) -> Shaped[np.ndarray, "m classes"]:
        """The probability of each of `classes_` for rows `[m, columns]`.

        Raises:
            ValueError: for other columns than in `fit`, or before `fit` (NotFittedError).
        """
        with extra("data"):
            from sklearn.utils.validation import check_is_fitted, validate_data
        check_is_fitted(self)
        options = {"dtype": np.float64, "ensure_all_finite": "allow-nan", "reset": False}
        return self._answer(validate_data(self, X, **options))

    def predict(self, X: ArrayLike) -> Shaped[np.ndarray, " m"]:
        """The most likely class for rows `[m, columns]`."""
        found = self.predict_proba(X)
        return self.classes_[np.argmax(found, axis=1)]

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """The share of rows whose class is predicted.

        Args:
            y: the classes `[m]`, or one column of them `[m, 1]`, as in `fit`.

        Raises:
            ValueError: if there are not as many.
        """
        with extra("data"):
            from sklearn.metrics import accuracy_score
        return float(accuracy_score(np.ravel(y), self.predict(X)))

    def _answer(self, x: Any) -> Shaped[np.ndarray, "m classes"]:
        params, config = self._loaded
        answer = partial(classify, predict_of(**config), params, config)
        found = answer(*self._rows, x, seed=self.random_state, members=self.members)
        return found / found.sum(axis=1, keepdims=True)


@lru_cache(maxsize=8)
def predict_of(**config: int) -> Callable[..., Array]:
    """The compiled prediction of a net of these sizes."""
    return probabilities(learner_of_tables(config))


def loaded_tables(run: Path | str | None, seed: int = 0) -> LoadedRun:
    """The learner and the last parameters of a run of tabular, or those of a file of weights.

    Raises:
        InputError: if it is no such run or file, or has stored nothing yet, or has no such seed; if
            the JSON file beside a file of weights is missing or has no configuration of tabular, or
            is of a net with other shapes.
        RunError: if it is damaged.
    """
    if run is None:
        raise InputError(
            "TabularClassifier needs a trained net. Give `run`, a directory or a file of weights"
        )
    path = whole_path(run, "run")
    is_file = path.is_file() or (path.suffix == ".npz" and not path.is_dir())
    return _of_file(path, seed) if is_file else _of_run(path, seed)


def _of_run(run: Path, seed: int) -> LoadedRun:
    config = recorded_config(run)
    if not config.keys() >= {*OWN, "classes", "least_shots", "seeds"}:
        raise InputError(f"{run} is a run of another experiment. Give one of tabular")
    _check_sizes(run / CONFIG, config, ("seeds", "least_shots"))
    if not 0 <= seed < config["seeds"]:
        raise InputError(f"{run} has no `seed={seed}`: choose one from 0 to {config['seeds'] - 1}")
    learner, x = learner_of_tables(config), jnp.zeros((2, config["features"]))

    def start() -> TrainState:
        keys, tx = run_keys(0, config["seeds"]), optimiser({"steps": 1} | config)
        return init_states(lambda key: learner.init(key, x), keys, tx)

    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(start))
    return LoadedRun(learner, per_seed(load_last(run, zeros).params)[seed], config)


def _of_file(path: Path, seed: int) -> LoadedRun:
    if path.suffix != ".npz":
        raise InputError(f"{path} is no file of weights. Give a .npz, or the directory of a run")
    arrays, config = load_weights(path).arrays, _config_beside(path)
    if seed != 0:
        raise InputError(f"{path} has no `seed={seed}`, because it holds one net. Choose `seed=0`")
    learner, x = learner_of_tables(config), jnp.zeros((2, config["features"]))
    like = {"params": jax.eval_shape(learner.init, jax.random.key(0), x)}
    places, structure = jax.tree_util.tree_flatten_with_path(like)
    wanted = {leaves.name(leaves.path_of(keys)): leaf for keys, leaf in places}
    for name in sorted(wanted.keys() | arrays.keys()):
        there, here = (of[name].shape if name in of else "absent" for of in (arrays, wanted))
        if there != here:
            raise InputError(
                f"{path} is of another net than {path.stem}.json beside it: {name} is {there} in"
                f" the weights and {here} by the configuration. Take both from one run"
            )
    found = [
        fitting(arrays[name], leaf.dtype, f"{name} of {path}") for name, leaf in wanted.items()
    ]
    params: Params = jax.tree.unflatten(structure, found)["params"]
    return LoadedRun(learner, params, config)


def _config_beside(weights: Path) -> dict[str, Any]:
    """The configuration of a file of weights, from the JSON file of the same name."""
    path = weights.with_suffix(".json")
    if not path.is_file():
        raise InputError(
            f"{weights} has no configuration beside it: there is no {path.name}. Copy the"
            " result.json of its run there"
        )
    found = read_json(path).get("config")
    config = found if isinstance(found, dict) else {}
    for name in (*OWN, "classes"):
        if not fits(config.get(name), int):
            raise InputError(
                f"{path} has no configuration of tabular: the whole number `{name}` is missing."
                " Give weights of a run of tabular, with its result.json beside them"
            )
    _check_sizes(path, config)
    return config


def _check_sizes(path: Path, config: Mapping[str, Any], others: tuple[str, ...] = ()) -> None:
    """Refuses sizes of a net that are no whole numbers from 1 to `LARGEST`."""
    for name in (*OWN, "classes", *others):
        if not (fits(config[name], int) and 0 < config[name] <= LARGEST):
            raise damaged(path, f"{name} is {in_short(repr(config[name]))}")
