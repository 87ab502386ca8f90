"""A run outlives its output: full disks, closed descriptors, readers that leave."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxdl.runs.progress import Progress, say
from jaxdl.runs.streams import Outlived, outlived

ROOT = Path(__file__).resolve().parents[2]
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")


@FULL
def test_what_a_full_disk_does_not_take_is_lost_and_told(monkeypatch):
    with open("/dev/full", "w") as full, open("/dev/full", "w") as log:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "stderr", log)
        with outlived() as out:
            for _ in range(10_000):
                print("a line")
            say("a line of the log")
            progress = Progress(0, 10)
            progress.stepped(1)
            progress.show({"loss": 1.0}, log_point=True)
            sys.stderr.flush()
        assert out.error.strerror == "No space left on device"
        assert sys.stdout is full
        sys.stdout.flush()  # as Python does at its end


@FULL
def test_a_line_of_the_log_never_ends_a_training_outside_of_the_command_line(monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        say("lost")
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
    monkeypatch.setattr(sys, "stderr", None)
    say("lost")
    progress = Progress(0, 10)
    progress.stepped(1)
    progress.show({"loss": 1.0}, log_point=True)


def test_a_reader_of_the_result_who_leaves_is_told_and_one_of_the_log_is_not():
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        print("result", file=Outlived(Gone(), reader_may_go=False))
    print("log", file=Outlived(Gone()))


def test_no_file_takes_the_place_of_a_closed_stream(tmp_path):
    """Else what C++ writes to standard error would land in it."""
    code = (
        "import os, sys\n"
        "from jaxdl.runs.streams import outlived\n"
        "with outlived() as out:\n"
        f"    file = open({str(tmp_path / 'file')!r}, 'w')\n"
        "    print('lost'); print('lost', file=sys.stderr)\n"
        "    os.write(2, b'lost')\n"
        "    file.write('kept')\n"
    )
    command = f'exec "{sys.executable}" -c "$1" <&- >&- 2>&-'
    done = subprocess.run(["bash", "-c", command, "x", code], cwd=ROOT, check=False)
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == "kept"
