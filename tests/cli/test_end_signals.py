"""Ctrl-C and SIGTERM at any moment of a command: the status, no traceback, no unfinished file."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minillama import start_guard
from minillama.cli.output.terminal import Interrupt

# Send a signal at the first line of the import of a module, given by its position among all imports.
AT_IMPORT = """
import os, sys
number, left = int(sys.argv[1]), int(sys.argv[2])
class Finder:
    def find_spec(self, name, path=None, target=None):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), number)
sys.argv[:3] = ["minillama"]
import minillama
sys.meta_path.insert(0, Finder())
from minillama.cli import entry
entry()
"""
RUN = ["run", "-p", "Once", "-n", "-1", "--ignore-eos", "--context-shift"]  # without an end
both_signals = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


def run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *words]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)


def ended(status: int, number: int) -> bool:
    """True for the status of a signal, from the command or, before it starts, from the system."""
    return status in (128 + number, -number)


@both_signals
@pytest.mark.parametrize(
    "position",
    [*(pytest.param(n, marks=pytest.mark.slow) for n in (*range(1, 100, 5), *range(100, 700, 60))), 7, 60, 400],
)
def test_during_imports(number: signal.Signals, position: int) -> None:
    done = run(AT_IMPORT, str(int(number)), str(position), *RUN)
    assert ended(done.returncode, number) and done.stderr.strip() == ""


WRITING = """
import sys, time
from pathlib import Path
from minillama.atomic_file import atomic_write
from minillama.cli import entry, synth
sys.argv[0] = "minillama"
def write(args):
    with atomic_write(args.output) as file:
        file.write(b"x" * 10000)
        print("writing", flush=True)
        {then}
    raise AssertionError
synth.run = write
entry()
"""


@both_signals
@pytest.mark.parametrize("then", ["time.sleep(60)", "import module_that_waits", "while True: pass"])
def test_while_a_file_is_written(tmp_path: Path, number: signal.Signals, then: str) -> None:
    (tmp_path / "module_that_waits.py").write_text("import time\nwhile True: time.sleep(0.01)")
    out = tmp_path / "out"
    out.write_text("the old content")
    command = [sys.executable, "-c", WRITING.format(then=then), "synth", "tiny", "-o", str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"writing\n"
        assert list(tmp_path.glob(".out.*"))
        process.send_signal(number)
        assert process.wait(20.0) == 128 + number
        assert process.stderr.read().strip() == b""
    assert not list(tmp_path.glob(".out.*")) and out.read_text() == "the old content"


LOST = """
import os, sys, time
from minillama.cli import entry, synth
sys.argv[0] = "minillama"
class Object:
    def __del__(self):
        os.kill(os.getpid(), {number})
def run(args):
    Object()
    time.sleep(60)
synth.run = run
entry()
"""


@both_signals
def test_an_exception_that_python_drops_is_raised_again(number: signal.Signals) -> None:
    done = run(LOST.format(number=int(number)), "synth", "tiny")
    assert done.returncode == 128 + number and done.stderr.strip() == ""


SLOW_START = """
import threading, time
start, slow = threading.Timer.start, [True]
def slowly(timer):
    start(timer)
    if slow.pop() if slow else False:
        time.sleep(1)
threading.Timer.start = slowly
"""


@both_signals
def test_an_exception_that_is_dropped_twice(number: signal.Signals) -> None:
    """The signal is repeated while the first one is still being looked at, as on a machine that is very busy."""
    done = run(SLOW_START + LOST.format(number=int(number)), "synth", "tiny")
    assert done.returncode == 128 + number and done.stderr.strip() == ""


CONVERTED = """
import os, signal, sys
from minillama.cli import entry, synth
from minillama.errors import ResourceError
sys.argv[0] = "minillama"
def run(args):
    try:
        signal.raise_signal({number})
    except BaseException as error:
        raise {error}("the library has failed") from error
synth.run = run
entry()
"""


@both_signals
@pytest.mark.parametrize("error", ["RuntimeError", "ResourceError"])
def test_an_error_after_a_signal_is_the_signal(number: signal.Signals, error: str) -> None:
    done = run(CONVERTED.format(number=int(number), error=error), "synth", "tiny")
    assert done.returncode == 128 + number and done.stderr.strip() == ""


def test_nohup() -> None:
    """Where Ctrl-C is ignored at the start, it stays ignored."""
    program = AT_IMPORT.replace("import os, sys", "import os, sys, signal; signal.signal(2, signal.SIG_IGN)")
    done = run(program, str(int(signal.SIGINT)), "100", "tokenize", "-p", "hi")
    assert done.returncode == 0 and done.stderr == ""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            signal.raise_signal(signal.SIGINT)
        assert not interrupt.requested and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize(
    ("argv", "original", "command"),
    [
        (["-m"], ["python", "-m", "minillama", "run"], True),
        (["-m"], ["python", "-X", "dev", "-m", "minillama"], True),
        (["-m"], ["python", "-m", "minillama.lab.build"], False),
        (["-m"], ["python", "-m", "pytest"], False),
        (["/usr/bin/minillama", "run"], ["python", "/usr/bin/minillama"], True),
        (["script.py", "minillama"], ["python", "script.py"], False),
        ([""], ["python"], False),
        ([], [], False),
    ],
)
def test_only_the_command_changes_signals(
    argv: list[str], original: list[str], command: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", original)
    assert start_guard._is_command() == command


@both_signals
@pytest.mark.parametrize("first", [0, 1])
def test_at_many_moments(number: signal.Signals, first: int) -> None:
    """From the start of Python, about 0.1 s, to the middle of the answer; every other moment of fifty."""
    command = [sys.executable, "-m", "minillama", *RUN]
    problems = []
    for moment in range(first, 50, 2):
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            while not Path(f"/proc/{process.pid}/maps").read_text().count("/lib-dynload/") and process.poll() is None:
                time.sleep(0.002)  # Python itself is not ready
            time.sleep(0.04 * moment)
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        if not ended(process.returncode, number) or "Traceback" in errors or "ignored" in errors:
            problems.append(f"{0.04 * moment:.2f} s: status {process.returncode}: {errors[-300:]}")
    assert not problems, "\n".join(problems)
