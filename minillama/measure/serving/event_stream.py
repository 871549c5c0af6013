"""POST a request, and read the server-sent events of the answer.

h11 parses HTTP, and asyncio reads the socket: a client that costs little does not take the cores from a server on the
same machine. Each request has its own connection, because servers close idle ones.
"""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

import h11

from minillama.errors import OptionError, ResourceError

READ_BYTES = 65536
MOST_ERROR_BYTES = 4096  # of the body of an error


class AnswerError(ResourceError):
    """A server that refuses a request, or ends an answer too early."""


class Event(NamedTuple):
    """The data of a server-sent event, and its time of arrival (`time.perf_counter`)."""

    arrived: float
    data: str


class EventLines:
    """Bytes in, data of complete events out (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def push(self, piece: bytes) -> Iterator[str]:
        """Take the next bytes of a stream; yield the data of events that are complete."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            text = line.removesuffix(b"\r").decode("utf-8", errors="replace")
            if text.startswith("data:"):
                self._data.append(text.removeprefix("data:").removeprefix(" "))
            elif not text and self._data:
                yield "\n".join(self._data)
                self._data = []


def check_url(url: str) -> SplitResult:
    """Parse the address of a server; raises OptionError without a scheme or a host."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise OptionError(f"{url}: expected the address of a server, as in http://127.0.0.1:8080")
    return parts


async def post_events(url: str, body: dict[str, object], api_key: str = "") -> AsyncIterator[Event]:
    """Send JSON, and yield the events of the answer.

    Raises AnswerError for a status other than 200 and for an answer that breaks off, OSError without a connection.
    """
    parts = check_url(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    secure = ssl.create_default_context() if parts.scheme == "https" else None
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure)
    try:
        connection = h11.Connection(h11.CLIENT)
        writer.write(_request_bytes(connection, parts, json.dumps(body).encode(), api_key))
        await writer.drain()
        async for event in _read_events(connection, reader):
            yield event
    finally:
        writer.close()


def _request_bytes(connection: h11.Connection, parts: SplitResult, content: bytes, api_key: str) -> bytes:
    headers = [
        ("Host", parts.netloc.rpartition("@")[2]), ("Content-Type", "application/json"),
        ("Content-Length", str(len(content))), ("Accept", "text/event-stream"), ("Connection", "close"),
    ]  # fmt: skip
    if api_key:
        headers.append(("Authorization", f"Bearer {api_key}"))
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    request = h11.Request(method="POST", target=target or "/", headers=headers)
    pieces = [connection.send(each) for each in (request, h11.Data(data=content), h11.EndOfMessage())]
    return b"".join(piece or b"" for piece in pieces)


async def _read_events(connection: h11.Connection, reader: asyncio.StreamReader) -> AsyncIterator[Event]:
    lines, status, refusal = EventLines(), 0, b""
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(READ_BYTES))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                if status != 200:
                    refusal = (refusal + bytes(event.data))[:MOST_ERROR_BYTES]
                    continue
                arrived = time.perf_counter()
                for data in lines.push(bytes(event.data)):
                    yield Event(arrived, data)
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                break
    except h11.RemoteProtocolError as error:
        raise AnswerError(f"the answer breaks off: {error}") from None
    if status != 200:
        raise AnswerError(f"HTTP {status}: {error_message(refusal.decode('utf-8', errors='replace'))}")


def error_message(body: str) -> str:
    """The message in the JSON of an error, or the text as it is."""
    try:
        error = json.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return " ".join(body.split())[:120]
