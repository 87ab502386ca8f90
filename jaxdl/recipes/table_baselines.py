"""Classifiers of scikit-learn beside which the tabular learner is judged."""

from collections.abc import Callable
from typing import Any

from jaxdl.errors import extra

BASELINES = {
    "logistic_regression": "logistic regression",
    "random_forest": "random forest",
    "knn": "k-NN",
    "gradient_boosting": "gradient boosting",
}
"""The classifiers with their titles."""


def baseline(name: str, seed: int) -> Any:
    """One of `BASELINES` with the defaults of scikit-learn, and its random numbers by `seed`.

    Logistic regression and k-NN get standardised columns, because their defaults are made for such.

    >>> type(baseline("random_forest", 0)).__name__
    'RandomForestClassifier'

    Raises:
        InputError: without scikit-learn.
    """
    with extra("data"):
        from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    make: dict[str, Callable[[], Any]] = {
        "logistic_regression": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
        "random_forest": lambda: RandomForestClassifier(random_state=seed),
        "knn": lambda: make_pipeline(StandardScaler(), KNeighborsClassifier()),
        "gradient_boosting": lambda: GradientBoostingClassifier(random_state=seed),
    }
    return make[name]()
