"""A kind that fails in every way that the harness must survive; the tests use it."""

import os
import random
import signal
import time

from minillama.errors import MinillamaError
from tests.fuzz.case_kind import Finding, Kind

CRASH, HANG, LONG_ERROR, WRONG, EXCEPTION, LARGE, SLOW = 3, 5, 7, 9, 11, 13, 15
LATE_ONCE = 17


class ToyKind(Kind[int]):
    """Cases whose input is their place in a cycle of twenty."""

    runs = 0  # in this process

    def make(self, rng: random.Random) -> int:
        return rng.randrange(10**9)

    def run(self, given: int) -> str:
        place = self._place()
        self.runs += 1
        if place == CRASH:
            os.kill(os.getpid(), signal.SIGSEGV)
        elif place == HANG:
            time.sleep(600)
        elif place == LONG_ERROR:
            raise ToyError("two\nlines")
        elif place == WRONG:
            raise Finding("a wrong result")
        elif place == EXCEPTION:
            raise ZeroDivisionError("nothing catches this")
        elif place == LARGE:
            bytes(os.urandom(1 << 20)) * 40
        elif place == SLOW or (place == LATE_ONCE and self.runs > 1):
            end = time.process_time() + 0.5
            while time.process_time() < end:
                pass
        elif place == 1:
            raise MinillamaError("refused; give another one")
        return "accepted"

    def files(self, given: int) -> dict[str, bytes]:
        return {"number.txt": str(given).encode()}

    def _place(self) -> int:
        return int.from_bytes((self.folder.parent / "case").read_bytes()[:8], "little") % 20


class ToyError(MinillamaError):
    """An error that is not one line."""

    def __str__(self) -> str:
        return self.args[0]


KIND = ToyKind
