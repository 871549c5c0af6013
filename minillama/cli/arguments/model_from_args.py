"""Load a model and choose sampling options from parsed arguments."""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from minillama import env
from minillama.cli.arguments.parser import shown_value
from minillama.cli.arguments.prompt_text import process_escapes, read_file, read_grammar, text_bytes
from minillama.engine.load_options import LoadOptions
from minillama.engine.loading.device_sharing import SplitMode
from minillama.errors import OptionError, ResourceError, first_line
from minillama.lazy_imports import jax_packages_only
from minillama.sampling.sampler_order import sequence_to_names
from minillama.sampling.sampling_params import FIELDS, Sampling, SamplingOptions

if TYPE_CHECKING:
    from minillama.engine.generate_options import GenerateOptions
    from minillama.engine.llm import LLM

logger = logging.getLogger("minillama")

_PLATFORMS = {"none": "cpu", "cpu": "cpu", "cuda": "cuda", "cuda0": "cuda", "gpu": "cuda", "tpu": "tpu"}


def set_verbosity(args: argparse.Namespace) -> None:
    """Apply -v, -lv and --log-disable."""
    level = logging.ERROR if args.log_disable or args.verbosity < 2 else logging.WARNING
    logging.getLogger("minillama").setLevel(logging.DEBUG if args.verbose or args.verbosity > 3 else level)


def is_quiet(args: argparse.Namespace) -> bool:
    """True if timings and progress are not shown on stderr."""
    return args.log_disable or args.verbosity < 3


def find_model(args: argparse.Namespace) -> "Path":
    """The model file of -m, -hf and related options; downloads it if needed."""
    from minillama.engine.loading.model_files import resolve

    if args.hf_token:
        os.environ["HF_TOKEN"] = args.hf_token
    model, repository = args.model, args.hf_repo
    if model == "":
        raise OptionError("-m '': expected a file; without -m the built-in model runs")
    # -m and -hf contradict each other, unless one of them comes from the environment.
    if model is not None and repository is not None:
        if repository == os.environ.get("LLAMA_ARG_HF_REPO"):
            repository = None
        elif model == os.environ.get("LLAMA_ARG_MODEL"):
            model = None
    return resolve(model, hf_repo=repository, hf_file=args.hf_file, offline=args.offline)


def load_model(args: argparse.Namespace) -> "LLM":
    """Load a model for sampling; wrong options raise before any slow step.

    Where a chat may follow, the process that renders its template starts meanwhile.
    """
    set_verbosity(args)
    check_sampling(args)
    template = read_template(args)
    if getattr(args, "conversation", False) is not False:
        from minillama.tokenizer.chat.template_process import SHARED

        SHARED.prepare()
    return open_model(args, template)


def open_model(args: argparse.Namespace, chat_template: str | None = None) -> "LLM":
    """Prepare the machine, find the model file and load it."""
    set_verbosity(args)
    platform_of(args.device)
    if args.load_mode == "dio":
        logger.warning("-lm dio has no effect: the file is read as with auto")
    check_sharing(args)
    check_flash_attention(getattr(args, "other_flash_attn", None), args.cache_type_v)
    path = find_model(args)
    prepare_machine(args.device, args.threads, args.threads_batch, virtual_devices(args), in_cluster(args))
    options = LoadOptions.from_args(
        args,
        offline=False,  # `path` is a file already
        hf_repo=None,
        hf_file=None,
        n_gpu_layers=args.gpu_layers,
        use_mmap=args.mmap if args.load_mode in ("auto", "dio") else "mmap" in args.load_mode,
        use_mlock=args.mlock or "mlock" in args.load_mode,
        chat_template=chat_template,
        secret=None if args.workers is None else take_secret(args.token_file),
        **draft_options(args),
        threads=max(args.threads, 0),
        progress=sys.stderr.isatty() and not is_quiet(args),
    )
    from minillama.engine.compile.executable_cache import prefetch_model

    prefetch_model(path, options)  # while the rest of the engine is imported
    from minillama.engine.load import open_model as open_with

    return open_with(path, options)


def draft_options(args: argparse.Namespace) -> dict[str, object]:
    """Options of `load` for the draft model, whose file is downloaded if needed."""
    from minillama.engine.loading.model_files import resolve

    model, repository = getattr(args, "model_draft", None), getattr(args, "hf_repo_draft", None)
    if model is None and repository is None:
        return {}
    path = resolve(model, hf_repo=repository, hf_file=None, offline=args.offline, is_draft=True)
    return {"model_draft": path, "hf_repo_draft": None, "n_gpu_layers_draft": args.gpu_layers_draft}


def check_sharing(args: argparse.Namespace) -> None:
    """Raise OptionError for contradicting multi-device options, before anything is loaded."""
    modes = [mode.value for mode in SplitMode]
    if args.split_mode not in (None, *modes):
        raise OptionError(f"-sm {args.split_mode}: use one of {', '.join(modes)}")
    if args.tensor_parallel < 1:
        raise OptionError(f"-tp {args.tensor_parallel}: should be 1 or more devices")
    together = [name for name in ("coordinator", "num_processes", "process_id") if getattr(args, name) is not None]
    if together and len(together) < 3:
        raise OptionError(
            "--coordinator, --num-processes, --process-id are used together; give all three, or --cluster"
        )
    if args.workers is None:
        return
    if in_cluster(args) is not None:
        raise OptionError("--workers and --cluster: use one of them; with --cluster there is no leader")
    for name, given in (("-tp", args.tensor_parallel > 1), ("-mg", args.main_gpu)):
        if given:
            raise OptionError(f"{name} and --workers: the workers named compute together; leave {name} out")


def check_flash_attention(flash_attn: bool | None, cache_type_v: str) -> None:
    """Raise OptionError for quantised values with -fa off, as llama.cpp does."""
    from minillama.gguf.kv_cache_types import read_cache_types

    if flash_attn is False and read_cache_types("f16", cache_type_v).values.is_quantised:
        raise OptionError(f"-fa off: -ctv {cache_type_v} requires flash attention; leave -fa out, or use -ctv f16")


class Cluster(NamedTuple):
    """Values of --coordinator, --num-processes and --process-id; None: the scheduler gives them."""

    coordinator: str | None
    num_processes: int | None
    process_id: int | None


def in_cluster(args: argparse.Namespace) -> Cluster | None:
    """The cluster of this process, or None."""
    found = Cluster(args.coordinator, args.num_processes, args.process_id)
    return found if args.cluster or found.coordinator is not None else None


def virtual_devices(args: argparse.Namespace) -> int:
    """Number of virtual CPU devices that the options need."""
    return max(args.tensor_parallel, len(args.tensor_split))


def take_secret(file: str | None) -> bytes | None:
    """The secret of --token-file, else of MINILLAMA_TOKEN.

    The variable is removed from the environment, so that child processes do not inherit it.
    """
    from minillama.parallel.workers.secret import read_secret

    text = os.environ.pop("MINILLAMA_TOKEN", None)
    return read_secret(Path(file).expanduser() if file is not None else None, text)


def prepare_machine(
    device: str | None,
    threads: int | None,
    threads_batch: int | None = None,
    cpu_devices: int = 1,
    cluster: "Cluster | None" = None,
) -> None:
    """Set CPU cores and platform before JAX starts.

    cpu_devices: virtual CPU devices, if more than 1. cluster: processes on other hosts that run the same command; only
    the first one writes to stdout. Raises ResourceError if JAX does not find the platform.
    """
    platform = platform_of(device)
    several = cpu_devices if cpu_devices > 1 else None
    env.prepare(threads=threads, threads_batch=threads_batch, platform=platform, cpu_devices=several)
    with jax_packages_only():
        import jax
    if cluster is not None:
        from minillama.parallel.group.cluster_launch import join_cluster

        if join_cluster(*cluster) > 0:
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if platform in (None, "cpu"):
        return
    try:
        found = jax.default_backend()
    except RuntimeError as error:
        raise ResourceError(f"-dev {device}: {first_line(error)}") from error
    if found == "cpu":
        raise ResourceError(f"-dev {device}: JAX finds no such device; is minillama[{platform}] installed?")


def platform_of(device: str | None) -> str | None:
    """JAX's platform name for a value of -dev."""
    if device is None:
        return None
    if device.lower() not in _PLATFORMS:
        raise OptionError(f"-dev {shown_value(device)}: use cpu (or none), cuda or tpu")
    return _PLATFORMS[device.lower()]


def list_devices(device: str | None) -> int:
    """Print the devices that JAX finds; exit status 0."""
    prepare_machine(device, None)
    from minillama.engine.doctor import devices

    print("Available devices:", *(f"  {found['platform']}: {found['kind']}" for found in devices()), sep="\n")
    return 0


def read_template(args: argparse.Namespace) -> str | None:
    """--chat-template or the content of --chat-template-file."""
    if args.chat_template_file is not None:
        return read_file(args.chat_template_file)
    return args.chat_template


def template_variables(args: argparse.Namespace) -> dict[str, object]:
    """Variables of the chat template: --chat-template-kwargs and the --reasoning options."""
    variables: dict[str, object] = {}
    if args.reasoning is not None:
        variables["enable_thinking"] = args.reasoning
    if args.reasoning_budget == 0:
        variables["enable_thinking"] = False
    if args.reasoning_effort not in (None, "default"):
        variables |= {"reasoning_effort": args.reasoning_effort, "reasoning_strength": args.reasoning_effort}
    if args.reasoning_preserve is not None:
        variables |= dict.fromkeys(("preserve_reasoning", "preserve_thinking"), args.reasoning_preserve)
        dropped = ("clear_thinking", "truncate_history_thinking", "drop_thinking")
        variables |= dict.fromkeys(dropped, not args.reasoning_preserve)
    return {**variables, **(args.chat_template_kwargs or {})}


def reasoning_format(args: argparse.Namespace) -> str:
    """Value of --reasoning-format; `deepseek-legacy` has the thoughts in a stream's text."""
    in_text = args.skip_chat_parsing or args.reasoning_format == "deepseek-legacy"
    return "none" if in_text else args.reasoning_format


def sampling_options(args: argparse.Namespace) -> SamplingOptions:
    """The sampling options that the user set; others keep the defaults of model or library."""
    chosen = {name: value for name, value in vars(args).items() if name in FIELDS and value not in (None, ())}
    if args.sampler_seq is not None:
        chosen["samplers"] = sequence_to_names(args.sampler_seq)
    if args.logit_bias:
        chosen["logit_bias"] = tuple(args.logit_bias)
    return SamplingOptions(**chosen)  # type: ignore[typeddict-item]


def check_sampling(args: argparse.Namespace) -> None:
    """Raise OptionError for invalid sampling options before a model is loaded."""
    Sampling(**sampling_options(args))


def generate_options(args: argparse.Namespace, llm: "LLM") -> "GenerateOptions":
    """Options of one generation: stop conditions and sampling."""
    chosen: GenerateOptions = {
        **sampling_options(args),
        "n": args.predict,
        "stop": stop_texts(args),
        "context_shift": args.context_shift,
        "keep": args.keep,
        "ignore_eos": args.ignore_eos,
        "lookup": args.lookup,
        "draft_max": args.draft_max,
        "draft_min": args.draft_min,
        "draft_p_min": args.draft_p_min,
        "ngram_max": args.ngram_max,
    }
    if args.dry_sequence_breaker:  # without it the engine uses llama.cpp's breakers
        chosen["dry_sequence_breakers"] = _breaker_tokens(args, llm)
    return chosen | read_grammar(args)


def stop_texts(args: argparse.Namespace) -> tuple[str, ...]:
    """The stop strings of -r."""
    texts = args.reverse_prompt or ()
    return tuple(process_escapes(text) if args.escape else text for text in texts)


def _breaker_tokens(args: argparse.Namespace, llm: "LLM") -> tuple[int, ...]:
    breakers = [text_bytes(process_escapes(text)) for text in args.dry_sequence_breaker if text != "none"]
    pieces = (llm.tokenizer.piece(token) for token in range(llm.tokenizer.size))
    return tuple(token for token, piece in enumerate(pieces) if any(breaker in piece for breaker in breakers))
