"""The text of a stream: tokens in, whole characters out."""

from collections.abc import Sequence

from minillama.engine.generation.stop_strings import StopStrings
from minillama.engine.result import Reason
from minillama.tokenizer import Tokenizer


class TextOutput:
    """The text so far.

    An incomplete character, or a possible beginning of a stop string, is not shown yet.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str], ignore_eos: bool) -> None:
        self.ended = False  # whether an end token came
        self._parts: list[str] = []
        self._tokenizer = tokenizer
        self._decoder = tokenizer.decoder()
        self._stop = StopStrings(stop)
        self._ends = frozenset() if ignore_eos else tokenizer.eog

    @property
    def text(self) -> str:
        """All text that was shown."""
        return "".join(self._parts)

    @property
    def found(self) -> str | None:
        """The stop string that came, if one did."""
        return self._stop.found

    def push(self, token: int) -> str:
        """Add a token; the text that can be shown now."""
        self.ended = token in self._ends
        if self.ended:
            return self._show(self._stop.push(self._decoder.flush()))
        shown = self._stop.push(self._decoder.push(token))
        if self._stop.words and not self._tokenizer.piece(token):  # a control token, which a stop string may name
            hidden = self._tokenizer.piece(token, special=True).decode("utf-8", "replace")
            shown += self._stop.push(hidden, is_shown=False)
        return self._show(shown)

    def end(self, reason: Reason, shown: str) -> str:
        """The text of the last token: `shown`, and held text that no stop string ended."""
        if reason is Reason.LIMIT or reason is Reason.LENGTH:
            shown += self._show(self._stop.push(self._decoder.flush()) + self._stop.flush())
        elif reason is Reason.STOP:
            shown += self._show(self._stop.flush())
        return shown

    def flush(self) -> None:
        """Show what is still held back; nothing where a stop string came."""
        self._show(self._stop.flush())

    def _show(self, text: str) -> str:
        if text:
            self._parts.append(text)
        return text
