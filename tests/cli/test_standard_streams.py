"""Commands whose standard streams are closed, full, or a broken pipe."""

import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from minillama.cli.output.standard_streams import MessageBuffer, OutputBuffer, OutputError

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")

ENTRY = "import sys; sys.argv[0] = 'minillama'; from minillama.cli import entry; entry()"
# A command, and whether all it writes comes at its end.
QUICK = {
    "help": ["--help"],
    "inspect": ["inspect", "--metadata"],
    "tokenize": ["tokenize", "-p", "hi"],
}
SLOW = {
    "version": ["--version"],
    "json": ["inspect", "--json"],
    "run": ["run", "-p", "hi", "-n", "2"],
    "raw": ["run", "-no-cnv", "-p", "hi", "-n", "2", "--color", "on"],
    "cli": ["cli", "-st", "-p", "hi", "-n", "2"],
    "simple": ["simple", "hi", "-n", "2"],
    "doctor": ["doctor"],
    "bench": ["bench", "-p", "8", "-n", "2", "-r", "1"],
    "latency": ["latency", "-p", "8", "-n", "2", "-r", "1", "--no-cold"],
    "perplexity": ["perplexity", "-p", "A word. " * 100, "-c", "32", "--chunks", "2"],
    "quality": ["quality", "-p", "Once", "-n", "4", "--samples", "2"],
    "synth": ["synth", "tiny", "--force", "-o", "tiny.gguf"],
}
COMMANDS = [
    *(pytest.param(words, id=name) for name, words in QUICK.items()),
    *(pytest.param(words, id=name, marks=pytest.mark.slow) for name, words in SLOW.items()),
]
every_command = pytest.mark.parametrize("words", COMMANDS)


def run(words: list[str], redirection: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a command with the shell's redirection, such as `>&-`."""
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-c", ENTRY, *words]
    return subprocess.run(shell, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=300, check=False)


@every_command
@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_a_stdout_that_cannot_be_written(tmp_path: Path, words: list[str], redirection: str) -> None:
    done = run(words, redirection, tmp_path)
    reason = "Bad file descriptor" if redirection == ">&-" else "No space left on device"
    last = done.stderr.decode().splitlines()[-1]
    assert (done.returncode, last) == (2, f"minillama: error: cannot write to stdout: {reason}")
    assert b"Traceback" not in done.stderr and b"ignored" not in done.stderr


@every_command
def test_a_broken_pipe(tmp_path: Path, words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        command = [sys.executable, "-c", ENTRY, *words]
        done = subprocess.run(command, cwd=tmp_path, stdout=pipe, stderr=subprocess.PIPE, timeout=300, check=False)
    assert done.returncode == 141
    assert b"rror" not in done.stderr and b"Traceback" not in done.stderr


@every_command
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&-"])
def test_other_streams_do_not_matter(tmp_path: Path, words: list[str], redirection: str) -> None:
    done = run(words, redirection, tmp_path)
    assert done.returncode == 0 and done.stdout
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["tokenize", "--stdin"], pytest.param(["run"], marks=pytest.mark.slow)])
def test_no_text_on_stdin(tmp_path: Path, command: list[str]) -> None:
    done = run(command, "<&-", tmp_path)
    error = b"minillama: error: cannot read stdin (Bad file descriptor); give the text with -p or -f\n"
    assert (done.returncode, done.stderr) == (2, error)


@pytest.mark.slow
def test_a_chat_ends_where_stdin_is_closed(tmp_path: Path) -> None:
    done = run(["cli", "-p", "hi", "-n", "2"], "<&-", tmp_path)
    assert done.returncode == 0 and done.stdout and b"Traceback" not in done.stderr


def test_all_three_closed(tmp_path: Path) -> None:
    """No file that the command opens gets the number of a standard stream."""
    assert run(["inspect"], "<&- >&- 2>&-", tmp_path).returncode == 2


def test_messages_are_dropped() -> None:
    with MessageBuffer(io.FileIO("/dev/full", "w")) as full:
        assert full.write(b"12345") == 5
        full.flush()
        assert full.write(b"x" * 100_000) == 100_000
    with MessageBuffer(io.FileIO(os.open(os.devnull, os.O_RDONLY), "w")) as closed:
        assert closed.write(b"123") == 3


@pytest.mark.parametrize("size", [5, 100_000])
def test_an_error_of_stdout_is_raised_once(size: int) -> None:
    with OutputBuffer(io.FileIO("/dev/full", "w")) as full:
        with pytest.raises(OutputError, match="cannot write to stdout: No space left on device"):
            full.write(b"x" * size)
            full.flush()
        full.write(b"x" * size)
        full.flush()


def test_a_full_pipe_that_does_not_block() -> None:
    """Programs such as ssh make a shared pipe non-blocking; then writing waits here."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    received = []

    def read() -> None:
        time.sleep(0.05)
        while block := os.read(reading, 1 << 16):
            received.append(block)
        os.close(reading)

    reader = threading.Thread(target=read)
    reader.start()
    text = bytes(range(256)) * 2000
    with OutputBuffer(io.FileIO(writing, "w")) as file:
        for start in range(0, len(text), 9000):
            file.write(text[start : start + 9000])
    reader.join()
    assert b"".join(received) == text


REPEATED = """
import os, signal, sys, threading
from minillama.cli import entry, synth
sys.argv[0] = "minillama"
def run(args):
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    number = 0
    while True:
        print(number, flush=True)
        print(number, file=sys.stderr)
        number += 1
synth.run = run
entry()
"""


def test_ctrl_c_repeats_no_text(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        command = [sys.executable, "-c", REPEATED, "synth", "tiny"]
        assert subprocess.run(command, stdout=out, stderr=err, timeout=60, check=False).returncode == 130
    for name in ("out", "err"):
        lines = (tmp_path / name).read_text().split()
        assert len(lines) > 100 and lines == [str(number) for number in range(len(lines))]
