"""What each side says about itself before they work together: versions that must be the same, machine, cores."""

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


@dataclass(frozen=True)
class Identity:
    """One side. network: the same for processes that reach each other over loopback; port: free for a coordinator."""

    minillama: str
    jax: str
    python: str
    machine: str
    network: str
    cores: int
    threads: int = 0  # that the worker was started with; 0: the leader chooses
    platform: str = ""  # the same: cpu, cuda or tpu
    port: int = 0

    @property
    def versions(self) -> str:
        """What has to agree, in words."""
        return f"minillama {self.minillama}, jax {self.jax}, python {self.python}"

    def message(self) -> Message:
        return Message("hello", asdict(self))


def local_identity(*, threads: int = 0, platform: str = "", port: int = 0) -> Identity:
    """This process; JAX is not imported for it."""
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
    """The identity in a message; raises FormatError naming the sender."""
    kinds = {field.name: field.type for field in fields(Identity)}
    values = message.values
    if message.op != "hello" or set(values) != set(kinds):
        raise FormatError(f"{name} does not say what it is")
    for key, kind in kinds.items():
        value = values[key]
        if type(value) is not kind or (kind is str and len(str(value)) > 200):
            raise FormatError(f"{name} says {value!r:.40} of its {key}")
    return Identity(**values)  # type: ignore[arg-type]


def _python() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def _network() -> str:
    """Processes in one container share its network, and others of the machine do not."""
    try:
        return os.readlink("/proc/self/ns/net") if sys.platform == "linux" else ""
    except OSError:
        return socket.gethostname()


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
