"""One measurement at a time, and whether the machine does something else: with real processes."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from minillama import env
from minillama.cli.output.exclusive_measurement import exclusive_measurement
from minillama.errors import ResourceError
from minillama.measure.host import other_load as other_load_module
from minillama.measure.host.measurement_lock import machine_lock
from minillama.measure.host.other_load import OtherLoad, load_warning, other_load

HOLDER = """\
import sys
from minillama.measure.host.measurement_lock import machine_lock
with machine_lock("somebody"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINILLAMA_LOCK_FILE", str(tmp_path / "lock"))


@contextmanager
def holder() -> Iterator[subprocess.Popen]:
    """Another process that holds the lock until its stdin ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLDER], **pipes) as process:
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_one_waits_and_says_for_whom() -> None:
    lines: list[str] = []

    def told(line: str) -> None:
        lines.append(line)
        process.stdin.close()  # now the other one ends

    with holder() as process, machine_lock("test", on_wait=told):
        assert process.wait(10) == 0
    assert len(lines) == 1 and lines[0].startswith("waiting for another measurement on this machine: somebody, process")
    assert str(process.pid) in lines[0]


def test_the_time_to_wait_ends() -> None:
    with (
        holder(),
        pytest.raises(ResourceError, match=r"another measurement runs on this machine \(somebody.* after 0 s"),
        machine_lock("test", timeout=0.0),
    ):
        raise AssertionError("not reached")


def test_a_killed_process_holds_nothing() -> None:
    with holder() as process:
        process.kill()
        process.wait(10)
        with machine_lock("test", timeout=5.0):
            assert env.lock_file().read_text().startswith(f"test, process {os.getpid()}, since ")
    with machine_lock("again", timeout=0.0):
        assert env.lock_file().read_text().startswith("again, ")


def test_one_within_another_holds_it_already() -> None:
    with machine_lock("outer", timeout=0.0):
        with machine_lock("inner", timeout=0.0):
            assert env.lock_file().read_text().startswith("outer, ")
        with pytest.raises(ResourceError, match="another thread of this process"), ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: machine_lock("thread", timeout=0.3).__enter__()).result()


@pytest.mark.skipif(sys.platform == "win32", reason="modes and links of POSIX")
def test_all_users_may_write_it_and_none_may_set_a_trap(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with machine_lock("test"):
            assert env.lock_file().stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(before)
    env.lock_file().unlink()
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for make in (os.symlink, os.link):
        make(precious, env.lock_file())
        with machine_lock("test", timeout=0.0):
            assert precious.read_text() == "mine"
        env.lock_file().unlink()


def test_the_name_of_the_holder_is_printable() -> None:
    lines: list[str] = []

    def told(line: str) -> None:
        lines.append(line)
        process.stdin.close()

    with holder() as process:
        env.lock_file().write_text("\x1b[31mred" + "x" * 10_000)
        with machine_lock("test", on_wait=told):
            pass
    assert lines[0].endswith(r"\x1b[31mred" + "x" * (120 - 8))


def test_without_a_place_nothing_is_locked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in ("", str(tmp_path / "file" / "lock")):
        monkeypatch.setenv("MINILLAMA_LOCK_FILE", place)
        with machine_lock("test", timeout=0.0):
            pass
    monkeypatch.delenv("MINILLAMA_LOCK_FILE")
    assert env.lock_file() == Path(tempfile.gettempdir()) / "minillama-measuring.lock"


def spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_own_work_is_not_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's seconds are pretended, the own ones are real."""
    seconds = [100.0, 100.5]
    monkeypatch.setattr(other_load_module, "_busy_seconds", lambda: seconds.pop(0))
    monkeypatch.setattr(other_load_module.os, "cpu_count", lambda: 2)
    load = OtherLoad()
    started, own = time.perf_counter(), sum(os.times()[:2])
    spin(0.2)
    expected = (0.5 - (sum(os.times()[:2]) - own)) / (2 * (time.perf_counter() - started))
    assert load.share() == pytest.approx(min(max(expected, 0), 1), abs=0.1)


def test_another_process_is_seen() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) as process:
        share = other_load(0.5)
        process.kill()
    assert 0.4 / os.cpu_count() < share <= 1  # it may have had to share its core


def test_only_what_disturbs_is_said() -> None:
    assert load_warning(0.05, "now") is None
    assert load_warning(0.5, "now") == (
        "other processes used 50 % of the CPU cores now; the measured speeds are too low"
    )


def test_commands_say_it_before_and_after(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(other_load_module, "other_load", lambda: 0.3)
    monkeypatch.setattr(other_load_module.OtherLoad, "share", lambda self: 0.6)
    with exclusive_measurement("test", lock=True, timeout=0.0):
        pass
    out, err = capsys.readouterr()
    now, during = err.splitlines()
    assert out == "" and "30 % of the CPU cores now" in now and "60 % of the CPU cores during" in during
