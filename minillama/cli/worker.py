"""`minillama worker`: lend this machine to a leader, `minillama run --workers ...` (llama.cpp: ggml-rpc-server).

The leader names its workers; they form one group, get the model if they lack it, and compute its steps together. When
the leader leaves, each waits for the next. Ctrl-C ends it.
"""

import argparse
import os
import signal
import sys

from minillama.cli.arguments import llama_options
from minillama.cli.arguments.llama_options import Option
from minillama.cli.arguments.model_from_args import platform_of, take_secret
from minillama.cli.arguments.parser import Parser
from minillama.cli.output.terminal import note
from minillama.errors import OptionError

EPILOG = """\
Safety: a leader proves that it knows the secret before anything else is read, and what arrives is never executed. But
nothing is encrypted, and what the workers send each other while they compute is not even signed: let them meet in a
network that you trust, such as WireGuard's. A single worker can be reached through ssh instead; on the main host:
  ssh -N -L 50052:127.0.0.1:50052 user@worker
  minillama run --workers 127.0.0.1:50052 -p "Once upon a time"
"""

_OPTIONS = (
    Option(("-H", "--host"), "address to listen on; 0.0.0.0: all of this machine's (default: 127.0.0.1)", str,
           "127.0.0.1", value="ADDRESS"),
    Option(("-p", "--port"), "port to listen on; 0: a free one (default: 50052)", int, 50052),
)  # fmt: skip

_TOKEN = (
    Option(("--token-file",), "file with the secret that leader and workers share, needed unless all are on loopback "
           "(default: what MINILLAMA_TOKEN holds)", value="FILE"),
)  # fmt: skip

_MACHINE = (
    Option(("-t", "--threads"), "processor cores to lend (default: what the leader asks for, else all, shared out "
           "evenly among the workers of this machine)", int, -1, "LLAMA_ARG_THREADS"),
    Option(("-d", "-dev", "--device"), "cpu (or none), cuda or tpu (default: what JAX chooses)", value="NAME"),
    Option(("-c", "--cache"), "accepted; models that were sent are always kept", None, False),
)  # fmt: skip


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser: Parser = subparsers.add_parser(
        "worker", help="lend this machine to a leader elsewhere", description=__doc__, epilog=EPILOG
    )  # type: ignore[assignment]
    llama_options.add_options(parser, "network", _OPTIONS)
    llama_options.add_options(parser, "secret", _TOKEN)
    llama_options.add_options(parser, "machine", _MACHINE)


def run(args: argparse.Namespace) -> int:
    if not 0 <= args.port < 1 << 16:
        raise OptionError(f"--port {args.port} is not a port; give one from 1 to 65535, or 0 for a free one")
    from minillama.parallel.workers.addresses import format_address
    from minillama.parallel.workers.secret import is_loopback
    from minillama.parallel.workers.supervisor import Supervisor, WorkerOptions, listen

    secret = take_secret(args.token_file)
    platform = platform_of(args.device) or ""
    command = (sys.executable, "-m", "minillama.cli.worker_main")
    os.environ.pop("JAX_NUM_CPU_DEVICES", None)  # a notebook's virtual ones: here each process is one device
    listener = listen(args.host, args.port, secret)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does: nothing is left behind
    host, port = listener.getsockname()[:2]
    note(f"waiting for leaders on {format_address(host, port)}; Ctrl-C ends it")
    if not is_loopback(host):
        note(
            "the secret is checked, but nothing is encrypted: use a network that you trust; see minillama worker --help"
        )
    Supervisor(listener, WorkerOptions(command, secret, note, max(args.threads, 0), platform)).serve()
    return 0
