"""Print an answer: thoughts between two lines, dimmed in a terminal, then the text."""

from minillama.cli.output.terminal import write_text

START, END = "[Start thinking]", "[End thinking]"  # llama-cli's
DIM, RESET = "\x1b[2m", "\x1b[0m"


class AnswerWriter:
    """Writes the pieces of an answer."""

    def __init__(self, coloured: bool) -> None:
        """coloured: dim the thoughts."""
        self._dim, self._reset = (DIM, RESET) if coloured else ("", "")
        self._in_thoughts = False
        self._last = ""  # character written

    def push(self, text: str, reasoning_content: str = "") -> None:
        """Write a piece; thoughts come before the text that ends them."""
        if reasoning_content:
            if not self._in_thoughts:
                self._put(f"{self._line_end()}{self._dim}{START}\n\n")
            self._in_thoughts = True
            self._put(reasoning_content)
        if text:
            if self._in_thoughts:
                self._put(f"{self._line_end()}{END}{self._reset}\n\n")
            self._in_thoughts = False
            self._put(text)

    def end(self, *, empty: bool = True) -> None:
        """End the last line. empty: write a line for an answer without text."""
        if self._in_thoughts:
            write_text(self._reset)
        self._in_thoughts = False
        if self._last or empty:
            self._put("" if self._last == "\n" else "\n")

    def _line_end(self) -> str:
        return "" if self._last in ("", "\n") else "\n"

    def _put(self, text: str) -> None:
        self._last = text[-1:] or self._last
        write_text(text)
