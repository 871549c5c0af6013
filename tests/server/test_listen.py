"""Sockets and TLS files of the server."""

import socket
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from minillama.errors import OptionError, ResourceError
from minillama.server.listen import HttpServer, addresses, check_tls, open_sockets
from minillama.server.settings import Listening


def test_free_port_and_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with ExitStack() as resources:
        listening = Listening(("127.0.0.1", str(path)), 0)
        sockets = open_sockets(listening, resources)
        tcp, unix = addresses(sockets, listening)
        assert tcp.startswith("http://127.0.0.1:") and not tcp.endswith(":0") and unix == f"unix://{path}"
        for each in sockets:
            with socket.socket(each.family) as client:
                client.connect(each.getsockname())
    assert not path.exists()


def test_a_port_in_use() -> None:
    with ExitStack() as resources:
        (taken,) = open_sockets(Listening(port=0), resources)
        port = taken.getsockname()[1]
        with pytest.raises(ResourceError, match=f"cannot listen on 127.0.0.1 port {port}: .*; give another --port"):
            open_sockets(Listening(port=port), resources)


@pytest.mark.parametrize("hosts", [("no such host",), ("127.0.0.1", "::1"), ("/no/such/folder/x.sock",)])
def test_wrong_addresses(hosts: tuple[str, ...]) -> None:
    with ExitStack() as resources, pytest.raises((ResourceError, OptionError)):
        open_sockets(Listening(hosts, 0), resources)


def test_tls_files(tmp_path: Path) -> None:
    wrong = tmp_path / "x.pem"
    wrong.write_text("no key")
    check_tls(Listening())
    with pytest.raises(OptionError, match="give both"):
        check_tls(Listening(ssl_key_file=str(wrong)))
    with pytest.raises(OptionError, match="no certificate with the key"):
        check_tls(Listening(ssl_key_file=str(wrong), ssl_cert_file=str(wrong)))


def test_an_idle_connection_is_left_to_the_client() -> None:
    """A server that closes it as the client sends its next request loses the request."""

    async def app(scope: object, receive: object, send: object) -> None:
        raise AssertionError("no request was sent")

    server = HttpServer(app, Listening(), lambda: None)
    assert server.config.timeout_keep_alive > 2 * httpx.Client()._transport._pool._keepalive_expiry
