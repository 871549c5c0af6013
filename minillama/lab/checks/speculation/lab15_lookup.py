"""Graded item of lab 15: guess by what followed the same words before."""

from collections.abc import Sequence

from minillama.lab.grading.check import Answer, Mistake, expect_equal, graded
from minillama.lab.grading.course_seed import hidden_cases, whole

LAB = "15"


def right_lookup(tokens: Sequence[int], n: int, k: int, *, first: bool = False, short: bool = False,
                 only: bool = False, stops: bool = False, with_words: bool = False, itself: bool = False,
                 late: int = 0, invents: bool = False) -> list[int]:  # fmt: skip
    """The guess of prompt lookup; each keyword makes one mistake."""
    sizes = range(1, n + 1) if short else range(n, 0, -1)
    for size in sizes if not only else [n]:
        if size > len(tokens):
            continue
        end = list(tokens[-size:])
        last = len(tokens) - size - (0 if itself else 1)
        places = [place for place in range(max(last, -1) + 1) if list(tokens[place : place + size]) == end]
        if not places:
            continue
        start = (places[0] if first else places[-1]) + (0 if with_words else size) + late
        known = list(tokens[start : start + k])
        if stops or not known:
            return known
        period = len(tokens) - start
        return [tokens[start + place % period] for place in range(k)]
    return [tokens[-1]] * k if invents and tokens else []


LOOKUP_MISTAKES = (
    Mistake("if the last n tokens did not occur before, try the last n - 1, down to one",
            lambda t, n, k: right_lookup(t, n, k, only=True)),
    Mistake("the last tokens themselves are no earlier occurrence: nothing follows them yet",
            lambda t, n, k: right_lookup(t, n, k, itself=True)),
    Mistake("the guess is what *followed* the same words, not the words themselves",
            lambda t, n, k: right_lookup(t, n, k, with_words=True)),
    Mistake("the guess begins with the token right after the same words",
            lambda t, n, k: right_lookup(t, n, k, late=1)),
    Mistake("take the latest earlier occurrence: a text resembles its recent part most",
            lambda t, n, k: right_lookup(t, n, k, first=True)),
    Mistake("try the longest end of the text first: more equal words, a better guess",
            lambda t, n, k: right_lookup(t, n, k, short=True)),
    Mistake("where the text ends, the guess goes on with its own beginning: a b a b gives a b a b a b ...",
            lambda t, n, k: right_lookup(t, n, k, stops=True)),
    Mistake("if nothing repeats, there is no guess: return []", lambda t, n, k: right_lookup(t, n, k, invents=True)),
)  # fmt: skip
_TEXTS = (
    ("1 2 3 1 2 4 5 1 2", 2, 2), ("7 1 2 9 3 2 8 4 1 2", 3, 2), ("7 8 9 1 2 8 3 8 9", 3, 3),
    ("1 2 3 9 8 1 2 3 4 5 3", 3, 3), ("5 5 5", 2, 4), ("6 1 2 1 2", 4, 6), ("1 2 3 4", 3, 3), ("3", 4, 2),
    ("4 4", 1, 1), ("1 2 3 4 1 2 5 6 1 2", 2, 4),
)  # fmt: skip


@graded(LAB, "1. guess by lookup")
def lookup(answer: Answer) -> str:
    """`lookup(tokens, n, k) -> guess` of k tokens, or an empty list."""
    cases = [([int(token) for token in text.split()], n, k) for text, n, k in _TEXTS]
    texts = hidden_cases(1501, lambda random: random.integers(1, 4, 14).tolist(), whole(1, 4), whole(2, 6), count=4)
    for tokens, n, k in (*cases, *texts):
        case = f"tokens={tokens}, n={n}, k={k}"
        expect_equal(answer, (tokens, n, k), right_lookup, LOOKUP_MISTAKES, case=case)
    return "the same guesses as the engine's."
