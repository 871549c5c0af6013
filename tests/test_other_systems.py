"""Macs and Linux on ARM: no /proc or affinity, other names of features, and larger pages."""

import builtins
import ctypes
import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from minillama import env, machine
from minillama.gguf import memory_pages, reader

MAC = {"machdep.cpu.brand_string": b"Apple M1\0", "hw.optional.AdvSIMD": b"\1\0\0\0", "hw.optional.arm.FEAT_FP16":
       b"\1\0\0\0", "hw.optional.arm.FEAT_DotProd": b"\1\0\0\0", "hw.optional.arm.FEAT_I8MM": bytes(4)}  # fmt: skip


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without /proc, /sys, and functions for affinity."""
    opened = builtins.open

    def open_elsewhere(path: object, *args: object, **options: object):  # type: ignore[no-untyped-def]
        if str(path).startswith(("/proc", "/sys")):
            raise FileNotFoundError(path)
        return opened(path, *args, **options)

    monkeypatch.setattr(builtins, "open", open_elsewhere)
    monkeypatch.setattr(sys, "platform", "darwin")
    for name in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(machine, "sysctl", lambda name: MAC.get(name, b""))
    monkeypatch.setattr(machine, "core_ids", dict)


@pytest.mark.usefixtures("mac")
class TestMac:
    def test_description(self) -> None:
        found = machine.describe()
        assert found.cpu == "Apple M1" and found.memory_total is None
        assert found.instruction_sets == ("asimd", "asimddp", "asimdhp")
        assert found.affinity == tuple(range(os.cpu_count() or 1)) and found.physical_cores >= 1

    def test_threads_are_limited_without_affinity(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(env, "backend_started", lambda: False)
        monkeypatch.setattr(env, "_threads", [0, 0])
        env._set_threads(1, 1, 0)
        assert env.thread_limits() == (1, 1)

    def test_weights_are_read_ahead(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """By the advice that macOS knows."""
        calls: list[tuple[object, ...]] = []
        monkeypatch.setattr(memory_pages, "_call", lambda *arguments: calls.append(arguments) or 0)
        whole = np.zeros(100, np.uint8)
        assert list(memory_pages.prefault_pages(whole)) == [100]
        assert calls == [("madvise", whole.ctypes.data, 100, 3)]


def test_numbers_of_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    """`sysctlbyname` fills a buffer and its size."""

    class Library:
        @staticmethod
        def sysctlbyname(name: bytes, value: ctypes.Array, size: object, *_: object) -> int:
            if name != b"hw.optional.arm.FEAT_I8MM":
                return -1
            value[:4], size._obj.value = b"\1\0\0\0", 4
            return 0

    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: Library)
    assert machine.sysctl("hw.optional.arm.FEAT_I8MM") == b"\1\0\0\0"
    assert machine.sysctl("hw.optional.arm.FEAT_SME") == b""


def test_linux_on_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reports no name of the processor, so that its numbers mark the folder of compiled programs."""
    info = {"CPU implementer": "0x41", "CPU part": "0xd40", "Features": "fp asimd asimddp i8mm"}
    monkeypatch.setattr(machine, "_cpuinfo", lambda: info)
    monkeypatch.setattr(sys, "platform", "linux")
    assert machine.cpu_model() == "ARM 0x41 part 0xd40"
    assert machine.cpu_flags() == {"fp", "asimd", "asimddp", "i8mm"}


@pytest.mark.parametrize("page", [4096, 16384, 65536])
def test_pages(page: int, monkeypatch: pytest.MonkeyPatch, builtin_model: Path) -> None:
    """A file that is read starts on a page of the system, as locking it needs."""
    monkeypatch.setattr(mmap, "PAGESIZE", page)
    files = [reader.open_gguf(builtin_model, use_mmap=False) for _ in range(3)]
    arrays = [whole for file in files for whole in file.mapped.values()]
    assert [whole.ctypes.data % page for whole in arrays] == [0] * 3
    arrays += [reader._page_aligned(100_000 + i) for i in range(9)]
    assert not any(whole.ctypes.data % page for whole in arrays)
