"""Connections of strangers: peers that have not proven the secret yet."""

import threading

from minillama.parallel.workers.wire import Connection

MOST_STRANGERS = 32  # at a time; each has a thread and a socket


class Handshakes:
    """The connections whose peer has not proven the secret yet, oldest first.

    Where there are too many, the oldest is closed: idle strangers never keep a leader out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._strangers: dict[Connection, None] = {}

    def add(self, connection: Connection) -> None:
        """Add a new connection, and close the oldest one where it has no place."""
        with self._lock:
            while len(self._strangers) >= MOST_STRANGERS:
                oldest = next(iter(self._strangers))
                del self._strangers[oldest]
                oldest.close()
            self._strangers[connection] = None

    def remove(self, connection: Connection) -> None:
        """Remove a connection, whose peer is known or which has ended."""
        with self._lock:
            self._strangers.pop(connection, None)
