"""The table of supervised classification: MNIST, MNIST row by row, CIFAR-10."""

from typing import Any

from experiments.tables.stored import results_of
from experiments.tables.values import Cells
from jaxdl.report import tables

NETS = {
    "mnist tutorial": "MNIST: one hidden layer, SGD",
    "mnist mlp": "MNIST: dense net",
    "mnist cnn": "MNIST: convolutional net",
    "lstm": "MNIST row by row: LSTM",
    "gru": "MNIST row by row: GRU",
    "rnn": "MNIST row by row: plain RNN",
    "cifar10 lenet": "CIFAR-10: LeNet, the tutorial's recipe",
}
"""The nets by row, or by cell, with their titles."""


def classifiers(mnist: str) -> Cells:
    """Accuracy in training and test, in percent. Cells share a run, and so its time."""
    yield ["net", "train", "test, ± over seeds", "by seed", "steps", "time", "row"]
    for table in (mnist, "sequences", "cifar10"):
        for row, result in results_of(table).items():
            run, title = result["run"], NETS.get(f"{table} {row}", "")
            shared = [
                f"{run['steps']:,}",
                f"{run['wall_seconds']:.0f} s",
                f"`{table} {row}`",
            ]
            for cell, found in result.get("cells", {}).items():
                yield [NETS[cell], "", *_test(found["accuracy"]), *shared]
                shared = [shared[0], "", ""]
            if "test" in result:
                train = tables.interval(result["train"]["accuracy"], scale=100)
                yield [title, train, *_test(result["test"]["accuracy"]), *shared]


def _test(accuracy: dict[str, Any]) -> list[str]:
    return [
        tables.interval(accuracy, scale=100),
        tables.by_seed(accuracy, scale=100),
    ]
