"""Stop strings: hold text back while it may be the beginning of one."""

from collections.abc import Sequence


class StopStrings:
    """Search growing text for stop strings; the text that `push` returns never contains one."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.found: str | None = None
        self._held = ""

    def push(self, text: str) -> str:
        """Add text; return what can be shown, and nothing after a stop string was found."""
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
        """The text that is still held back, at an end without a stop string."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, word: str) -> int:
    """Length of the longest suffix of `text` that is a prefix of `word`."""
    return max((size for size in range(1, min(len(text), len(word) - 1) + 1) if text.endswith(word[:size])), default=0)
