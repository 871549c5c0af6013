"""HTTP over a plain socket, to do what no library lets one do: small buffers, slow bodies, resets."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import h11

SMALL = 4096  # bytes of a receive buffer


class RawClient:
    """One connection. status: of the answer, once its head has come."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self._address, self._protocol = (parts.hostname, parts.port), h11.Connection(h11.CLIENT)
        self.status = 0

    async def open(self) -> None:
        """Connect, with a small receive buffer."""
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        self._socket.setblocking(False)
        await asyncio.get_running_loop().sock_connect(self._socket, self._address)
        self._reader, self._writer = await asyncio.open_connection(sock=self._socket, limit=SMALL)

    async def send(self, path: str, body: dict[str, object], *, pieces: int = 1, pause: float = 0.0) -> None:
        """Send a request; the body in pieces, with pauses."""
        content = json.dumps(body).encode()
        head = h11.Request(
            method="POST", target=path,
            headers=[("Host", "soak"), ("Content-Type", "application/json"), ("Content-Length", str(len(content)))],
        )  # fmt: skip
        self._writer.write(self._protocol.send(head) or b"")
        size = -(-len(content) // pieces)
        for place in range(0, len(content), size):
            self._writer.write(self._protocol.send(h11.Data(data=content[place : place + size])) or b"")
            await self._writer.drain()
            await asyncio.sleep(pause)
        self._writer.write(self._protocol.send(h11.EndOfMessage()) or b"")
        await self._writer.drain()

    async def body(self, *, size: int = SMALL, pause: float = 0.0) -> AsyncIterator[bytes]:
        """The parts of the answer's body, read slowly. Raises ConnectionError if the connection ends before it."""
        while True:
            event = self._protocol.next_event()
            if event is h11.NEED_DATA:
                content = await self._reader.read(size)
                try:
                    self._protocol.receive_data(content)
                    if not content:
                        self._protocol.next_event()
                        raise ConnectionError("the connection ended before the answer")
                except h11.RemoteProtocolError as error:
                    raise ConnectionError(str(error)) from None
                await asyncio.sleep(pause)
            elif isinstance(event, h11.Response):
                self.status = event.status_code
            elif isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return

    def reset(self) -> None:
        """End the connection with a reset, as a process that is killed with unread data does."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()
