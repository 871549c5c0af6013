"""Identity that leader and worker exchange: versions, machine and cores."""

import os
import platform
import socket
import sys
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from minillama import __version__, env
from minillama.errors import FormatError
from minillama.parallel.workers.wire import Message

_MOST = (1 << 16) - 1  # a port, and cores


@dataclass(frozen=True)
class Identity:
    """Versions and machine of a leader or a worker.

    network: equal for processes that reach each other over loopback.
    threads, platform: as the worker was started; 0 and empty let the leader choose. platform is cpu, cuda or tpu.
    port: a free port for the coordinator.
    """

    minillama: str
    jax: str
    python: str
    machine: str
    network: str
    cores: int
    threads: int = 0
    platform: str = ""
    port: int = 0

    @property
    def versions(self) -> str:
        """Versions that leader and worker must share, as text."""
        return f"minillama {self.minillama}, jax {self.jax}, python {self.python}"

    def message(self) -> Message:
        return Message("hello", asdict(self))


def local_identity(*, threads: int = 0, platform: str = "", port: int = 0) -> Identity:
    """Identity of this process; does not import JAX."""
    machine = _first_line("/proc/sys/kernel/random/boot_id") or socket.gethostname()
    try:
        jax = version("jax")
    except PackageNotFoundError:
        jax = "missing"
    return Identity(
        __version__,
        jax,
        _python(),
        machine,
        f"{machine} {_network()}",
        len(env.allowed_cores()),
        threads,
        platform,
        port,
    )


def parse_identity(message: Message, name: str) -> Identity:
    """Parse the identity in a message; raises FormatError naming the sender."""
    kinds = {field.name: field.type for field in fields(Identity)}
    values = message.values
    if message.op != "hello" or set(values) != set(kinds):
        raise FormatError(f"{name} has sent no valid identity")
    for key, kind in kinds.items():
        value = values[key]
        is_good = 0 <= value <= _MOST if type(value) is int else len(str(value)) <= 200 and str(value).isprintable()
        if type(value) is not kind or not is_good:
            raise FormatError(f"{name} has sent {value!r:.40} as its {key}")
    return Identity(**values)  # type: ignore[arg-type]


def _python() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def _network() -> str:
    """Network namespace of this process: a container has its own."""
    try:
        return os.readlink("/proc/self/ns/net") if sys.platform == "linux" else ""
    except OSError:
        return socket.gethostname()


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
