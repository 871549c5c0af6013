"""`minillama worker`: compute for a leader, `minillama run --workers ...` (llama.cpp: ggml-rpc-server).

The leader names its workers. They form one group, receive the model if they do not have it, and compute its steps
together. When the leader disconnects, each worker waits for the next leader. Ctrl-C ends the worker.
"""

import argparse
import os
import sys

from minillama.cli.arguments.model_from_args import platform_of, take_secret
from minillama.cli.arguments.option import Option, add_options
from minillama.cli.arguments.parser import Parser
from minillama.cli.arguments.values import integer
from minillama.cli.end_signals import handle_end_signals
from minillama.cli.output.terminal import note
from minillama.errors import OptionError

EPILOG = """\
Security: a leader must prove possession of the secret before a worker reads anything else, and received data is never
executed. But traffic is not encrypted, and traffic between workers is not signed: use a trusted network such as
WireGuard. A single worker can be reached through ssh instead, with --token-file on both; on the leader's host:
  ssh -N -L 50052:127.0.0.1:50052 user@worker
  minillama run --workers 127.0.0.1:50052 --token-file token -p "Once upon a time"
"""

_OPTIONS = (
    Option(("-H", "--host"), "address to listen on; 0.0.0.0: all addresses (default: 127.0.0.1)", str,
           "127.0.0.1", value="ADDRESS"),
    Option(("-p", "--port"), "port to listen on; 0: a free one (default: 50052)", integer, 50052),
)  # fmt: skip

_TOKEN = (
    Option(("--token-file",), "file with the secret of leader and workers (default: value of MINILLAMA_TOKEN; on "
           "loopback the user's own, which the first start makes)", value="FILE"),
)  # fmt: skip

_MACHINE = (
    Option(("-t", "--threads"), "CPU cores to use (default: the leader's choice, else all, divided evenly among "
           "the workers of this machine)", integer, -1, "LLAMA_ARG_THREADS"),
    Option(("-d", "-dev", "--device"), "cpu (or none), cuda or tpu (default: JAX's choice)", value="NAME"),
    Option(("-c", "--cache"), "ignored: received models are always cached", None, False),
)  # fmt: skip


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser: Parser = subparsers.add_parser(
        "worker", help="compute for a leader on another host", description=__doc__, epilog=EPILOG
    )  # type: ignore[assignment]
    add_options(parser, "network", _OPTIONS)
    add_options(parser, "secret", _TOKEN)
    add_options(parser, "machine", _MACHINE)


def run(args: argparse.Namespace) -> int:
    if not 0 <= args.port < 1 << 16:
        raise OptionError(f"--port {args.port} is not a port; give one from 1 to 65535, or 0 for a free one")
    from minillama.parallel.workers.addresses import format_address
    from minillama.parallel.workers.secret import is_loopback, own_secret
    from minillama.parallel.workers.supervisor import Supervisor, WorkerOptions, listen

    secret = take_secret(args.token_file)
    platform = platform_of(args.device) or ""
    command = (sys.executable, "-m", "minillama.cli.worker_main")
    os.environ.pop("JAX_NUM_CPU_DEVICES", None)  # a notebook may set it; here each process is one device
    if secret is None and is_loopback(args.host):
        own_secret()  # made or refused now, and not when a leader comes
    listener = listen(args.host, args.port, secret)
    handle_end_signals(even_ignored=True)  # so that `kill -INT` ends a worker that a script has started
    host, port = listener.getsockname()[:2]
    note(f"waiting for leaders on {format_address(host, port)}; Ctrl-C ends it")
    if not is_loopback(host):
        note("the secret is checked, but traffic is not encrypted: use a trusted network; see minillama worker --help")
    Supervisor(listener, WorkerOptions(command, secret, note, max(args.threads, 0), platform)).serve()
    return 0
