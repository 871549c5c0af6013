"""`minillama bench-serve`: load on servers, and the speed that their users get (vLLM: bench serve)."""

import argparse
import json
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterator
from typing import TYPE_CHECKING

from minillama.cli.arguments.option import Option, add_options
from minillama.cli.arguments.values import choice, integer, integer_in, list_of, number, numbers, read_list
from minillama.cli.output.terminal import INTERRUPTED, note, write_text
from minillama.errors import OptionError

if TYPE_CHECKING:
    from minillama.measure.serving.load_figures import LoadFigures
    from minillama.measure.serving.load_generator import Load, Outcome, Server
    from minillama.measure.serving.workload import Workload

DESCRIPTION = """\
Send requests to one or more servers (llama-server, vLLM, minillama serve, any OpenAI server) and measure the time to
first token (TTFT), the time between pieces of text (ITL), the time of a whole answer (E2EL), and throughput.
Closed loop (--clients): each client sends its next request when it has its answer. Open loop (--rate): requests arrive
at random, at a rate, however slow the server is. Several servers get the same requests in turn.
"""
EPILOG = """\
examples:
  minillama bench-serve http://127.0.0.1:8080 --clients 1,8,32
  minillama bench-serve http://127.0.0.1:8080 --rate 1,2,4,8 --goodput ttft:500,tpot:100
  minillama bench-serve http://127.0.0.1:8080 http://127.0.0.1:8081 --label ours,theirs --rounds 3
"""
LEAST_REQUESTS, REQUESTS_PER_LOAD = 8, 4


def _span(text: str) -> tuple[int, int]:
    """`20-60` or `64`."""
    try:
        found = numbers(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error
    return found[0], found[-1]


def _rate(text: str) -> float:
    value = number(text)
    if not 0 < value < float("inf"):
        raise ArgumentTypeError("expected requests per second, above 0")
    return value


def _limit(text: str) -> tuple[str, float]:
    name, colon, milliseconds = text.partition(":")
    if name not in ("ttft", "tpot", "itl", "e2el") or not colon:
        raise ArgumentTypeError("expected NAME:MILLISECONDS, with ttft, tpot, itl or e2el as the name")
    return name, number(milliseconds)


_LOAD = (
    Option(("--clients",), "closed loop: numbers of clients, one run each (default: 8)", read_list(1)),
    Option(("--rate",), "open loop: requests per second, one run each", list_of(_rate)),
    Option(("--requests",), "requests of a run (default: 4 per client or per request a second, at least 8)",
           integer_in(1)),
    Option(("--rounds",), "runs of each load; medians are shown (default: 1)", integer_in(1), 1),
    Option(("--warmup",), "short requests before the first run (default: 4)", integer_in(0), 4),
)  # fmt: skip
_REQUESTS = (
    Option(("--api",), "completions, chat or native (llama-server's /completion) (default: completions)",
           choice("completions", "chat", "native"), "completions", value="NAME"),
    Option(("--prompt-words",), "fewest and most words of a prompt (default: 20-60)", _span, (20, 60),
           value="LOW-HIGH"),
    Option(("--shared-words",), "words that all prompts begin with (default: 0)", integer_in(0), 0),
    Option(("--max-tokens",), "fewest and most tokens of an answer (default: 64)", _span, (64, 64), value="LOW-HIGH"),
    Option(("--temp",), "temperature (default: 0.8)", number, 0.8),
    Option(("--ignore-eos",), "every answer has all its tokens (default: on)", None, True, off=("--no-ignore-eos",)),
    Option(("-s", "--seed"), "seed of the prompts and the arrival times (default: 7)", integer, 7),
    Option(("-m", "--model"), "name of the model in each request", value="NAME"),
    Option(("--api-key",), "key that each request shows", variable="OPENAI_API_KEY", value="KEY"),
    Option(("--strict",), "send only the fields that OpenAI's own servers accept", None, False),
    Option(("--timeout",), "seconds for a whole answer (default: 600)", number, 600.0),
)  # fmt: skip
_OUTPUT = (
    Option(("--label",), "names of the servers in the table, separated by commas", value="NAMES"),
    Option(("--goodput",), "count the requests within limits in milliseconds: ttft:300,tpot:50,itl:500,e2el:9000",
           list_of(_limit), value="LIMITS"),
    Option(("-o", "--output"), "md or json (default: md)", choice("md", "json"), "md", value="FORMAT"),
    Option(("--per-request",), "with -o json: the times of every request too", None, False),
)  # fmt: skip


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "bench-serve", help="measure servers under load", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("urls", nargs="+", metavar="URL", help="address of a server, as in http://127.0.0.1:8080")
    add_options(parser, "load", _LOAD)
    add_options(parser, "requests", _REQUESTS)
    add_options(parser, "output", _OUTPUT)


def run(args: argparse.Namespace) -> int:
    from minillama.measure.serving.load_generator import warm_up
    from minillama.measure.serving.workload import Workload, plan_requests

    servers, loads = _servers(args), _loads(args)
    workload = Workload(
        args.prompt_words, args.shared_words, args.max_tokens, args.temp, args.ignore_eos, args.seed
    )  # fmt: skip
    for server in servers:
        warm_up(server, plan_requests(workload, args.warmup, run=-1), workload)
    printer = _Printer(args, servers)
    try:
        for number_of_load, load in enumerate(loads):
            for server, found, outcomes in _measure(args, servers, load, workload, number_of_load):
                printer.show(server, load, found, outcomes)
    except KeyboardInterrupt:
        note("minillama: interrupted; the results so far are above")
        return INTERRUPTED
    finally:
        printer.close(workload)
    return int(printer.failed)


def _servers(args: argparse.Namespace) -> "list[Server]":
    from minillama.measure.serving.event_stream import check_url
    from minillama.measure.serving.load_generator import Server
    from minillama.measure.serving.server_apis import APIS

    labels = args.label.split(",") if args.label else [check_url(url).netloc for url in args.urls]
    if len(labels) != len(args.urls):
        raise OptionError(f"--label {args.label}: {len(labels)} names for {len(args.urls)} servers")
    if not args.timeout > 0:
        raise OptionError(f"--timeout {args.timeout:g}: should be a number of seconds above 0")
    for url in args.urls:
        check_url(url)
    return [
        Server(url, label, APIS[args.api], args.model or "", args.api_key or "", args.strict, args.timeout)
        for url, label in zip(args.urls, labels, strict=True)
    ]


def _loads(args: argparse.Namespace) -> "list[Load]":
    from minillama.measure.serving.load_generator import ClosedLoop, OpenLoop

    if args.clients and args.rate:
        raise OptionError("--clients and --rate: use one of them")
    if args.rate:
        return [OpenLoop(rate) for rate in args.rate]
    return [ClosedLoop(clients) for clients in args.clients or (8,)]


def _measure(
    args: argparse.Namespace, servers: "list[Server]", load: "Load", workload: "Workload", number_of_load: int
) -> "Iterator[tuple[Server, LoadFigures, list[Outcome]]]":
    """All rounds of a load; in each round every server gets the same requests."""
    from tqdm import tqdm

    from minillama.measure.serving.load_figures import figures, median_figures
    from minillama.measure.serving.load_generator import run_load
    from minillama.measure.serving.workload import plan_requests

    count = args.requests or max(LEAST_REQUESTS, int(REQUESTS_PER_LOAD * (load.rate or load.clients)))
    found: list[list[LoadFigures]] = [[] for _ in servers]
    outcomes: list[list[Outcome]] = [[] for _ in servers]
    total = count * args.rounds * len(servers)
    with tqdm(total=total, unit="request", leave=False, disable=not sys.stderr.isatty()) as bar:
        for turn in range(args.rounds):
            requests = plan_requests(workload, count, rate=load.rate, run=number_of_load * args.rounds + turn)
            for at, server in enumerate(servers):
                done, seconds = run_load(server, load, requests, workload, bar.update)
                found[at].append(figures(done, seconds, dict(args.goodput or ())))
                outcomes[at] += done
    for at, server in enumerate(servers):
        yield server, median_figures(found[at]), outcomes[at]


class _Printer:
    """Prints a row of Markdown after each load, or JSON at the end."""

    def __init__(self, args: argparse.Namespace, servers: "list[Server]") -> None:
        from minillama.measure.serving.load_tables import load_columns
        from minillama.measure.tables import md_head

        self.failed = False
        self._as_json, self._per_request = args.output == "json", args.per_request
        self._runs: list[dict[str, object]] = []
        self._columns = load_columns([server.label for server in servers], goodput=bool(args.goodput))
        if not self._as_json:
            write_text(md_head(self._columns))

    def show(self, server: "Server", load: "Load", found: "LoadFigures", outcomes: "list[Outcome]") -> None:
        from dataclasses import asdict

        from minillama.measure.serving.load_figures import error_lines
        from minillama.measure.serving.load_tables import LoadRow
        from minillama.measure.tables import md_row

        run: dict[str, object] = {"server": server.label, "url": server.url, "load": str(load), **found.as_dict()}
        if self._per_request:
            run["outcomes"] = [asdict(outcome) for outcome in outcomes]
        self._runs.append(run)
        if not self._as_json:
            write_text(md_row(self._columns, LoadRow(server.label, str(load), found)))
        for line in error_lines(outcomes):
            self.failed = True
            note(f"minillama: {server.label}, {load}: {line}")

    def close(self, workload: "Workload") -> None:
        from dataclasses import asdict

        if self._as_json:
            write_text(json.dumps({"workload": asdict(workload), "runs": self._runs}, indent=1) + "\n")
