"""Parsing of worker addresses: `10.0.0.2:50052,node3,[fe80::2]:50053`."""

import socket
from contextlib import ExitStack
from dataclasses import dataclass

from minillama.errors import OptionError

DEFAULT_PORT = 50052
MAX_WORKERS = 16


@dataclass(frozen=True)
class Address:
    """Host and port on which a worker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return format_address(self.host, self.port)


def free_ports(count: int, host: str = "") -> list[int]:
    """Distinct ports that are free now on a local address.

    host: the address; empty for all addresses of this machine.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((host, 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def format_address(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_addresses(text: str) -> tuple[Address, ...]:
    """Parse a comma-separated list of addresses; the default port is llama.cpp's 50052.

    Raises OptionError for an invalid address or port, a duplicate, an empty list, or more than 16 workers.
    """
    found: list[Address] = []
    for part in (part.strip() for part in text.split(",")):
        address = _parse(part)
        if address in found:
            raise OptionError(f"worker {address} is given twice; remove one")
        found.append(address)
    if len(found) > MAX_WORKERS:
        raise OptionError(f"{len(found)} workers are given; at most {MAX_WORKERS} are supported")
    return tuple(found)


def _parse(text: str) -> Address:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        good = bool(bracket) and colon in ("", ":")
    elif text.count(":") > 1:  # an IPv6 address without brackets cannot have a port
        host, colon, port, good = text, "", "", True
    else:
        host, colon, port = text.partition(":")
        good = True
    number = int(port) if port.isascii() and port.isdigit() else 0 if colon else DEFAULT_PORT
    if not (good and host and 0 < number < 1 << 16) or any(character.isspace() for character in host):
        raise OptionError(
            f"worker {text!r} should be host:port, as in 10.0.0.2:{DEFAULT_PORT} or [fd00::2]:{DEFAULT_PORT}"
        )
    return Address(host, number)
