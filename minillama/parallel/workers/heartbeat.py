"""Signs of life of leader and workers.

A process that is stopped (SIGSTOP) or swapping keeps its connections, and TCP keepalive finds nothing. But it sends no
signs of life, so the other side counts it as lost after some seconds (`Connection.expect_signs_of_life`). A thread of
its own sends them, also while the process computes, compiles or loads.
"""

import threading
from collections.abc import Callable, Sequence

from minillama.parallel.workers.wire import Connection

MOST_SILENCE = 3600.0  # seconds
LEADER_PATIENCE = 4  # times as long as a leader waits for a silent worker, a worker waits for a silent leader
_MOST_INTERVAL = 1.0  # seconds between signs of life
_SIGNS = 10  # that fit in the seconds of silence


def send_signs_of_life(connections: Sequence[Connection], silence: float) -> Callable[[], None]:
    """Start a thread that sends signs of life; return the function that stops it.

    silence: seconds after which the other side gives up.
    """
    stopped = threading.Event()
    interval = min(_MOST_INTERVAL, silence / _SIGNS)

    def send() -> None:
        while not stopped.wait(interval):
            for connection in connections:
                connection.send_sign_of_life()

    threading.Thread(target=send, daemon=True, name="signs of life").start()
    return stopped.set
