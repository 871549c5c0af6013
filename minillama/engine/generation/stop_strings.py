"""Stop strings: hold text back while it may be the beginning of one."""

from collections.abc import Sequence

from minillama.tokenizer.chat.answer_parts import overlap


class StopStrings:
    """Search growing text for stop strings; the text that `push` returns never contains one.

    Control tokens have a text that is not shown, such as `<|user|>`. A stop string is found in the shown text alone,
    and in the text with the control tokens: `<|user|>`, or `.<|end|>` over several tokens.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.found: str | None = None
        self._held: list[tuple[str, bool]] = []  # characters, and whether each is shown

    def push(self, text: str, *, is_shown: bool = True) -> str:
        """Add text; return what can be shown, and nothing after a stop string was found."""
        if self.found is not None:
            return ""
        self._held += [(character, is_shown) for character in text]
        hits, keep = [], len(self._held)
        for places in self._views():
            seen = "".join(self._held[place][0] for place in places)
            hits += [(places[at], word) for word in self.words if (at := seen.find(word)) >= 0]
            held_back = max((overlap(seen, word) for word in self.words), default=0)
            keep = min(keep, places[len(places) - held_back]) if held_back else keep
        if not hits:
            return self._release(keep)
        at, self.found = min(hits)
        shown = self._release(at)
        self._held = []
        return shown

    def _views(self) -> tuple[Sequence[int], Sequence[int]]:
        """Places of the held characters that are shown, and of all."""
        return [place for place, (_, is_shown) in enumerate(self._held) if is_shown], range(len(self._held))

    def flush(self) -> str:
        """The text that is still held back, at an end without a stop string."""
        return self._release(len(self._held))

    def _release(self, count: int) -> str:
        """Take the first `count` held characters; those that are shown."""
        taken, self._held = self._held[:count], self._held[count:]
        return "".join(character for character, is_shown in taken if is_shown)
