"""`minillama bench-serve` against fake servers."""

import json

import pytest
from fake_llm_server import FakeServer

from minillama.cli import main

FEW = ["--requests", "4", "--max-tokens", "3", "--warmup", "1"]


def test_table_of_two_servers_in_turn(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeServer().running() as one, FakeServer(gap=0.005).running() as two:
        words = ["bench-serve", one.url, two.url, "--clients", "1,2", "--rounds", "2", "--label", "a,b"]
        assert main([*words, "--goodput", "ttft:9000,itl:1", *FEW]) == 0
        assert [body["prompt"] for body in one.bodies] == [body["prompt"] for body in two.bodies]
        assert len(one.bodies) == 1 + 2 * 2 * 4
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row[:4] for row in rows[2:]] == [
        [name, f"{count} clients", "4", "0"] for count in (1, 2) for name in ("a", "b")
    ]
    assert rows[0][-1] == "goodput" and float(rows[3][-1]) == 0 < float(rows[2][-1])
    assert rows[2][rows[0].index("cached")] == "16/40" and len({len(line) for line in lines}) == 1


def test_json_of_an_open_loop(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeServer().running() as fake:
        words = ["bench-serve", fake.url, "--rate", "200,400.5", "--api", "native", "-o", "json", "--per-request"]
        assert main([*words, *FEW]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["workload"]["max_tokens"] == [3, 3]
    assert [run["load"] for run in found["runs"]] == ["200/s", "400.5/s"]
    for run in found["runs"]:
        assert run["requests"] == 4 and run["output_tokens"] == 12 and run["goodput"] is None
        assert len(run["outcomes"]) == 4 and run["ttft_ms"]["p99"] >= run["ttft_ms"]["p50"] > 0


def test_errors_of_the_server_give_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeServer(fail_at=frozenset([2])).running() as fake:
        assert main(["bench-serve", fake.url, "--clients", "1", "--label", "busy", *FEW]) == 1
    assert "minillama: busy, 1 clients: 1 x HTTP 503: too many" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: URL"),
        (["127.0.0.1:80"], "127.0.0.1:80: expected the address of a server"),
        (["http://a", "--clients", "1", "--rate", "2"], "--clients and --rate: use one of them"),
        (["http://a", "--rate", "0"], "--rate 0: expected requests per second, above 0"),
        (["http://a", "--label", "a,b"], "--label a,b: 2 names for 1 servers"),
        (["http://a", "--goodput", "mean:3"], "--goodput mean:3: expected NAME:MILLISECONDS"),
        (["http://a", "--timeout", "nan"], "--timeout nan: should be a number of seconds above 0"),
        (["http://a", "--max-tokens", "9-2"], "--max-tokens 9-2: '9-2' ends before it begins"),
    ],
)
def test_errors_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench-serve", *words]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1, err
