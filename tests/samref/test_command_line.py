"""samref.command_line: output that cannot be written ends no work, and what the system refuses is one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from samref.command_line import refusal

COMMAND = """
import sys
from samref.command_line import command

@command
def main(arguments):
    for number in range(3):
        print("θ × \\udce9", number, flush=True)
    open("done", "w").close()
    open(arguments[0]).close()
    return 0

sys.exit(main(sys.argv[1:]))
"""


def start(
    folder: Path, prefix: str = "", suffix: str = "", reads: str = os.devnull
) -> subprocess.CompletedProcess[str]:
    """Run the command in a shell that does something to its standard output; its work is the file `done`."""
    line = f'{prefix} "$0" -c "$1" {reads} {suffix}'
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line, sys.executable, COMMAND], cwd=folder, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("prefix", "suffix", "code", "said"),
    [
        ("", "| true", 0, ""),
        ("", "| head -1 > /dev/null", 0, ""),
        ("", ">&-", 0, ""),
        ("", ">&- 2>&-", 0, ""),
        ("", "> /dev/full", 74, "warning: standard output could not be written: No space left on device\n"),
        ("", "> /dev/full 2>&1", 74, ""),
    ],
)
def test_output_that_cannot_be_written_ends_no_work(
    tmp_path: Path, prefix: str, suffix: str, code: int, said: str
) -> None:
    ended = start(tmp_path, prefix, suffix)
    assert (tmp_path / "done").exists()
    assert (ended.returncode, ended.stderr) == (code, said)


def test_what_an_encoding_does_not_know_is_escaped(tmp_path: Path) -> None:
    assert start(tmp_path, "PYTHONIOENCODING=ascii").stdout.splitlines()[0] == "\\u03b8 \\xd7 \\udce9 0"
    assert start(tmp_path, "PYTHONIOENCODING=utf-8").stdout.splitlines()[0] == "θ × \\udce9 0"


@pytest.mark.parametrize("name", ["nowhere/file", "x" * 600])
def test_what_the_system_refuses_is_one_line(tmp_path: Path, name: str) -> None:
    ended = start(tmp_path, reads=name)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: {name}: ")


def test_a_working_folder_that_was_removed_is_named_as_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(OSError) as caught:
        Path.cwd()
    assert refusal(caught.value) == "the working folder was removed; change into one that is there"


def test_a_command_s_process_ends_with_its_code_after_what_is_to_be_done_and_collects_nothing() -> None:
    ended = """
import atexit, sys
atexit.register(print, "at exit")
class Loud:
    def __del__(self): print("collected")
loud = Loud()
from samref.command_line import command
sys.argv[0] = "/bin/samref-toy"
sys.exit(command(lambda arguments: 7)())
"""
    done = subprocess.run([sys.executable, "-c", ended], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (7, "at exit\n", "")
