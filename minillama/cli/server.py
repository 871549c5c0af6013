"""`minillama serve`: an HTTP server with OpenAI's interface (llama.cpp: llama-server)."""

import argparse
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from minillama.cli.arguments import llama_options, server_options
from minillama.cli.arguments.ignored_options import add_ignored_options
from minillama.cli.arguments.model_from_args import (
    check_sampling,
    load_model,
    sampling_options,
    stop_texts,
    template_variables,
)
from minillama.cli.arguments.option import add_options
from minillama.cli.arguments.prompt_text import process_escapes, read_file, read_grammar
from minillama.cli.arguments.values import integer_in
from minillama.cli.output.terminal import note
from minillama.errors import OptionError

if TYPE_CHECKING:
    from minillama.server.settings import Listening, ServerSettings, VertexSettings

DESCRIPTION = """\
Serve a model over HTTP, with OpenAI's interface and llama-server's. Many requests are written at once.
Ctrl-C ends it.
"""
DEFAULT_SLOTS = 4
NO_LIMIT = 1 << 20  # MiB


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("serve", help="an HTTP server for OpenAI's clients", description=DESCRIPTION)
    add_options(parser, "model", llama_options.MODEL)
    add_options(parser, "HTTP", server_options.HTTP)
    add_options(parser, "endpoints", server_options.ENDPOINTS)
    add_options(parser, "slots", server_options.SLOTS)
    add_options(parser, "defaults of requests", server_options.GENERATION)
    add_options(parser, "guessed tokens", llama_options.DRAFT)
    add_options(parser, "chat", server_options.CHAT)
    add_options(parser, "sampling", llama_options.SAMPLING + llama_options.GRAMMAR)
    add_options(parser, "machine", llama_options.DEVICE + llama_options.CONTEXT + llama_options.CACHE)
    add_options(parser, "devices and workers", llama_options.MULTI_DEVICE)
    add_options(parser, "output", server_options.OUTPUT)
    add_ignored_options(parser, "serve", *server_options.OTHERS)


def run(args: argparse.Namespace) -> int:
    check_sampling(args)
    settings, listening = server_settings(args), listening_options(args)

    from minillama.server.app import build_app
    from minillama.server.listen import HttpServer, addresses, open_sockets
    from minillama.server.model_host import ModelHost

    failures: list[BaseException] = []
    with ExitStack() as resources:
        sockets = open_sockets(listening, resources)
        shown = ", ".join(addresses(sockets, listening))

        def fail(error: BaseException) -> None:
            failures.append(error)
            server.end()

        host = ModelHost(settings, lambda: load_model(args), lambda host: note(f"listening on {shown}"), fail)
        server = HttpServer(build_app(host), listening, host.close)
        host.start()
        server.run_on(sockets)
    if failures:
        raise failures[0]
    return 0


def server_settings(args: argparse.Namespace) -> "ServerSettings":
    """The settings of a server from parsed arguments."""
    from minillama.server.settings import ChatSettings, Cors, DraftSettings, EmbeddingSettings, ServerSettings

    is_default = args.parallel < 0
    return ServerSettings(
        aliases=tuple(_names(args.alias)),
        tags=tuple(_names(args.tags)),
        api_keys=frozenset([*_names(args.api_key), *_key_file(args.api_key_file)]),
        api_prefix=args.api_prefix.rstrip("/"),
        cors=Cors(args.cors_origins, args.cors_methods, args.cors_headers, args.cors_credentials),
        chat=ChatSettings(
            args.jinja,
            args.prefill_assistant,
            "none" if args.skip_chat_parsing else args.reasoning_format,
            args.reasoning_budget,
            args.reasoning_budget_message,
            template_variables(args),
        ),
        embeddings=EmbeddingSettings(args.embedding, args.pooling, args.embd_normalize),
        vertex=_vertex(),
        slot_save_path=_folder("--slot-save-path", args.slot_save_path),
        idle_seconds=args.sleep_idle_seconds,
        slots=DEFAULT_SLOTS if is_default else args.parallel,
        shared_context=is_default if args.kv_unified is None else args.kv_unified,
        ctx_size=args.ctx_size,
        cache_ram=args.cache_ram if args.cache_ram >= 0 else NO_LIMIT,
        slot_similarity=args.slot_prompt_similarity,
        has_slots=args.slots,
        has_metrics=args.metrics,
        has_props=args.props,
        has_schedule=args.schedule,
        has_trace=args.trace,
        has_page=args.ui,
        static_path=_folder("--path", args.path),
        sampling=sampling_options(args),
        grammar=_grammar(args),
        breakers=tuple(process_escapes(text) for text in args.dry_sequence_breaker or () if text != "none"),
        n=args.predict,
        stop=stop_texts(args),
        keep=args.keep,
        ignore_eos=args.ignore_eos,
        context_shift=args.context_shift,
        draft=DraftSettings(args.draft_max, args.draft_min, args.draft_p_min),
        cache_prompt=args.cache_prompt,
        verbose=args.verbose,
        timeout=float(args.timeout),
        ping_interval=args.sse_ping_interval,
        http_threads=args.threads_http,
        warm_up=args.warmup,
        owns_process=True,
    )


def listening_options(args: argparse.Namespace) -> "Listening":
    """Addresses and TLS files from parsed arguments."""
    from minillama.server.settings import Listening

    hosts = tuple(_names(args.host))
    if not hosts:
        raise OptionError("--host '': give an address, such as 127.0.0.1")
    port = args.port
    if os.environ.get("AIP_MODE") == "PREDICTION":
        port = integer_in(0, 65535)(os.environ.get("AIP_HTTP_PORT", "8080"))
    return Listening(hosts, port, args.reuse_port, args.ssl_key_file, args.ssl_cert_file)


def _names(text: str | None) -> list[str]:
    """Names separated by commas."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _key_file(name: str | None) -> list[str]:
    """The keys of a file, one a line; lines that begin with # are comments."""
    lines = [] if name is None else read_file(name).splitlines()
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if name is not None and not keys:
        raise OptionError(f"--api-key-file {name}: no key in it; write one a line")
    return keys


def _folder(option: str, name: str | None) -> str | None:
    if name is not None and not Path(name).is_dir():
        raise OptionError(f"{option} {name}: not a folder")
    return name


def _grammar(args: argparse.Namespace) -> str:
    """The grammar of requests that give none, in GBNF.

    Raises OptionError for a schema that cannot be kept.
    """
    found = read_grammar(args)
    if "json_schema" not in found:
        return str(found.get("grammar", ""))
    from minillama.engine.grammar.json_schema.schema_grammar import schema_to_gbnf

    return schema_to_gbnf(found["json_schema"])


def _vertex() -> "VertexSettings | None":
    """Google Vertex AI's variables of the environment; None where it did not start this program."""
    from minillama.server.settings import VertexSettings

    if os.environ.get("AIP_MODE") != "PREDICTION":
        return None
    health, predict = (os.environ.get(name, "") for name in ("AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE"))
    return VertexSettings(_path(predict or "/predict"), _path(health) if health else "")


def _path(text: str) -> str:
    return text if text.startswith("/") else f"/{text}"
