"""Lab 13: the simulator against hand-counted turns, and checks that name mistakes."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab_checks import solutions

from minillama.lab import measuring
from minillama.lab.checks import lab13
from minillama.lab.experiments.watched_load import watched_load
from minillama.lab.grading.check import Item
from minillama.lab.plots.serving_plots import gantt, rows_curves, two_sided
from minillama.lab.serving.batch_simulator import (
    Costs,
    Policy,
    SimulatedRequest,
    StalledError,
    admit_any,
    admit_batch,
    common_prefix,
    mixed_requests,
    simulate,
    whole_prompt,
)
from minillama.lab.widgets.figure import PLOTLY_MIME

COSTS = Costs(step=2.0, row=0.0, token=1.0, ubatch=4)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def request(number: int, prompt: tuple[int, ...], n: int, arrived: float = 0.0) -> SimulatedRequest:
    return SimulatedRequest(number, arrived, prompt, n)


def test_turns_counted_by_hand() -> None:
    """Two slots: the prompt of 6 is read in chunks of 4 and 2, with a step of the first text between them."""
    run = simulate([request(0, (1, 2), 3), request(1, (3,) * 6, 2)], 2, COSTS, Policy(admit_any, whole_prompt))
    assert run.tokens == {0: [2.0, 4.0, 10.0], 1: [12.0, 14.0]}
    assert run.started == {0: 0.0, 1: 0.0} and run.seconds == 14.0
    spans = [(span.kind, span.begin, span.end) for span in run.spans if span.slot == 0]
    assert spans == [("prompt", 0.0, 2.0), ("decode", 2.0, 4.0), ("decode", 8.0, 10.0)]


def test_a_static_batch_wastes_the_rows_of_short_answers() -> None:
    requests = [request(0, (1,), 2), request(1, (2,), 8), request(2, (3,), 2)]
    static = simulate(requests, 2, COSTS, Policy(admit_batch, whole_prompt, together=True))
    continuous = simulate(requests, 2, COSTS, Policy(admit_any, whole_prompt))
    assert static.started[2] > static.tokens[1][-1] - 1e-9 > continuous.started[2]
    assert any(span.kind == "wasted" for span in static.spans)
    assert not any(span.kind == "wasted" for span in continuous.spans)
    assert continuous.utilisation > static.utilisation


def test_what_a_slot_holds_is_not_read_again() -> None:
    text = (1, 2, 3, 4)
    run = simulate([request(0, text, 1), request(1, (*text, 5), 1, 100.0)], 1, COSTS, Policy(admit_any, whole_prompt))
    assert run.cached == {0: 0, 1: 4} and run.tokens[1] == [101.0]


@given(st.integers(0, 999), st.integers(1, 5), st.booleans(), st.sampled_from([None, 2.0, 20.0]))
def test_every_request_gets_all_its_tokens_in_order(seed: int, slots: int, static: bool, rate: float | None) -> None:
    requests = mixed_requests(12, rate=rate, seed=seed)
    policy = Policy(admit_batch if static else admit_any, whole_prompt, together=static)
    run = simulate(requests, slots, Costs(), policy)
    assert {number: len(times) for number, times in run.tokens.items()} == {each.number: each.n for each in requests}
    assert all(gap > 0 for gap in run.gaps) and all(wait > 0 for wait in run.first_tokens)
    assert 0 < run.utilisation <= 1 + 1e-9
    for slot in range(slots):
        own = sorted((span.begin, span.end) for span in run.spans if span.slot == slot)
        assert all(after[0] >= before[1] - 1e-9 for before, after in pairwise(own))


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (Policy(lambda waiting, slots: [(9, 0)], whole_prompt), "request 9 cannot begin in slot 0"),
        (Policy(lambda waiting, slots: [(0, 5)], whole_prompt), "request 0 cannot begin in slot 5"),
        (Policy(lambda waiting, slots: [], whole_prompt), "nothing happens"),
        (Policy(admit_any, lambda *_: 0), "a chunk of 0 tokens"),
        (Policy(admit_any, lambda left, *_: left + 1), "with 2 left"),
    ],
)
def test_impossible_decisions(policy: Policy, said: str) -> None:
    with pytest.raises(StalledError, match=said):
        simulate([request(0, (1, 2), 2)], 2, COSTS, policy)


def test_figures_carry_their_numbers() -> None:
    requests = mixed_requests(6)
    run = simulate(requests, 2, Costs(), Policy(admit_batch, whole_prompt, together=True))
    figure = gantt(run, "Static")
    assert figure.text.splitlines()[1].startswith(f"{run.seconds:.2f} s") and "\nslot 1 |  P" in figure.text
    assert "-" in figure.text.splitlines()[2] and PLOTLY_MIME in figure.mime_bundle()
    curves = rows_curves({1: 10.0, 2: 18.0}, {1: 12.0, 2: 24.0}, {2: 20.0}, "Rows")
    assert "75%" in curves.text and "<svg" not in curves.text
    assert "p95" in two_sided((1, 2), {"p95": (3.0, 4.0)}, "t", "x", "ms", marked=1.0).text


@pytest.mark.parametrize("values", [(33.0, 3375.0), (0.02, 0.02), (100.0, 500.0), (0.0, 7.0)])
def test_a_logarithmic_axis_shows_all_values_between_labelled_ticks(values: tuple[float, float]) -> None:
    axis = two_sided((1, 2), {"p95": values}, "t", "x", "ms", logarithmic="xy").plotly.layout.yaxis
    low, high = (10**end for end in axis.range)
    shown = [tick for tick in axis.tickvals if low <= tick <= high]
    assert len(shown) >= 2 and all(shown[0] <= value <= shown[-1] for value in values if value > 0)
    assert axis.ticktext[axis.tickvals.index(shown[0])] == f"{shown[0]:,g}"


def test_the_roof_bends_between_two_measured_points() -> None:
    curves = rows_curves({1: 10.0, 2: 12.0}, {1: 20.0, 2: 30.0, 1.5: 30.0}, {}, "Rows").plotly
    assert curves.data[0].x == (1, 1.5, 2) and curves.layout.xaxis.ticktext == ("1", "2")


@pytest.mark.parametrize(("share", "said"), [(0.02, ""), (0.6, "used 60 % of the CPU cores during the measurement")])
def test_other_load_is_named(
    share: float, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measuring.OtherLoad, "share", lambda self: share)
    with watched_load():
        pass
    assert said in (printed := capsys.readouterr().out) and bool(printed) == bool(said)


# The checks


def admit(waiting, slots):
    """Written another way than the lab's solution."""
    free, pairs = {slot.number: slot for slot in slots if slot.is_free}, []
    for request in waiting[: len(free)]:
        shared = {number: common_prefix(slot.tokens, request.prompt) for number, slot in free.items()}
        best = max(shared, key=shared.__getitem__)
        if 10 * shared[best] <= len(request.prompt):
            best = sorted(free, key=lambda number: free[number].last_used)[0]
        pairs.append((request.number, best))
        del free[best]
    return pairs


def next_chunk(left, rows, limit, costs):
    size = min(left, costs.ubatch)
    while rows and size > 1 and costs.step_seconds(rows) + size * costs.token > limit:
        size -= 1
    return size


def stop_string(pieces, stop):
    """Character by character."""
    text, shown, sent = "".join(pieces), 0, []
    end = text.find(stop)
    read = 0
    for piece in pieces:
        read += len(piece)
        if end >= 0 and end + len(stop) <= read:
            return [*sent, text[shown:end]]
        safe = next(at for at in range(shown, read + 1) if stop.startswith(text[at:read]))
        sent.append(text[shown:safe])
        shown = safe
    return [*sent, text[shown:]]


def latencies(events):
    found = []
    for number in sorted({number for _, number, _, _ in events}):
        (sent,) = [at for at, each, kind, _ in events if each == number and kind == "sent"]
        texts = [at for at, each, kind, text in events if each == number and kind == "text" and text != ""]
        found.append((texts[0] - sent, max([b - a for a, b in pairwise(texts)] or [0.0])))
    return found


RIGHT: dict[Item, Callable] = {
    lab13.admit: admit, lab13.next_chunk: next_chunk, lab13.stop_string: stop_string, lab13.latencies: latencies,
}  # fmt: skip


def test_right_answers_pass() -> None:
    assert set(RIGHT) == set(lab13.ITEMS)
    for item, answer in RIGHT.items():
        for each in (answer, solutions("13")[item.name]):
            assert item(each).passed, item(each).message
    assert str(lab13.score()).startswith("lab 13: 4 of 4 solved")


@given(st.lists(st.text("ab", max_size=4), max_size=8), st.text("ab", min_size=1, max_size=4))
def test_no_part_of_a_stop_string_is_sent(pieces: list[str], stop: str) -> None:
    sent = solutions_of_13()["stop_string"](pieces, stop)
    assert sent == stop_string(pieces, stop) and "".join(sent) == "".join(pieces).partition(stop)[0]


def solutions_of_13(found: dict = {}) -> dict:  # noqa: B006
    return found or (found.update(solutions("13")) or found)


WRONG: list[tuple[Item, Callable, str]] = [
    (
        lab13.admit,
        lambda w, s: [(r.number, x.number) for r, x in zip(w, s, strict=False)],
        "is_free|common_prefix|shape",
    ),
    (lab13.admit, lambda w, s: admit(w, s)[:1], "one request a turn"),
    (lab13.admit, lambda w, s: [(b, a) for a, b in admit(w, s)], "(request, slot)"),
    (lab13.admit, lambda w, s: admit(w[::-1], s), "first come"),
    (lab13.admit, lambda w, s: [pair for pair in admit(w, s) if pair[0] != 9], "wrong value|shape"),
    (lab13.admit, lambda w, s: [r.number for r in w], "list of pairs"),
    (lab13.next_chunk, lambda left, rows, limit, costs: min(left, costs.ubatch), "whole prompt"),
    (lab13.next_chunk, lambda left, rows, limit, costs: 1 if rows else next_chunk(left, 0, limit, costs), "always one"),
    (lab13.next_chunk, lambda left, rows, limit, costs: int(limit / costs.token), "no gap|subtract|wrong value"),
    (lab13.stop_string, lambda p, s: [*p, ""], "the stop string|split|want"),
    (lab13.stop_string, lambda p, s: "".join(p), "list of texts"),
    (lab13.latencies, lambda e: 1e3 * np.array(latencies(e)), "seconds out"),
    (lab13.latencies, lambda e: [(a, b) for b, a in latencies(e)], "comes first"),
    (lab13.latencies, lambda e: [a for a, _ in latencies(e)], "shape"),
]


@pytest.mark.parametrize(("item", "answer", "said"), WRONG)
def test_mistakes_are_named(item: Item, answer: Callable, said: str) -> None:
    result = item(answer)
    assert not result.passed
    assert any(part in result.message for part in said.split("|")), result.message
