"""Graded items of lab 13: two decisions of a scheduler."""

from collections.abc import Sequence

from minillama.lab.grading.check import Answer, Mistake, NotYet, as_array, call, expect_equal, graded
from minillama.lab.grading.course_seed import hidden_random
from minillama.lab.language import message, translate
from minillama.lab.serving.batch_simulator import (
    Costs,
    Policy,
    SimulatedRequest,
    SimulatedRun,
    SlotView,
    StalledError,
    common_prefix,
    simulate,
    whole_prompt,
)

LAB = "13"
Pairs = list[tuple[int, int]]
Waiting = Sequence[SimulatedRequest]
Slots = Sequence[SlotView]


# ---- admit ----


def _admit(waiting: Waiting, slots: Slots, *, share: float = 0.1, busy: bool = False, newest: bool = False,
           recent: bool = False, one: bool = False, twice: bool = False, longest: bool = True,
           by_slot: bool = False) -> Pairs:  # fmt: skip
    """The right choice; each keyword makes one mistake."""
    free = [slot for slot in slots if slot.is_free or busy]
    pairs: Pairs = []
    for request in sorted(waiting, key=lambda each: -each.number if newest else each.number):
        if not free:
            break
        best = max(free, key=lambda slot: common_prefix(slot.tokens, request.prompt))
        if not longest or common_prefix(best.tokens, request.prompt) <= share * len(request.prompt):
            best = (max if recent else min)(free, key=lambda slot: slot.last_used)
        pairs.append((best.number, request.number) if by_slot else (request.number, best.number))
        if not twice:
            free.remove(best)
        if one:
            break
    return pairs


ADMIT_MISTAKES = (
    Mistake("a slot takes one request at a time: remove it from the free ones", lambda w, s: _admit(w, s, twice=True)),
    Mistake("this slot is busy: only slots with is_free can take a request", lambda w, s: _admit(w, s, busy=True)),
    Mistake("first come, first served: the request with the smallest number begins first",
            lambda w, s: _admit(w, s, newest=True)),
    Mistake("one request a turn is too few: as many begin as there are free slots",
            lambda w, s: _admit(w, s, one=True)),
    Mistake("without a common beginning take the slot whose last_used is smallest: its tokens are the oldest",
            lambda w, s: _admit(w, s, recent=True)),
    Mistake("the slot that holds the beginning of the prompt is the cheapest: compare with common_prefix",
            lambda w, s: _admit(w, s, longest=False)),
    Mistake("a common beginning of a tenth of the prompt or less is no reason to lose what the slot holds",
            lambda w, s: _admit(w, s, share=0.0)),
    Mistake("the pair is (request, slot), in this order", lambda w, s: _admit(w, s, by_slot=True)),
)  # fmt: skip


def _texts(seed: int) -> tuple[list[SimulatedRequest], list[SlotView]]:
    """Requests and slots that share much, little or nothing."""
    random = hidden_random(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(random.integers(1, 500, count).tolist())

    held = [tokens(60) for _ in range(5)]
    waiting = [
        SimulatedRequest(7, 0.0, held[1][:40] + tokens(20), 8),  # two thirds of its prompt are in slot 1
        SimulatedRequest(8, 0.1, held[3][:3] + tokens(57), 8),  # three tokens of 60 are in slot 3
        SimulatedRequest(9, 0.2, tokens(30), 8),
        SimulatedRequest(10, 0.3, tokens(30), 8),
        SimulatedRequest(12, 0.4, held[1][:50] + tokens(9), 8),
    ]
    used = random.permutation(5) + 1.0
    used[3] = used.max() + 1  # slot 3 was used last
    free = (True, True, False, True, True)
    slots = [SlotView(place, free[place], held[place], float(used[place])) for place in range(5)]
    return waiting, slots


@graded(LAB, "1. which requests begin, and where")
def admit(answer: Answer) -> str:
    """`admit(waiting, slots) -> [(request, slot), ...]`, alone and in the simulator."""
    for seed in (1301, 1302):
        waiting, slots = _texts(seed)
        cases: dict[str, tuple[Waiting, Slots]] = {
            message("five waiting and four free slots"): (waiting, slots),
            message("one waiting"): (waiting[2:3], slots),
            message("no free slot"): (waiting, slots[2:3]),
            message("an empty queue"): ([], slots),
        }
        for label, given in cases.items():
            _check_pairs(call(answer, *given, case=label), label)
            expect_equal(answer, given, _admit, ADMIT_MISTAKES, case=label)
    run = _simulated(Policy(answer, whole_prompt))  # type: ignore[arg-type]
    best = _simulated(Policy(_admit, whole_prompt))
    if list(run.started.values()) != sorted(run.started.values()) or run.cached != best.cached:
        raise NotYet("right in single turns, but over a whole run another order, or fewer tokens from the caches")
    return translate(
        "also over 24 requests in the simulator: {count} tokens of prompts were not read again.",
        count=sum(run.cached.values()),
    )


def _check_pairs(got: object, label: str) -> None:
    pairs = as_array(list(got) if isinstance(got, tuple | list) else got)
    if pairs.size and (pairs.ndim != 2 or pairs.shape[1] != 2):
        raise NotYet(
            translate(
                "return a list of pairs (request, slot); got shape {shape} for {case}",
                shape=pairs.shape,
                case=translate(label),
            )
        )


def _simulated(policy: Policy) -> SimulatedRun:
    """24 requests of three conversations, each with the beginning of its last one."""
    random = hidden_random(1303)
    texts = [tuple(random.integers(1, 500, 40).tolist()) for _ in range(3)]
    requests = []
    for number in range(24):
        which = number % 3
        texts[which] += tuple(random.integers(1, 500, 10).tolist())
        requests.append(SimulatedRequest(number, 0.02 * number, texts[which], int(random.integers(3, 12))))
    try:
        return simulate(requests, 4, Costs(), policy)
    except StalledError as error:
        raise NotYet(translate("in the simulator: {error}", error=error)) from None


# ---- next_chunk ----


def _next_chunk(left: int, rows: int, limit: float, costs: Costs, *, alone: bool = True, step: bool = True,
                least: int = 1, ubatch: bool = True, bounded: bool = True, one: bool = False) -> int:  # fmt: skip
    """The right size; each keyword makes one mistake."""
    most = min(left if bounded else 10**6, costs.ubatch if ubatch else 10**6)
    if rows == 0 and alone:
        return most
    fitting = int((limit - (costs.step_seconds(rows) if step else 0.0)) / costs.token)
    return 1 if one else max(least, min(fitting, most))


CHUNK_MISTAKES = (
    Mistake("without a text that is generated there is no gap: read as much as a pass takes",
            lambda *a: _next_chunk(*a, alone=False)),
    Mistake("the gap is a step and a chunk: subtract the seconds of the step from the limit first",
            lambda *a: _next_chunk(*a, step=False)),
    Mistake("0 or fewer tokens: the prompt would never be read. One token at least",
            lambda *a: _next_chunk(*a, least=-10**6)),
    Mistake("0 tokens: the prompt would never be read. One token at least", lambda *a: _next_chunk(*a, least=0)),
    Mistake("a pass takes costs.ubatch tokens at most", lambda *a: _next_chunk(*a, ubatch=False)),
    Mistake("there are only `left` tokens to read", lambda *a: _next_chunk(*a, bounded=False)),
    Mistake("this is the whole prompt; how long do the other texts wait for it?",
            lambda left, rows, limit, costs: min(left, costs.ubatch)),
    Mistake("always one token: nobody waits, and the prompt takes a turn for each of its tokens",
            lambda *a: _next_chunk(*a, one=True)),
)  # fmt: skip


@graded(LAB, "2. how much of a prompt to read")
def next_chunk(answer: Answer) -> str:
    """`next_chunk(left, rows, limit, costs) -> tokens`, alone and in the simulator."""
    costs = Costs(step=0.0203, row=0.0011, token=0.00097, ubatch=128)
    cases = ((900, 0, 0.1), (50, 0, 0.1), (900, 4, 0.1), (30, 4, 0.1), (900, 4, 0.02), (900, 6, 0.0268), (900, 2, 0.9))
    for left, rows, limit in cases:
        case = translate(
            "{left} tokens left, {rows} texts and a limit of {limit:g} ms", left=left, rows=rows, limit=1e3 * limit
        )
        expect_equal(answer, (left, rows, limit, costs), _next_chunk, CHUNK_MISTAKES, case=case)
    limit = 0.08
    run = _chunked(answer, limit)
    whole = _chunked(whole_prompt, limit)
    if max(run.gaps) > limit + 1e-9:
        raise NotYet(
            translate(
                "a text waited {waited:.0f} ms for its next token, with a limit of {limit:.0f}",
                waited=1e3 * max(run.gaps),
                limit=1e3 * limit,
            )
        )
    longest, without = 1e3 * max(run.gaps), 1e3 * max(whole.gaps)
    return translate(
        "the longest gap in the simulator is {longest:.0f} ms; with whole prompts {without:.0f} ms.",
        longest=longest,
        without=without,
    )


def _chunked(answer: Answer, limit: float) -> SimulatedRun:
    random = hidden_random(1304)
    requests = [
        SimulatedRequest(number, 0.15 * number, tuple(random.integers(1, 500, 300).tolist()), 20) for number in range(8)
    ]
    try:
        return simulate(requests, 4, Costs(), Policy(_admit, answer, limit))  # type: ignore[arg-type]
    except StalledError as error:
        raise NotYet(translate("in the simulator: {error}", error=error)) from None
