"""The text of a stream: tokens in, whole characters out."""

from collections.abc import Sequence

from minillama.engine.generation.stop_strings import StopStrings
from minillama.engine.result import Reason
from minillama.tokenizer import StreamDecoder, Tokenizer
from minillama.tokenizer.chat.answer_parts import Parts, Splitter


class TextOutput:
    """The text so far, and the thoughts of a chat.

    An incomplete character, or a possible beginning of a stop string or a marker, is not shown yet.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str], ignore_eos: bool, splitter: Splitter) -> None:
        self.ended = False  # whether an end token came
        self._parts: list[Parts] = []
        self._tokenizer = tokenizer
        self._splitter = splitter
        self._markers = tokenizer.control_tokens_in(splitter.markers)
        self._decoder = StreamDecoder(self._piece)
        self._stop = StopStrings(stop)
        self._ends = frozenset() if ignore_eos else tokenizer.eog

    @property
    def text(self) -> str:
        """All text that was shown."""
        return "".join(part.text for part in self._parts)

    @property
    def reasoning_content(self) -> str:
        """All thoughts that were shown."""
        return "".join(part.reasoning_content for part in self._parts)

    @property
    def found(self) -> str | None:
        """The stop string that came, if one did."""
        return self._stop.found

    def push(self, token: int) -> Parts:
        """Add a token; the parts that can be shown now."""
        self.ended = token in self._ends
        if self.ended:
            return self._show(self._stop.push(self._decoder.flush()))
        shown = self._stop.push(self._decoder.push(token))
        if self._stop.words and not self._piece(token):  # a control token, which a stop string may name
            hidden = self._tokenizer.piece(token, special=True).decode("utf-8", "replace")
            shown += self._stop.push(hidden, is_shown=False)
        return self._show(shown)

    def end(self, reason: Reason) -> Parts:
        """The parts that were held back, without a stop string that was found."""
        rest = ""
        if reason is Reason.LIMIT or reason is Reason.LENGTH:
            rest = self._stop.push(self._decoder.flush())
        return self._show(rest + self._stop.flush()) + self._keep(self._splitter.flush())

    def _piece(self, token: int) -> bytes:
        return self._tokenizer.piece(token, special=token in self._markers)

    def _show(self, text: str) -> Parts:
        return self._keep(self._splitter.push(text)) if text else Parts()

    def _keep(self, parts: Parts) -> Parts:
        if parts != Parts():
            self._parts.append(parts)
        return parts
