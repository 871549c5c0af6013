"""Graded items of lab 13: a stop string over several tokens, latencies of raw events."""

from collections.abc import Callable, Sequence

import numpy as np

from minillama.lab.grading.check import (
    Answer,
    Comparison,
    Mistake,
    NotYet,
    call,
    compared,
    expect_equal,
    graded,
)
from minillama.lab.grading.course_seed import hidden_random, hidden_seed
from minillama.lab.language import translate

LAB = "13"
Texts = list[str]


# ---- stop strings ----


def _held(text: str, stop: str) -> int:
    """Characters at the end that may begin the stop string."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if stop.startswith(text[-size:])), 0)


def _shown(pieces: Sequence[str], stop: str, *, hold: Callable[[str, str], int] = _held, flush: bool = True,
           keep_stop: bool = False, cut: bool = True) -> Texts:  # fmt: skip
    """The right texts; each keyword makes one mistake."""
    held, sent = "", []
    for piece in pieces:
        held += piece
        if stop in held:
            end = held.index(stop) + (len(stop) if keep_stop else 0)
            return [*sent, held[:end] if cut else ""]
        size = hold(held, stop)
        sent.append(held[: len(held) - size])
        held = held[len(held) - size :]
    return [*sent, held] if flush else sent


def _in_one_piece(pieces: Sequence[str], stop: str) -> Texts:
    sent = []
    for piece in pieces:
        if stop in piece:
            return [*sent, piece[: piece.index(stop)]]
        sent.append(piece)
    return [*sent, ""]


def _sent_at_once(pieces: Sequence[str], stop: str) -> Texts:
    text, sent = "", []
    for piece in pieces:
        text += piece
        if stop in text:
            return [*sent, piece[: max(0, text.index(stop) + len(piece) - len(text))]]
        sent.append(piece)
    return [*sent, ""]


STOP_MISTAKES = (
    Mistake("the stop string may be split over pieces: look for it in the held text and the new piece together",
            _in_one_piece),
    Mistake("a part of the stop string was sent: hold back an end of the text that is a beginning of the stop string",
            lambda p, s: _sent_at_once(p, s)),
    Mistake("text is late: hold back only an end that is a beginning of the stop string, not as many characters always",
            lambda p, s: _shown(p, s, hold=lambda text, stop: min(len(stop) - 1, len(text)))),
    Mistake("hold back the *longest* end that is a beginning of the stop string",
            lambda p, s: _shown(p, s, hold=lambda text, stop: min(1, _held(text, stop)))),
    Mistake("the pieces end, and held text is never sent: the last element is the text that is still held back",
            lambda p, s: _shown(p, s, flush=False)),
    Mistake("the stop string itself is not sent", lambda p, s: _shown(p, s, keep_stop=True)),
    Mistake("the text before the stop string belongs to the answer", lambda p, s: _shown(p, s, cut=False)),
)  # fmt: skip
STOP_CASES = (
    (["Hello", " wor", "ld", "\n", "User", ": ", "hi"], "\nUser:"),
    (["a\n", "\n", "\nUser", ": no\nUs", "er: yes"], "\nUser:"),
    (["once", " and", " again"], "<end>"),
    (["2 < 3 <", "e", "nd", "less> <e"], "<end>"),
    (["ab", "ab", "abc", "x"], "ababc"),
    (["one. STOP two"], "STOP"),
    (["aa", "ab", " b"], "aab"),
)


def _pieces(random: np.random.Generator) -> Texts:
    """Twelve pieces of beginnings of the stop string "abab!", which may occur."""
    return random.choice(["a", "ab", "ba", "b", "abab", "!", " c"], 12).tolist()


@graded(LAB, "3. a stop string over several tokens")
def stop_string(answer: Answer) -> str:
    """`stop_string(pieces, stop) -> texts to send`, one for each piece, and the rest at the end."""
    for pieces, stop in (*STOP_CASES, *((_pieces(random), "abab!") for random in map(hidden_random, (1313, 1314)))):
        label = translate("the pieces {pieces} and the stop string {stop!r}", pieces=pieces, stop=stop)

        def outcome(function: Answer, pieces: Texts = pieces, stop: str = stop) -> list[object]:
            return list(function(list(pieces), stop))  # type: ignore[call-overload]

        comparison = compared(Comparison(outcome, _shown, STOP_MISTAKES))
        got = call(answer, list(pieces), stop, case=label)
        if not isinstance(got, list | tuple) or not all(isinstance(text, str) for text in got):
            raise NotYet("return a list of texts: one for each piece that was read, and the rest at the end")
        if not comparison.accepts(list(got)):
            hint = comparison.hint(list(got))
            raise NotYet(
                hint
                or translate("for {case}: got {got}, want {want}", case=label, got=list(got), want=_shown(pieces, stop))
            )
    return "no part of a stop string is ever sent, and no text is later than it must be."


# ---- latencies ----

Event = tuple[float, int, str, str]


def _latencies(events: Sequence[Event], *, empty: bool = False, start: str = "sent", with_first: bool = False,
               with_end: bool = False, mean: bool = False, together: bool = False) -> np.ndarray:  # fmt: skip
    """The right pairs; each keyword makes one mistake."""
    rows = []
    zero = min(event[0] for event in events)
    last_of_all: dict[int, float] = {}
    if together:
        times = [event[0] for event in events if event[2] == "text" and event[3]]
        last_of_all = {index: max(np.diff(times), default=0.0) for index in {event[1] for event in events}}
    for number in sorted({event[1] for event in events}):
        own = [event for event in events if event[1] == number]
        begin = zero if start == "zero" else next(at for at, _, kind, _ in own if kind == start)
        times = [at for at, _, kind, text in own if kind == "text" and (text or empty)]
        times += [at for at, _, kind, _ in own if kind == "end" and with_end]
        gaps = np.diff([begin, *times] if with_first else times)
        longest = 0.0 if not len(gaps) else float(gaps.mean() if mean else gaps.max())
        rows.append((times[0] - begin, last_of_all.get(number, longest)))
    return np.array(rows)


LATENCY_MISTAKES = (
    Mistake("an event without text is no token yet: the role, or half of a character",
            lambda e: _latencies(e, empty=True)),
    Mistake("each request has its own clock: the time since it was sent, not since the first event of all",
            lambda e: _latencies(e, start="zero")),
    Mistake("the wait for the first token is no gap between tokens", lambda e: _latencies(e, with_first=True)),
    Mistake("the end of the stream is no token", lambda e: _latencies(e, with_end=True)),
    Mistake("the longest gap, not the mean", lambda e: _latencies(e, mean=True)),
    Mistake("the events of several requests are mixed: a gap is between two events of one request",
            lambda e: _latencies(e, together=True)),
    Mistake("seconds in, seconds out", lambda e: 1e3 * _latencies(e)),
    Mistake("the time to the first token comes first", lambda e: _latencies(e)[:, ::-1]),
)  # fmt: skip


def raw_events(seed: int, requests: int) -> list[Event]:
    """Mixed events of several requests, as a client writes them down: (seconds, request, kind, text)."""
    random = np.random.default_rng(seed)
    events: list[Event] = []
    for number in range(requests):
        clock = float(random.uniform(0, 2))
        events.append((clock, number, "sent", ""))
        clock += float(random.uniform(0.05, 0.1))
        events.append((clock, number, "text", ""))
        for index in range(int(random.integers(1, 9)) if number else 1):
            clock += float(random.uniform(0.1, 0.4) if index == 0 else random.exponential(0.05))
            events.append((clock, number, "text", f" w{index}"))
            if random.random() < 0.3:
                clock += float(random.uniform(0.01, 0.3))
                events.append((clock, number, "text", ""))
        events.append((clock + float(random.uniform(0.5, 0.9)), number, "end", ""))
    return sorted(events)


@graded(LAB, "4. TTFT and gaps from raw events")
def latencies(answer: Answer) -> str:
    """`latencies(events) -> [(time to first token, longest gap), ...]` by request."""
    for seed, requests in ((1311, 4), (1312, 12)):
        expect_equal(answer, (raw_events(hidden_seed(seed), requests),), _latencies, LATENCY_MISTAKES, tolerance=1e-9,
                     case=translate("{count} requests", count=requests))  # fmt: skip
    return "each request by its own clock, and only events with text."
