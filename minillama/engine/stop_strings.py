"""Stop strings: text that may be the beginning of one is held back until it is clear."""

from collections.abc import Sequence


class StopWatch:
    """Watches a growing text for stop strings; what `push` returns can be shown, no stop string is ever in it."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.found: str | None = None
        self._held = ""

    def push(self, text: str) -> str:
        """Take more text; give what is safe to show. After a stop string was found nothing more comes."""
        if self.found is not None:
            return ""
        self._held += text
        hits = [(at, word) for word in self.words if (at := self._held.find(word)) >= 0]
        if hits:
            at, self.found = min(hits)
            shown, self._held = self._held[:at], ""
            return shown
        keep = max((_overlap(self._held, word) for word in self.words), default=0)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def flush(self) -> str:
        """What is still held back when the text ends without a stop string."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, word: str) -> int:
    """Length of the longest end of `text` that `word` starts with."""
    return max((size for size in range(1, min(len(text), len(word) - 1) + 1) if text.endswith(word[:size])), default=0)
