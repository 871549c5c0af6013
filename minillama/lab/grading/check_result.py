"""Result of a check, and the error that a failed check raises for a grader."""

import html
import os
from dataclasses import dataclass

from minillama.lab.language import translate

STRICT = "MINILLAMA_STRICT"


@dataclass(frozen=True)
class Result:
    """Result of a check on one answer."""

    title: str
    passed: bool
    message: str

    def __str__(self) -> str:
        return f"{translate('PASS') if self.passed else translate('not yet')}: {self.title}: {self.message}"

    __repr__ = __str__

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        colour, sign, word = ("#009E73", "✔", "PASS") if self.passed else ("#D55E00", "✘", "not yet")
        block = (
            f'<div style="border-left:5px solid {colour};padding:6px 12px;margin:4px 0">'
            f'<b style="color:{colour}">{sign} {translate(word)}</b> <b>{html.escape(self.title)}</b><br>'
            f"{html.escape(self.message)}</div>"
        )
        return {"text/html": block, "text/plain": str(self)}


class NotPassed(AssertionError):
    """A required check did not pass; IPython shows its one line."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def is_strict() -> bool:
    """True if MINILLAMA_STRICT is set, to anything but 0: then failed checks raise."""
    return os.environ.get(STRICT, "").strip() not in ("", "0")
