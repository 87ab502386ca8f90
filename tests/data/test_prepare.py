import os
import subprocess
import sys

import pytest

from jaxdl.data import prepare
from jaxdl.data.sources import SOURCES
from tests.data import publishers


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
        (["cifar10", "--accept-checksum"], 2, "--accept-checksum goes with --from"),
        (["mnist", "--from", "{tmp}/files"], 2, "--accept-checksum"),
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


def test_the_command_line_starts_without_the_heavy_packages():
    script = (
        "import sys\n"
        "from jaxdl.data import prepare\n"
        "try:\n"
        "    prepare.main(['--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "print([n for n in ('jax', 'tensorflow_datasets', 'PIL', 'grain') if n in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "--accept-checksum" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
