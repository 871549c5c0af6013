"""The guesses for one text, of prompt lookup, of a draft model, or of both."""

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from minillama.engine.drafting.draft_model import DEFAULT_GUESS
from minillama.engine.drafting.guesser import DraftText
from minillama.engine.generate_options import Request
from minillama.engine.generation.prompt_lookup import PromptLookup
from minillama.engine.session import Session

DEFAULT_LOOKUP = 7  # tokens; with the token before them a pass of 8


@runtime_checkable
class TextDrafter(Protocol):
    """A source of guesses for one text."""

    def extend(self, tokens: Iterable[int]) -> None:
        """More tokens of the text."""

    def draft(self, most: int) -> Sequence[int]:
        """A guess of at most that many tokens; empty for none."""

    def learn(self, accepted: int) -> None:
        """So many tokens of the last guess were right."""


class ModelDrafter:
    """Guesses of the session's draft model."""

    def __init__(self, session: Session, request: Request) -> None:
        assert session.guesser is not None
        self._session, self._guesser, self._request = session, session.guesser, request
        self._most = DEFAULT_GUESS if request.draft_max is None else request.draft_max
        self._latest = 0

    def extend(self, tokens: Iterable[int]) -> None:
        """Note the last one; the session holds those before it."""
        *_, self._latest = tokens

    def draft(self, most: int) -> Sequence[int]:
        """A guess of at most that many tokens; none where it is shorter than draft_min."""
        most = min(most, self._most)
        if most < max(1, self._request.draft_min):
            return ()
        text = DraftText(0, [*self._session.tokens, self._latest], most, self._request.draft_p_min)
        while self._guesser.lacks(text):
            self._guesser.read(text)
        (found,) = self._guesser.guess([text])
        return found if len(found) >= self._request.draft_min else ()

    def learn(self, accepted: int) -> None:
        """Nothing: the length of guesses is fixed."""


class FirstFound:
    """The guess of the first of some drafters that has one."""

    def __init__(self, drafters: Sequence[TextDrafter]) -> None:
        self._drafters, self._used = drafters, drafters[0]

    def extend(self, tokens: Iterable[int]) -> None:
        """More tokens for all of them."""
        tokens = list(tokens)
        for drafter in self._drafters:
            drafter.extend(tokens)

    def draft(self, most: int) -> Sequence[int]:
        """The first guess."""
        for drafter in self._drafters:
            self._used = drafter
            if found := drafter.draft(most):
                return found
        return ()

    def learn(self, accepted: int) -> None:
        """Tell the drafter whose guess it was."""
        self._used.learn(accepted)


def text_drafter(session: Session, request: Request) -> TextDrafter | None:
    """The drafters of a request: prompt lookup, then the session's draft model; None without any."""
    found: list[TextDrafter] = []
    if request.draft_max == 0:
        return None
    if request.lookup:
        found.append(PromptLookup(request.ngram_max, request.draft_max or DEFAULT_LOOKUP))
    if session.guesser is not None:
        found.append(ModelDrafter(session, request))
    return found[0] if len(found) == 1 else FirstFound(found) if found else None
