"""Facts about the image sets that jaxdl prepares itself: files, checksums, features, counts.

Versions, addresses, sizes and checksums are those of TFDS 4.9.10. So jaxdl and TFDS prepare the
same data set.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from jaxdl.data.prepare import archives
from jaxdl.data.prepare.archives import Files, Record
from jaxdl.errors import RunError


class File(NamedTuple):
    """A published file: its address, size in bytes and sha256."""

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The file name at the end of the address."""
        return self.url.rsplit("/", 1)[1]


class Source(NamedTuple):
    """All facts that `prepare` needs about a data set.

    `labels`: class-label features and their number of classes. `others`: further features, by name,
    `"text"` or `"int"`. `splits`: examples per split. `per_class`: examples per class, for splits
    in which all classes have the same number. `names(files)`: class names by feature.
    `records(files, split)`: the examples.
    """

    name: str
    version: str
    description: str
    homepage: str
    citation: str
    files: tuple[File, ...]
    image: tuple[int, int, int]
    labels: dict[str, int]
    others: dict[str, str]
    splits: dict[str, int]
    per_class: dict[str, int]
    names: Callable[[Files], dict[str, list[str]]]
    records: Callable[[Files, str], Iterator[Record]]


def check_content(source: Source, files: Files) -> None:
    """Counts the examples per split and per class, and compares the counts with `source`.

    Raises:
        RunError: naming the first split that differs, or the archive that cannot be read.
    """
    names = source.names(files)
    for feature, found in names.items():
        if len(found) != source.labels[feature]:
            raise RunError(
                f"{source.name} has {source.labels[feature]} classes of {feature}, "
                f"but these files name {len(found)}. Fetch the published files again"
            )
    for split, expected in source.splits.items():
        counts = Counter(record["label"] for _, record in source.records(files, split))
        total, per_class = counts.total(), source.per_class.get(split)
        if total != expected:
            raise RunError(
                f"the {split} split of {source.name} has {expected} examples, "
                f"but these files hold {total}. Fetch the published files again"
            )
        for label, count in counts.items():
            if not 0 <= label < source.labels["label"] or count != (per_class or count):
                raise RunError(
                    f"class {label} of the {split} split of {source.name} has {count} examples in "
                    f"these files; expected {per_class or 'no such class'}. Fetch them again"
                )


MNIST = Source(
    name="mnist",
    version="3.0.1",
    description="The MNIST database of handwritten digits.",
    homepage="http://yann.lecun.com/exdb/mnist/",
    citation="Y. LeCun, C. Cortes, C. Burges: MNIST handwritten digit database, 2010.",
    files=tuple(
        File(f"https://storage.googleapis.com/cvdf-datasets/mnist/{name}", size, sha256)
        for name, size, sha256 in (
            (
                "train-images-idx3-ubyte.gz",
                9912422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            (
                "train-labels-idx1-ubyte.gz",
                28881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            (
                "t10k-images-idx3-ubyte.gz",
                1648877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            (
                "t10k-labels-idx1-ubyte.gz",
                4542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        )
    ),
    image=(28, 28, 1),
    labels={"label": 10},
    others={},
    splits={"train": 60_000, "test": 10_000},
    per_class={},
    names=archives.no_names,
    records=archives.mnist_records,
)

CIFAR10 = Source(
    name="cifar10",
    version="3.0.2",
    description="60,000 colour images of 32 x 32 in 10 classes.",
    homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    citation="A. Krizhevsky: Learning multiple layers of features from tiny images, 2009.",
    files=(
        File(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            170052171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
    image=(32, 32, 3),
    labels={"label": 10},
    others={"id": "text"},
    splits={"train": 50_000, "test": 10_000},
    per_class={"train": 5_000, "test": 1_000},
    names=partial(archives.cifar_names, archives.CIFAR10),
    records=partial(archives.cifar_records, archives.CIFAR10),
)

CIFAR100 = Source(
    name="cifar100",
    version="3.0.2",
    description="60,000 colour images of 32 x 32 in 100 classes, which form 20 superclasses.",
    homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    citation="A. Krizhevsky: Learning multiple layers of features from tiny images, 2009.",
    files=(
        File(
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            168513733,
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        ),
    ),
    image=(32, 32, 3),
    labels={"label": 100, "coarse_label": 20},
    others={"id": "text"},
    splits={"train": 50_000, "test": 10_000},
    per_class={"train": 500, "test": 100},
    names=partial(archives.cifar_names, archives.CIFAR100),
    records=partial(archives.cifar_records, archives.CIFAR100),
)

OMNIGLOT = Source(
    name="omniglot",
    version="3.0.0",
    description="1623 handwritten characters of 50 alphabets, each drawn by 20 people.",
    homepage="https://github.com/brendenlake/omniglot/",
    citation=(
        "B. Lake, R. Salakhutdinov, J. Tenenbaum: Human-level concept learning through "
        "probabilistic program induction, Science 350, 2015."
    ),
    files=tuple(
        File(f"https://github.com/brendenlake/omniglot/raw/master/python/{name}", size, sha256)
        for name, size, sha256 in (
            (
                "images_background.zip",
                9464212,
                "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
            ),
            (
                "images_evaluation.zip",
                6462886,
                "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
            ),
            (
                "images_background_small1.zip",
                1319022,
                "f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4",
            ),
            (
                "images_background_small2.zip",
                1580917,
                "3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f",
            ),
        )
    ),
    image=(105, 105, 3),
    labels={"alphabet": 50, "label": 1623},
    others={"alphabet_char_id": "int"},
    splits={"train": 19_280, "test": 13_180, "small1": 2_720, "small2": 3_120},
    per_class={"train": 20, "test": 20, "small1": 20, "small2": 20},
    names=archives.omniglot_names,
    records=archives.omniglot_records,
)

SOURCES = {source.name: source for source in (MNIST, CIFAR10, CIFAR100, OMNIGLOT)}

MADE_FROM = {
    "cifar_10": "cifar10",
    "cifar_100": "cifar100",
    "cifar_fs": "cifar100",
    "cifarfs": "cifar100",
    "fc100": "cifar100",
    "omniglot_maml": "omniglot",
    "omniglot_vinyals": "omniglot",
    "omniglot_alphabets": "omniglot",
    "multimnist": "mnist",
    "permutations": "mnist",
    "rotations": "mnist",
}
"""Other names of data sets, splits and spellings, each with the source that it needs."""
COME_ALONG = {
    "digits": "jaxdl.data.sets.digits.digits_few_shot",
    "numbers": "jaxdl.data.sets.two_digits.numbers_few_shot",
}
"""Data sets that scikit-learn brings, so that nothing is prepared, each with its function."""


def plain(name: str) -> str:
    """A name in the spelling of the tables above: `"CIFAR-FS"` is `"cifar_fs"`."""
    return name.lower().replace("-", "_")
