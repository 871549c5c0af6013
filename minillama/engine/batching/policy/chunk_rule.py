"""The size of a prompt's next chunk, which bounds the gap between other texts' tokens.

Short prompts are an exception: they are read whole, without a step between them, up to 1.5 seconds; up to 8 seconds
where no text would wait. Their texts then begin together, and large chunks and steps cost less a token. In return a few
gaps are long.
"""

FIRST_CHUNK = 64  # tokens, before anything is measured
LEAST_CHUNK = 16
STEPS = 2.0  # a chunk may cost as much as that many steps
BURST_SECONDS = 1.5  # of whole prompts without a step
FIRST_BURST_SECONDS = 8.0  # while no text has a token yet; otherwise texts that came together would lose step
MOST_SECONDS = 1.0  # of a chunk while no text is generated, so that a request can be cancelled
MEMORY = 0.8  # weight of the earlier measurements in the mean


class ChunkRule:
    """Chunks that cost about two steps; up to a second while no text is generated.

    The cost of a step and of a prompt's token are running means of the measured turns.
    """

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._step: float | None = None  # seconds
        self._token: float | None = None  # seconds

    def size(self, *, generating: bool) -> int:
        """Most tokens of the next chunk: a power of two, or the largest size."""
        if not generating:
            return self._largest if self._token is None else self._within(MOST_SECONDS, FIRST_CHUNK)
        if self._step is None or self._token is None:
            return min(FIRST_CHUNK, self._largest)
        return self._within(STEPS * self._step, LEAST_CHUNK)

    def is_burst(self, tokens: int, prompt: int, *, generating: bool) -> bool:
        """Whether to read a prompt whole, without a step after `tokens` of other prompts."""
        if self._token is None or prompt > self._largest:
            return False
        return (tokens + prompt) * self._token <= (BURST_SECONDS if generating else FIRST_BURST_SECONDS)

    def burst_size(self) -> int:
        """Most tokens of such a chunk; a request can be cancelled after it."""
        assert self._token is not None
        return min(max(int(BURST_SECONDS / max(self._token, 1e-9)), LEAST_CHUNK), self._largest)

    def _within(self, seconds: float, least: int) -> int:
        assert self._token is not None
        fitting = int(seconds / max(self._token, 1e-9))
        return min(max(1 << max(fitting.bit_length() - 1, 0), least), self._largest)

    def measured(self, seconds: float, *, rows: int, tokens: int) -> None:
        """Learn the seconds of a step of some rows and a chunk of some tokens."""
        if rows and not tokens:
            self._step = _mean(self._step, seconds)
        elif tokens and (self._step is not None or not rows):
            step = self._step if rows and self._step is not None else 0.0
            self._token = _mean(self._token, max(seconds - step, 0.0) / tokens)


def _mean(old: float | None, new: float) -> float:
    return new if old is None else MEMORY * old + (1 - MEMORY) * new
