"""Limits of a learner's process: memory, files, processes and network.

On Linux a Landlock domain leaves only the scratch folder writable, and a seccomp filter refuses new processes and
Internet sockets. Elsewhere, and on older kernels, the resource limits remain.
"""

import ctypes
import os
import platform
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]
LARGEST_FILE = 64 << 20  # bytes of a file that a learner's code writes
MORE_PROCESSES = 64  # threads and processes of this user beyond those that run already, without a seccomp filter
SET_NO_NEW_PRIVS, SET_SECCOMP, SET_PDEATHSIG, FILTER_MODE = 38, 22, 1, 2  # prctl
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # Landlock's system calls
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
CHANGES = {1: 0x1FF2, 2: 0x2000, 3: 0x4000}  # rights to write, remove and make files, by Landlock's version
SYSTEM_FOLDERS = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/dev", "/proc", "/sys", "/opt")


@dataclass(frozen=True)
class Limits:
    """Limits of one process.

    memory: bytes of address space. processes: whether it may start others, as the check of a kernel does.
    """

    scratch: str
    memory: int
    processes: bool = False


def limit_this_process(limits: Limits) -> None:
    """Apply the limits for good; what the system does not have is left out."""
    end_with_parent()
    _limit_resources(limits)
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    with suppress(OSError):
        _enter_landlock(libc, limits)
    if not limits.processes:
        _refuse_processes(libc)


def landlock_version() -> int:
    """Version of Landlock of this system; 0 without it."""
    if sys.platform != "linux":
        return 0
    return max(0, ctypes.CDLL(None).syscall(CREATE_RULESET, None, 0, 1))


def end_with_parent() -> None:
    """Let the system kill this process when its parent ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _limit_resources(limits: Limits) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, most in (("AS", limits.memory), ("FSIZE", LARGEST_FILE), ("CORE", 0), ("NOFILE", 512)):
        with suppress(OSError, ValueError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
    if hasattr(os, "geteuid") and os.geteuid() and (count := _own_threads()):
        most = count + MORE_PROCESSES  # the system counts all processes and threads of a user; root has no limit
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


def _own_threads() -> int:
    """Threads of this user's processes; 0 if unknown."""
    count = 0
    with suppress(OSError):
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if folder.stat().st_uid == os.getuid():
                    count += len(os.listdir(folder / "task"))
    return count


def _enter_landlock(libc: ctypes.CDLL, limits: Limits) -> None:
    """Read the interpreter and the package, write the scratch folder, and nothing else."""
    if not (version := landlock_version()):
        return
    change = sum(rights for least, rights in CHANGES.items() if version >= least)
    handled = change | EXECUTE | READ_FILE | READ_DIR
    fields = [handled, 3 if version >= 4 else 0, 3 if version >= 6 else 0]  # files; TCP; signals and abstract sockets
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = libc.syscall(CREATE_RULESET, struct.pack("<3Q", *fields), size, 0)
    if ruleset < 0:
        return
    read = READ_FILE | READ_DIR | (EXECUTE if limits.processes else 0)
    for path, rights in _rules(limits, read, change):
        with suppress(OSError):
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            whole = rights if os.path.isdir(path) else rights & (EXECUTE | WRITE_FILE | READ_FILE | 0x4000 & change)
            libc.syscall(ADD_RULE, ruleset, 1, struct.pack("<Qi", whole, place), 0)
            os.close(place)
    libc.syscall(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _rules(limits: Limits, read: int, change: int) -> Iterator[tuple[str, int]]:
    """Paths with the rights on them; the solved labs are not among them."""
    yield limits.scratch, read | change
    yield os.devnull, READ_FILE | WRITE_FILE
    prefixes = {os.path.realpath(folder) for folder in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    for folder in (*SYSTEM_FOLDERS, *prefixes, sys.prefix):
        yield folder, read
    for folder in sys.path:
        is_inside = any(os.path.realpath(folder).startswith(f"{prefix}{os.sep}") for prefix in prefixes)
        yield folder or ".", read if is_inside else READ_DIR
    yield str(PACKAGE), READ_DIR
    for path in PACKAGE.iterdir():
        if path.name != "_labs":
            yield str(path), read
    yield str(PACKAGE.parent / "data"), read


def _refuse_processes(libc: ctypes.CDLL) -> None:
    """Install a seccomp filter: threads start, processes and Internet sockets do not."""
    numbers = {"x86_64": (0xC000003E, 56, (57, 58, 101), 41), "aarch64": (0xC00000B7, 220, (117,), 198)}
    if platform.machine() not in numbers or sys.byteorder != "little":
        return
    architecture, clone, refused, socket = numbers[platform.machine()]
    load, equal, some_bits, at_least, end = 0x20, 0x15, 0x45, 0x35, 0x06
    allow, denied, absent, network = 0x7FFF0000, 0x00050001, 0x00050026, 0x0005000D  # EPERM, ENOSYS, EACCES
    tests = [
        (load, 0, 0, 4), (equal, 1, 0, architecture), (end, 0, 0, denied),
        (load, 0, 0, 0), (at_least, 0, 1, 0x40000000), (end, 0, 0, denied),  # x32
        (equal, 0, 1, 435), (end, 0, 0, absent),  # clone3: the C library then calls clone
        *(part for number in refused for part in ((equal, 0, 1, number), (end, 0, 0, denied))),
        (equal, 0, 4, clone), (load, 0, 0, 16), (some_bits, 0, 1, 0x10000), (end, 0, 0, allow), (end, 0, 0, denied),
        (equal, 0, 4, socket), (load, 0, 0, 16), (equal, 1, 0, 2), (equal, 0, 1, 10), (end, 0, 0, network),
        (end, 0, 0, allow),
    ]  # fmt: skip
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *test) for test in tests))
    program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(tests), ctypes.addressof(code)))
    libc.prctl(SET_SECCOMP, FILTER_MODE, program, 0, 0)
