"""Listen on sockets and serve an application until a signal ends it."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from minillama.errors import OptionError, ResourceError
from minillama.server.settings import Listening

GRACE_SECONDS = 2  # for open connections, after their streams were ended
BACKLOG = 2048
IDLE_SECONDS = 75  # of a connection without a request; clients such as httpx close theirs after 5, and should be first


def open_sockets(listening: Listening, resources: ExitStack) -> list[socket.socket]:
    """Bound sockets for all hosts; `resources` closes them.

    Raises ResourceError for an address that cannot be bound.
    """
    tcp_hosts = [host for host in listening.hosts if not host.endswith(".sock")]
    if listening.port == 0 and len(tcp_hosts) > 1:
        raise OptionError("--port 0: not possible with several addresses; give a port")
    found = []
    for host in listening.hosts:
        try:
            opened = (
                _unix_socket(host, resources) if host.endswith(".sock") else _tcp_socket(host, listening, tcp_hosts)
            )
        except (OSError, UnicodeError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise ResourceError(
                f"cannot listen on {host} port {listening.port}: {reason}; give another --port"
            ) from None
        found.append(resources.enter_context(opened))
    return found


def addresses(sockets: Sequence[socket.socket], listening: Listening) -> list[str]:
    """URLs of bound sockets."""
    scheme = "https" if listening.ssl_cert_file else "http"
    shown = []
    for each in sockets:
        name = each.getsockname()
        if isinstance(name, str):
            shown.append(f"unix://{name}")
        else:
            host = f"[{name[0]}]" if ":" in name[0] else name[0]
            shown.append(f"{scheme}://{host}:{name[1]}")
    return shown


class HttpServer(uvicorn.Server):
    """Serves an application; `end` stops it from any thread.

    on_end: called first when it ends, to end the streams that are open.
    """

    def __init__(self, app: ASGIApp, listening: Listening, on_end: Callable[[], None]) -> None:
        check_tls(listening)
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        super().__init__(
            uvicorn.Config(
                app, log_config=None, access_log=False, server_header=False, lifespan="off", http="h11", loop="asyncio",
                ws="none", timeout_graceful_shutdown=GRACE_SECONDS, backlog=BACKLOG,
                timeout_keep_alive=IDLE_SECONDS,
                ssl_keyfile=listening.ssl_key_file, ssl_certfile=listening.ssl_cert_file,
            )
        )  # fmt: skip
        self._on_end = on_end

    def run_on(self, sockets: list[socket.socket]) -> None:
        """Serve until `end` or a signal; a signal is raised again afterwards."""
        self.run(sockets=sockets)

    def end(self) -> None:
        """End soon."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then the connections."""
        await asyncio.get_running_loop().run_in_executor(None, self._on_end)
        await super().shutdown(sockets)


def check_tls(listening: Listening) -> None:
    """Raise OptionError for TLS files that are not a key and its certificate."""
    key, certificate = listening.ssl_key_file, listening.ssl_cert_file
    if (key is None) != (certificate is None):
        raise OptionError("--ssl-key-file and --ssl-cert-file are used together; give both")
    if key is None or certificate is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or error
        raise OptionError(f"--ssl-cert-file {certificate}: no certificate with the key {key}: {reason}") from None


def _tcp_socket(host: str, listening: Listening, tcp_hosts: Sequence[str]) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host or None, listening.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listening.reuse_port:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6 and len(tcp_hosts) > 1:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(address)
        opened.listen(BACKLOG)
    except BaseException:
        opened.close()
        raise
    return opened


def _unix_socket(path: str, resources: ExitStack) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.bind(path)
        opened.listen(BACKLOG)
    except BaseException:
        opened.close()
        raise
    resources.callback(Path(path).unlink, missing_ok=True)
    return opened
