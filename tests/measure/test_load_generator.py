"""Load on a fake server with known times; events, plans and figures against short references."""

import asyncio
from itertools import pairwise
from statistics import fmean

import pytest
from fake_llm_server import FakeServer
from hypothesis import given
from hypothesis import strategies as st

from minillama.errors import OptionError, ResourceError
from minillama.measure.serving.event_stream import EventLines, check_url, error_message
from minillama.measure.serving.load_figures import error_lines, figures, median_figures, meets
from minillama.measure.serving.load_generator import ClosedLoop, OpenLoop, Outcome, Server, run_load, warm_up
from minillama.measure.serving.server_apis import APIS
from minillama.measure.serving.workload import Workload, plan_requests

SHORT = Workload(prompt_words=(2, 4), max_tokens=(5, 5))


def events_of(text: bytes) -> list[str]:
    """Reference: the data of whole events in a whole stream."""
    blocks = text.replace(b"\r\n", b"\n").split(b"\n\n")[:-1]
    data = [[line[5:].removeprefix(b" ").decode() for line in block.split(b"\n") if line.startswith(b"data:")]
            for block in blocks]  # fmt: skip
    return ["\n".join(lines) for lines in data if lines]


@given(
    st.lists(st.sampled_from(["data: a", "data:b", "data: {}", ": ping", "event: x", "", ""]), max_size=20),
    st.sampled_from(["\n", "\r\n"]),
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_events_do_not_depend_on_the_cuts(lines: list[str], end: str, cuts: list[int]) -> None:
    stream = "".join(line + end for line in lines).encode()
    parser, found, at = EventLines(), [], 0
    for turn in range(len(stream) + 1):
        size = cuts[turn % len(cuts)]
        found += parser.push(stream[at : at + size])
        at += size
    assert found == events_of(stream)


@pytest.mark.parametrize("api", APIS)
def test_a_closed_loop_measures_what_the_server_does(api: str) -> None:
    with FakeServer(first=0.03, gap=0.01).running() as fake:
        server = Server(fake.url, api=APIS[api], api_key="k", model="tiny")
        done, seconds = run_load(server, ClosedLoop(3), plan_requests(SHORT, 6), SHORT)
    assert fake.most_at_a_time == 3 and len(fake.bodies) == 6 and set(fake.paths) == {APIS[api].path}
    assert set(fake.keys) == {"Bearer k"} and all(body["model"] == "tiny" for body in fake.bodies)
    assert all(body["ignore_eos"] and body["top_k"] == 40 and body["stream"] for body in fake.bodies)
    for outcome in done:
        assert outcome.error is None and outcome.tokens == 5 and len(outcome.gaps) == 4
        assert (outcome.prompt_tokens, outcome.cached_tokens) == (10, 4)
        assert outcome.first_text is not None and outcome.first_text >= 0.029 and fmean(outcome.gaps) >= 0.009
        assert outcome.total >= outcome.first_text + sum(outcome.gaps)
    found = figures(done, seconds, {"ttft": 1.0})
    assert found.output_tokens == 30 and found.goodput == 0 and found.requests_per_second == pytest.approx(6 / seconds)
    assert found.ttft_ms.p50 >= 29 and found.itl_ms.mean >= 9 and found.tpot_ms.p99 <= found.itl_ms.p99
    assert 1 < found.in_flight <= 3.001  # Little's law: the mean number of requests in the server


def test_an_open_loop_does_not_wait_for_answers() -> None:
    with FakeServer(first=0.05, slots=1).running() as fake:
        requests = plan_requests(SHORT, 6, rate=400.0)
        done, seconds = run_load(Server(fake.url), OpenLoop(400.0), requests, SHORT)
    assert fake.most_at_a_time >= 5  # they have all arrived while the first one is answered
    assert seconds >= 0.3 and max(outcome.total for outcome in done) >= 0.2
    sent = [outcome.sent - done[0].sent for outcome in done]
    assert sent == pytest.approx([request.at for request in requests], abs=0.04)


def test_refusals_and_broken_streams_are_counted() -> None:
    with FakeServer(fail_at=frozenset([1]), cut_at=frozenset([2])).running() as fake:
        done, seconds = run_load(Server(fake.url), ClosedLoop(1), plan_requests(SHORT, 4), SHORT)
    assert [outcome.error is None for outcome in done] == [True, False, False, True]
    assert done[1].error == "HTTP 503: too many" and "breaks off" in str(done[2].error)
    found = figures(done, seconds)
    assert (found.requests, found.errors, found.output_tokens) == (4, 2, 10)
    assert found.goodput is None and len(error_lines(done)) == 2


def test_a_slow_answer_ends_at_the_timeout() -> None:
    with FakeServer(first=5.0).running() as fake:
        (done,), seconds = run_load(Server(fake.url, timeout=0.1), ClosedLoop(1), plan_requests(SHORT, 1), SHORT)
    assert done.error == "no answer in 0.1 s" and seconds < 3


def test_warm_up_fails_with_one_line() -> None:
    async def closed_port() -> int:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return port

    server = Server(f"http://127.0.0.1:{asyncio.run(closed_port())}", label="mine")
    with pytest.raises(ResourceError, match=r"^mine: cannot reach http://127\.0\.0\.1:\d+: "):
        warm_up(server, plan_requests(SHORT, 1), SHORT)


def test_strict_requests_have_openai_fields_only() -> None:
    (request,) = plan_requests(SHORT, 1)
    body = APIS["chat"].request_body(request, SHORT, "", strict=True)
    assert set(body) == {"model", "messages", "max_tokens", "stream", "stream_options", "temperature", "top_p", "seed"}
    assert body["messages"] == [{"role": "user", "content": request.prompt}]


def test_plans_follow_from_the_seed() -> None:
    workload = Workload(shared_words=3)
    one, same, other = (plan_requests(workload, 200, rate=5.0, run=run) for run in (0, 0, 1))
    assert one == same and one != other
    assert len({" ".join(request.prompt.split()[:3]) for request in one + other}) == 1
    assert all(23 <= len(request.prompt.split()) <= 63 for request in one)
    gaps = [after.at - before.at for before, after in pairwise(one)]
    assert fmean(gaps) == pytest.approx(0.2, rel=0.2) and min(gaps) > 0


def test_goodput_and_medians() -> None:
    quick = Outcome(0.0, 0.1, [0.01, 0.03], 0.2, tokens=3)
    slow = Outcome(0.0, 0.5, [0.02, 0.2], 0.9, tokens=3)
    short = Outcome(0.0, 0.1, [], 0.1, tokens=1)
    assert meets(quick, {"ttft": 100.1, "tpot": 20.1, "itl": 30.1, "e2el": 200.1})
    assert not meets(quick, {"itl": 29.0}) and not meets(slow, {"ttft": 400.0}) and meets(short, {"tpot": 1.0})
    found = [figures([quick, slow, short], seconds, {"ttft": 400.0}) for seconds in (1.0, 2.0, 4.0)]
    assert found[1].goodput == 1.0 and median_figures(found).goodput == 1.0
    assert median_figures(found[:1]) == found[0] and median_figures(found).itl_ms == found[0].itl_ms
    assert found[0].itl_ms.p50 == pytest.approx(25) and found[0].tpot_ms.mean == pytest.approx(65)


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x", "http://", "http://a:b", "http://[", ""])
def test_addresses_without_a_server(url: str) -> None:
    with pytest.raises(OptionError, match="expected the address of a server"):
        check_url(url)


def test_messages_of_errors() -> None:
    assert error_message('{"error": {"message": "no"}}') == "no" and error_message('{"error": "no"}') == "no"
    assert error_message("<html>\n busy") == "<html> busy" and error_message("[]") == "[]"
