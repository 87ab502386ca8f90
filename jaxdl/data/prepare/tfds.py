"""TensorFlow Datasets without TensorFlow: prepare image sets, read any prepared set.

Only this file knows TFDS and Grain, and only this file and `decode` know Pillow. All three are
imported inside functions, because cached arrays need none of them.
"""

import io
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jaxdl.data.prepare.cache import Arrays
from jaxdl.data.prepare.decode import decode_image
from jaxdl.data.prepare.fetch import check_network, local_files, workspace
from jaxdl.data.prepare.folder import FORMAT, PathLike, data_folder, find, missing
from jaxdl.data.prepare.sources import Source, check_content
from jaxdl.errors import InputError, RunError, extra

Example = dict[str, Any]
Transform = Callable[[Arrays], Arrays]
CHUNK = 2000  # examples per read; reading one by one is 5 times slower


def _tfds() -> Any:
    """The module, with progress bars on a terminal only: they would fill a log file with megabytes.

    Raises:
        InputError: if it is not installed. Cached arrays that were copied from another machine,
            without the data set itself, do not need it.
    """
    with extra("data"):
        import tensorflow_datasets as tfds

    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    return tfds


# --- Reading -------------------------------------------------------------------------------------


def open_split(directory: Path, split: str) -> tuple[Any, Callable[[Example], Example], Any]:
    """Opens a split of a prepared set: the compressed examples by index, a decoder, and the info.

    Raises:
        InputError: if there is no such split, or if it was prepared in another format.
        RunError: if the files do not hold the recorded number of examples.
    """
    tfds = _tfds()
    try:
        builder = tfds.builder_from_directory(directory)
    except Exception as error:  # TFDS passes on all errors of its JSON and protobuf readers
        raise RunError(
            f"{directory} is no complete TFDS data set ({error}). Delete it and prepare it again"
        ) from error
    features = builder.info.features
    ours = {
        name: feature.shape[-1]
        for name, feature in features.items()
        if isinstance(feature, tfds.features.Image)
        and feature.np_dtype == np.uint8
        and feature.shape[-1] in (1, 3, 4)
    }
    try:
        expected = builder.info.splits[split].num_examples
    except (KeyError, ValueError) as error:
        splits = ", ".join(builder.info.splits)
        raise InputError(f"{directory} has no split {split!r}. Choose from {splits}") from error
    try:
        source = builder.as_data_source(
            split, decoders={name: tfds.decode.SkipDecoding() for name in ours}
        )
    except NotImplementedError as error:
        raise InputError(
            f"{directory} is prepared as {builder.info.file_format.value}, which needs TensorFlow. "
            f"Prepare it again with --file_format={FORMAT}"
        ) from error
    if len(source) != expected:
        raise RunError(
            f"{directory} holds {len(source)} examples of {split} and should hold {expected}. "
            "Delete it and prepare it again"
        )

    def decode(example: Example) -> Example:
        where = f"an image of the {split} split of {directory}"
        images = {
            name: decode_image(example[name], ours[name], f"{where} (feature {name!r})")
            for name in ours
        }
        return {**example, **images}

    return source, decode, builder.info


def read_arrays(directory: Path, split: str, transform: Transform | None = None) -> Arrays:
    """All examples of a split, stacked per feature `[examples, ...]`.

    If a feature `label` has class names, they are in `"label.names"`. `transform` maps chunks of at
    most 2000 stacked examples. So it can shrink big images before they fill the memory.

    Raises:
        InputError: as `open_split` and `decode_image`; or if a feature differs in shape between
            examples.
        RunError: as `open_split`; or if a record cannot be read.
    """
    source, decode, info = open_split(directory, split)
    chunks = []
    for start in range(0, len(source), CHUNK):
        keys = list(range(start, min(start + CHUNK, len(source))))
        try:
            examples = [decode(example) for example in source.__getitems__(keys)]
        except InputError:
            raise
        except Exception as error:  # array_record, protobuf and Pillow raise many types
            raise RunError(
                f"{directory} cannot be read ({error}). Delete it and prepare it again"
            ) from error
        stacked = {name: _stack(name, [e[name] for e in examples]) for name in examples[0]}
        chunks.append(transform(stacked) if transform else stacked)
    arrays = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    for name, feature in info.features.items():
        names = getattr(feature, "names", None)
        if names and name in arrays:
            arrays[f"{name}.names"] = np.array(names)
    return arrays


def _stack(name: str, values: list[Any]) -> np.ndarray:
    try:
        array = np.array(values)
    except ValueError:
        array = np.empty(0, object)
    if array.dtype == object:
        raise InputError(
            f"the feature {name!r} differs in shape from example to example. Read the set by "
            "`jaxdl.data.prepare.tfds.stream` with a transform that makes the shapes equal"
        )
    return array


def stream(
    name: str,
    split: str,
    *,
    batch_size: int,
    seed: int,
    transform: Callable[[Example], Example] | None = None,
    data_dir: PathLike | None = None,
) -> Any:
    """Endless shuffled batches of a prepared set too big for memory, as a `grain.MapDataset`.

    `stream(...)[i]` is the i-th batch, a pure function of `seed` and i. A run that resumes at step
    i asks for batch i, so no iterator state is saved. Each epoch has its own permutation. A batch
    may cross the end of an epoch, so all batches are full. `transform` maps one decoded example (a
    dict of arrays by feature) and may drop features. `.to_iter_dataset()` adds prefetching.

    Raises:
        InputError: if the set is not prepared, or has no such split, or `batch_size` is below 1.
    """
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size} must be at least 1. Choose a larger one")
    folder = data_folder(data_dir)
    path, version = find(name, folder)
    directory = folder / path / version
    if not directory.is_dir():
        raise missing(name, folder)
    with extra("data"):
        import grain
        from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain's workers read absl flags, and nobody parses them
    source, decode, _ = open_split(directory, split)
    examples = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    for function in (decode, transform):
        if function is not None:
            examples = examples.map(function)
    return examples.batch(batch_size)


# --- Preparing -----------------------------------------------------------------------------------


def builder_class(source: Source, sizes_and_hashes: dict[str, tuple[int, str]]) -> Any:
    """A TFDS builder of `source` without TensorFlow, with the features of TFDS's own builder."""
    tfds = _tfds()

    def features() -> Any:
        types = {"text": tfds.features.Text, "int": lambda: np.int64}
        return tfds.features.FeaturesDict({
            "image": tfds.features.Image(shape=source.image, encoding_format="png"),
            **{
                name: tfds.features.ClassLabel(num_classes=classes)
                for name, classes in source.labels.items()
            },
            **{name: types[kind]() for name, kind in source.others.items()},
        })  # fmt: skip

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg, misc, name-defined]
        name = source.name
        VERSION = tfds.core.Version(source.version)
        pkg_dir_path = Path(__file__).parent
        url_infos: ClassVar[dict[str, Any]] = {
            file.url: tfds.core.download.checksums.UrlInfo(
                size=tfds.core.utils.Size(sizes_and_hashes[file.name][0]),
                checksum=sizes_and_hashes[file.name][1],
                filename=file.name,
            )
            for file in source.files
        }

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self,
                description=source.description,
                features=features(),
                supervised_keys=("image", "label"),
                homepage=source.homepage,
                citation=source.citation,
            )

        def _split_generators(self, dl_manager: Any) -> Any:
            paths = dl_manager.download({file.name: file.url for file in source.files})
            files = {name: Path(path) for name, path in paths.items()}
            check_content(source, files)
            for feature, names in source.names(files).items():
                self.info.features[feature].names = names
            return {split: self._generate_examples(files, split) for split in source.splits}

        def _generate_examples(self, files: Any, split: str) -> Any:
            for key, record in source.records(files, split):
                yield key, {**record, "image": _png(record["image"])}

    return Builder


def _png(image: bytes | np.ndarray) -> io.BytesIO:
    with extra("data"):
        from PIL import Image

    if isinstance(image, bytes):
        return io.BytesIO(image)
    file = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[-1] == 1 else image).save(file, format="png")
    file.seek(0)
    return file


def prepare(
    source: Source,
    folder: Path,
    *,
    from_dir: Path | None = None,
    accept_checksum: bool = False,
    finish: Callable[[Path], None] = lambda folder: None,
    say: Callable[[str], None] = print,
) -> None:
    """Prepares `source` as a TFDS set in `folder`, all or nothing, without TensorFlow.

    The publisher's files come from `from_dir`, or from the network. The set is made in a temporary
    data folder. `finish(temporary folder)` may cache arrays there. Then the set and the arrays are
    moved to `folder`.

    Raises:
        InputError: if files are missing, have another checksum, or cannot be reached.
        RunError: if their content is wrong, or the disk is full.
    """
    if from_dir is None:
        if accept_checksum:
            raise InputError(
                "`accept_checksum=True` goes with `from_dir=`: it is about files you have"
            )
        check_network(source)
        known = {file.name: (file.size, file.sha256) for file in source.files}
    else:
        say(f"checking {len(source.files)} files in {from_dir}")
        known = local_files(source, from_dir, accept_checksum)
    writing = f"writing {sum(source.splits.values())} examples"
    with workspace(folder, source.name) as work:
        downloads = folder / "downloads" if from_dir is None else work / "downloads"
        size = sum(file.size for file in source.files) / 2**20
        say(f"downloading {size:.1f} MiB, then {writing}" if from_dir is None else writing)
        _download_and_prepare(builder_class(source, known), work, downloads, from_dir)
        prepared = Path(source.name) / source.version
        for split, expected in source.splits.items():
            count = count_records(work / prepared, split)
            if count != expected:
                raise RunError(
                    f"TFDS kept {count} of the {expected} examples of the {split} split of "
                    f"{source.name}, so nothing was installed. Run the same command again"
                )
        say("decoding them once")
        finish(work)
        # The arrays first, because they alone are enough to run.
        for part in (Path("arrays") / prepared, prepared):
            if (work / part).exists():
                (folder / part).parent.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(folder / part, ignore_errors=True)
                os.replace(work / part, folder / part)


def _download_and_prepare(builder: Any, work: Path, downloads: Path, from_dir: Path | None) -> None:
    tfds = _tfds()
    try:
        with redirect_stdout(io.StringIO()):  # TFDS prints the path of its temporary files
            builder(data_dir=work, file_format=FORMAT).download_and_prepare(
                download_dir=downloads,
                download_config=tfds.download.DownloadConfig(
                    manual_dir=from_dir, try_download_gcs=False
                ),
            )
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:  # TFDS wraps the errors of its builders
            if isinstance(cause, InputError | RunError):
                raise cause from error
            cause = cause.__cause__ or cause.__context__
        raise RunError(
            f"TFDS could not prepare the set ({' '.join(str(error).split())}). Remove the cause,"
            " then run the same command again"
        ) from error


def count_records(directory: Path, split: str) -> int:
    """Counts the records of a split by reading each one, without decoding."""
    tfds = _tfds()
    source = tfds.builder_from_directory(directory).as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    return sum(
        len(source.__getitems__(list(range(start, min(start + CHUNK, len(source))))))
        for start in range(0, len(source), CHUNK)
    )
