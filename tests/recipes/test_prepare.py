import os
from typing import get_args, get_type_hints

import pytest

from experiments import continual, few_shot, limited_data, transfer
from jaxdl.data.prepare.sources import COME_ALONG, MADE_FROM, SOURCES
from jaxdl.recipes import prepare
from jaxdl.recipes.own_data import OWN
from tests.data.prepare import publishers


def run(capsys, *arguments):
    code = prepare.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_prepare_makes_a_set_ready_with_its_arrays_and_does_it_once(tmp_path, monkeypatch, capsys):
    source, _ = publishers.mnist(tmp_path / "files")
    monkeypatch.setitem(SOURCES, "mnist", source)
    command = ["mnist", "--from", tmp_path / "files", "--data-dir", tmp_path / "data"]
    code, out, err = run(capsys, *command)
    assert (code, err) == (0, "")
    assert f"mnist is ready in {tmp_path / 'data' / 'mnist' / '3.0.1'}" in out
    arrays = tmp_path / "data" / "arrays" / "mnist" / "3.0.1"
    assert sorted(os.listdir(arrays)) == ["test.npz", "train.npz"]
    (arrays / "test.npz").unlink()
    code, out, _ = run(capsys, *command)
    assert code == 0
    assert "is ready" in out
    assert sorted(os.listdir(arrays)) == ["test.npz", "train.npz"]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["svhn_cropped"], 2, "tfds build svhn_cropped --file_format=array_record"),
        (["mnist", "--from", "{tmp}/nowhere"], 2, "has no train-images-idx3-ubyte.gz"),
        (["cifar10", "--accept-checksum"], 2, "--accept-checksum goes with --from: it is"),
        (["mnist", "--from", "{tmp}/files"], 2, "repeat it with --accept-checksum, which"),
        (["mnist", "--from", "{tmp}/files", "--accept-checksum"], 1, "60000 examples"),
    ],
)
def test_a_mistake_is_one_sentence_and_an_exit_code(tmp_path, capsys, arguments, code, sentence):
    publishers.mnist(tmp_path / "files")
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    found, _, err = run(capsys, *arguments, "--data-dir", tmp_path / "data")
    assert found == code
    assert err.startswith("error: ")
    assert sentence in err
    assert err.count("\n") == 1


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path, capsys):
    publishers.mnist(tmp_path / "files")
    (tmp_path / "file").write_text("")
    found, _, err = run(
        capsys, "mnist", "--from", tmp_path / "files", "--accept-checksum",
        "--data-dir", tmp_path / "file" / "data",
    )  # fmt: skip
    assert found == 1
    assert err.startswith("error: cannot write the data folder")
    assert err.count("\n") == 1


@pytest.fixture
def asked(monkeypatch):
    """The names of the sources that were to be prepared, in place of preparing them."""
    names = []
    monkeypatch.setattr(prepare, "prepare", lambda source, **options: names.append(source.name))
    return names


@pytest.mark.parametrize(
    ("typed", "source"),
    [
        ("cifar_fs", "cifar100"),
        ("CIFAR-FS", "cifar100"),
        ("fc100", "cifar100"),
        ("cifar-100", "cifar100"),
        ("omniglot_vinyals", "omniglot"),
        ("rotations", "mnist"),
    ],
)
def test_the_name_of_what_is_made_from_a_set_prepares_that_set_and_says_so(
    asked, capsys, typed, source
):
    code, out, err = run(capsys, typed)
    assert (code, err, asked) == (0, "", [source])
    assert out == f"{typed} is made from {source}: preparing {source}\n"


def test_another_spelling_of_a_name_is_the_same_name(asked, capsys):
    assert run(capsys, "MNIST") == (0, "", "")
    assert asked == ["mnist"]


@pytest.mark.parametrize("name", ["numbers", "digits"])
def test_what_comes_with_scikit_learn_is_ready(asked, tmp_path, capsys, name):
    code, out, err = run(capsys, name, "--data-dir", tmp_path / "data")
    assert (code, err, asked) == (0, "", [])
    assert out == f"{name} is ready: its drawings come with scikit-learn\n"
    assert not (tmp_path / "data").exists()


def names_of(hint):
    """The values of a Literal, or of a union of some."""
    for each in get_args(hint):
        yield from [each] if isinstance(each, str) else names_of(each)


CHOICES = {
    name
    for module in (continual, few_shot, limited_data, transfer)
    for name in names_of(get_type_hints(module.Config)["data"])
} - set(OWN)


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_whatever_an_experiment_takes_as_data_can_be_prepared_by_its_name(asked, capsys, name):
    assert run(capsys, name)[0] == 0


def test_a_name_that_stands_for_another_leads_to_a_source():
    assert set(MADE_FROM.values()) <= set(SOURCES)
    assert not MADE_FROM.keys() & (SOURCES.keys() | set(COME_ALONG))


def test_cifar_fs_is_ready_after_its_own_name_was_typed(tmp_path, monkeypatch, capsys):
    source, _ = publishers.cifar(tmp_path / "files", fine=True)
    monkeypatch.setitem(SOURCES, "cifar100", source)
    code, out, err = run(
        capsys, "cifar_fs", "--from", tmp_path / "files", "--data-dir", tmp_path / "data"
    )
    assert (code, err) == (0, "")
    assert out.startswith("cifar_fs is made from cifar100: preparing cifar100\n")
    assert (tmp_path / "data" / "arrays" / "cifar100" / "3.0.2" / "train.npz").exists()
