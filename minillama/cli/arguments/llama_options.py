"""llama.cpp's options as tables: names, default, environment variable, meaning (its arg.cpp, October 2026).

A subcommand takes the tables that it needs. Options that minillama accepts without acting on them are in `compat.py`.
"""

import argparse
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from minillama.cli.arguments.parser import Parser
from minillama.engine.load_options import LoadOptions
from minillama.errors import OptionError

_TRUE, _FALSE = ("on", "enabled", "true", "1"), ("off", "disabled", "false", "0")


@dataclass(frozen=True)
class Option:
    """One option; the first long name, with underscores, is its name in the parsed arguments."""

    names: tuple[str, ...]
    meaning: str
    kind: Callable[[str], object] | None = str  # reads the value; None: a switch
    default: object = None  # None: the library's own default counts
    variable: str | None = None  # environment variable that sets it
    value: str = "N"  # placeholder in the help
    off: tuple[str, ...] = ()  # of a switch: the names that turn it off
    repeated: bool = False  # every occurrence counts, not the last

    @property
    def dest(self) -> str:
        long = next((name for name in self.names if name.startswith("--")), self.names[0])
        return long.lstrip("-").replace("-", "_")


def layers(text: str) -> int | None:
    """`auto` is None, `all` is more layers than any model has, a number itself."""
    if text == "auto":
        return None
    number = 1_000_000 if text == "all" else int(text)
    return None if number == -1 else 1_000_000 if number < -1 else number


def shares(text: str) -> tuple[float, ...]:
    """`3,1`, or as llama-bench has it `3/1`: each device's share."""
    try:
        return tuple(float(share) for share in text.replace("/", ",").split(",") if share.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} should be numbers separated by commas, as in 3,1") from None


def bias(text: str) -> tuple[int, float]:
    """`15043+1`, `15043-0.5`, `2-inf`: a token id and what to add to its logit."""
    for place, sign in enumerate(text):
        if sign in "+-" and place > 0:
            try:
                return int(text[:place]), float(text[place:])
            except ValueError:
                break
    raise argparse.ArgumentTypeError(f"{text!r} should be a token id, + or -, and a number, as in 15043+1")


MODEL = (
    Option(("-m", "--model"), "GGUF file, or storyteller or storyteller-f16, which are built in (default: storyteller)",
           variable="LLAMA_ARG_MODEL", value="FILE"),
    Option(("-hf", "-hfr", "--hf-repo"),
           "repository on the Hugging Face hub; without :QUANT Q4_K_M, else Q8_0, else the first",
           variable="LLAMA_ARG_HF_REPO", value="USER/REPO[:QUANT]"),
    Option(("-hff", "--hf-file"), "file in that repository", variable="LLAMA_ARG_HF_FILE", value="FILE"),
    Option(("-hft", "--hf-token"), "access token for the hub (default: HF_TOKEN)", variable="HF_TOKEN", value="TOKEN"),
    Option(("--offline",), "never ask the network; use what was fetched before", kind=None, default=False,
           variable="LLAMA_ARG_OFFLINE"),
)  # fmt: skip

DEVICE = (
    Option(("-t", "--threads"), "processor cores to compute on (default: all that this process may use)", int, -1,
           "LLAMA_ARG_THREADS"),
    Option(("-tb", "--threads-batch"), "the same for prompts (default: as -t)", int, -1),
    Option(("-ngl", "--gpu-layers", "--n-gpu-layers"), "layers on the GPU: a number, auto or all (default: auto)",
           layers, None, "LLAMA_ARG_N_GPU_LAYERS"),
    Option(("-dev", "--device"),
           "cpu (or none), cuda or tpu (default: what JAX chooses)", str, None, "LLAMA_ARG_DEVICE", "NAME"),
    Option(("-lm", "--load-mode"), "auto, mmap, none (read the file), mlock (lock it) or mmap+mlock (default: auto)",
           str, "auto", "LLAMA_ARG_LOAD_MODE", "MODE"),
    Option(("--mmap",), "map the file into memory (default: on)", None, True, "LLAMA_ARG_MMAP", off=("--no-mmap",)),
    Option(("--mlock",), "lock the weights in memory, so that they are never swapped out", None, False,
           "LLAMA_ARG_MLOCK"),
)  # fmt: skip

MULTI_DEVICE = (
    Option(("-sm", "--split-mode"), "how several devices share a model: none, layer (each has some layers) or tensor "
           "(each has a part of every layer; row is the same) (default: layer on GPUs, tensor over workers)",
           variable="LLAMA_ARG_SPLIT_MODE", value="MODE"),
    Option(("-ts", "--tensor-split"), "with -sm layer: each device's share of the layers, as 3,1", shares,
           LoadOptions.tensor_split, "LLAMA_ARG_TENSOR_SPLIT", "A,B"),
    Option(("-mg", "--main-gpu"), "with -sm none: the device, counted from 0 (default: 0)", int, LoadOptions.main_gpu,
           "LLAMA_ARG_MAIN_GPU"),
    Option(("-tp", "--tensor-parallel"), "with -sm tensor: how many devices; on a processor, as many virtual ones",
           int, LoadOptions.tensor_parallel),
    Option(("--workers", "--rpc"), "machines that compute together, each with minillama worker; this one only leads",
           variable="LLAMA_ARG_RPC", value="HOST:PORT,..."),
    Option(("--token-file",), "file with the secret that the workers share (default: what MINILLAMA_TOKEN holds)",
           value="FILE"),
    Option(("--cluster",), "without a leader: the same command runs on every host, as Slurm or Open MPI starts it",
           None, False),
    Option(("--coordinator",), "the same, started by hand: where process 0 is; with the next two", value="HOST:PORT"),
    Option(("--num-processes",), "how many processes there are", int),
    Option(("--process-id",), "which of them this is, counted from 0", int),
)  # fmt: skip

CONTEXT = (
    Option(("--keep",), "tokens at the start that a context shift spares; -1: the whole prompt (default: 0)", int, 0),
    Option(("-c", "--ctx-size"),
           "tokens of context; 0: as the model was trained (default: 0)", int,
           LoadOptions.ctx_size, "LLAMA_ARG_CTX_SIZE"),
    Option(("-b", "--batch-size"), "most tokens of a prompt handed over at once (default: 2048)", int,
           LoadOptions.batch_size, "LLAMA_ARG_BATCH"),
    Option(("-ub", "--ubatch-size"), "most tokens of these computed at once (default: 512)", int,
           LoadOptions.ubatch_size, "LLAMA_ARG_UBATCH"),
    Option(("--context-shift",), "when the context is full, drop its older half and go on (default: off)", None, False,
           "LLAMA_ARG_CONTEXT_SHIFT", off=("--no-context-shift",)),
)  # fmt: skip

CACHE = (
    Option(("-ctk", "--cache-type-k"), "how keys are kept: f32, f16, bf16 or q8_0 (default: f16)", str,
           LoadOptions.cache_type_k, "LLAMA_ARG_CACHE_TYPE_K", "TYPE"),
    Option(("-ctv", "--cache-type-v"), "how values are kept: f32, f16, bf16 or q8_0 (default: f16)", str,
           LoadOptions.cache_type_v, "LLAMA_ARG_CACHE_TYPE_V", "TYPE"),
)  # fmt: skip

GENERATION = (
    Option(("-n", "--predict", "--n-predict"),
           "tokens to write; -1: until the end, -2: until the context is full (default: -1)",
           int, -1, "LLAMA_ARG_N_PREDICT"),
    Option(("-r", "--reverse-prompt"),
           "stop where this text appears; may be repeated", str, (), value="TEXT", repeated=True),
    Option(("--ignore-eos",), "go on after the end token", None, False),
    Option(("--lookup",), "guess tokens from what the context repeats, check them in one pass; the text stays the same",
           None, False),
    Option(("--draft-max", "--draft", "--draft-n"),
           "with --lookup: most tokens of one guess; beyond 7 rounding may tip a tie (default: 7)", int, 7,
           "LLAMA_ARG_DRAFT_MAX"),
    Option(("--ngram-max",), "with --lookup: most tokens at the end that are looked for earlier (default: 4)", int, 4),
)  # fmt: skip

PROMPT = (
    Option(("-p", "--prompt"), "the prompt", value="TEXT"),
    Option(("-f", "--file"), "file with the prompt", value="FILE"),
    Option(("-e", "--escape"), r"read \n \t \" \\ \xHH in prompts (default: on)", None, True, off=("--no-escape",)),
    Option(("--verbose-prompt",), "show the prompt as the model gets it, and its tokens, on stderr", None, False),
)  # fmt: skip

CHAT = (
    Option(("-sys", "--system-prompt"), "system message", value="TEXT"),
    Option(("-sysf", "--system-prompt-file"), "file with the system message", value="FILE"),
    Option(("-cnv", "--conversation"), "use the model's chat template (default: where it has one)", None, None,
           off=("-no-cnv", "--no-conversation")),
    Option(("--chat-template",), "chat template: a name (chatml, llama3, ...) or Jinja source (default: the model's)",
           variable="LLAMA_ARG_CHAT_TEMPLATE", value="NAME"),
    Option(("--chat-template-file",),
           "file with a Jinja chat template", variable="LLAMA_ARG_CHAT_TEMPLATE_FILE", value="FILE"),
)  # fmt: skip

SAMPLING = (
    Option(("-s", "--seed"), "seed; -1: random (default: -1)", int),
    Option(("--temp", "--temperature"),
           "temperature; 0: always the likeliest token (default: 0.80)", float, None, "LLAMA_ARG_TEMPERATURE"),
    Option(("--top-k",), "keep the k likeliest; 0: off (default: 40)", int, None, "LLAMA_ARG_TOP_K"),
    Option(("--top-p",), "keep the likeliest that sum to p; 1: off (default: 0.95)", float, None, "LLAMA_ARG_TOP_P"),
    Option(("--min-p",),
           "drop those less likely than p times the likeliest; 0: off (default: 0.05)", float, None, "LLAMA_ARG_MIN_P"),
    Option(("--typical", "--typical-p"), "locally typical sampling; 1: off (default: 1.00)", float),
    Option(("--top-nsigma", "--top-n-sigma"), "keep logits n sigma from the largest; -1: off (default: -1)", float),
    Option(("--repeat-last-n",), "tokens that the penalties look back on; 0: off (default: 64)", int),
    Option(("--repeat-penalty",),
           "divide the logits of repeated tokens; 1: off (default: 1.00)", float, None, "LLAMA_ARG_REPEAT_PENALTY"),
    Option(("--presence-penalty",),
           "subtract from tokens that occurred (default: 0.00)", float, None, "LLAMA_ARG_PRESENCE_PENALTY"),
    Option(("--frequency-penalty",),
           "subtract for each time that they occurred (default: 0.00)", float, None, "LLAMA_ARG_FREQUENCY_PENALTY"),
    Option(("--dry-multiplier",), "DRY repetition penalty; 0: off (default: 0.00)", float),
    Option(("--dry-base",), "its growth for each token of a repeat (default: 1.75)", float),
    Option(("--dry-allowed-length",), "repeats up to this long are free (default: 2)", int),
    Option(("--dry-penalty-last-n",), "tokens that DRY looks back on; 0: off (default: 64)", int),
    Option(("--dry-sequence-breaker",), r"""text that ends a repeat, or none; may be repeated (default: \n : " *)""",
           str, (), value="TEXT", repeated=True),
    Option(("--xtc-probability",), "how often to exclude top choices; 0: off (default: 0.00)", float),
    Option(("--xtc-threshold",), "those above this probability (default: 0.10)", float),
    Option(("--dynatemp-range",), "dynamic temperature: temp plus or minus this; 0: off (default: 0.00)", float),
    Option(("--dynatemp-exp",), "its exponent (default: 1.00)", float),
    Option(("--mirostat",), "1 or 2: Mirostat in place of the filters (default: 0)", int),
    Option(("--mirostat-lr",), "its learning rate eta (default: 0.10)", float),
    Option(("--mirostat-ent",), "its target entropy tau (default: 5.00)", float),
    Option(("-l", "--logit-bias"), "add to one token's logit, as in 15043+1 or 15043-inf; may be repeated", bias, (),
           value="TOKEN(+/-)BIAS", repeated=True),
    Option(("--samplers",), "their order (default: penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature)",
           value="NAMES"),
    Option(("--sampler-seq", "--sampling-seq"), "the same in letters (default: edskypmxt)", value="LETTERS"),
)  # fmt: skip

OUTPUT = (
    Option(("-co", "--color"), "on, off or auto: colour the prompt (default: auto)", str, "auto", value="WHEN"),
    Option(("--perf",), "timings on stderr at the end (default: on)", None, True, "LLAMA_ARG_PERF", off=("--no-perf",)),
    Option(("-v", "--verbose", "--log-verbose"), "say more on stderr", None, False),
    Option(("--log-disable",), "say nothing on stderr but errors", None, False),
)  # fmt: skip


def add_options(parser: Parser, title: str, options: Iterable[Option]) -> None:
    """Add a table of options under a title of the help."""
    group = parser.add_argument_group(title)
    for option in options:
        default = _from_environment(option)
        names, dest, text = option.names, option.dest, _help(option)
        if option.kind is None:
            group.add_argument(*names, dest=dest, action="store_true", default=default, help=text)
            if option.off:
                hidden = argparse.SUPPRESS
                group.add_argument(*option.off, dest=dest, action="store_false", default=default, help=hidden)
        else:
            action, default = ("append", None) if option.repeated else ("store", default)
            group.add_argument(
                *names, dest=dest, action=action, type=option.kind, default=default, metavar=option.value, help=text
            )


def _help(option: Option) -> str:
    text = option.meaning + (f" (off: {', '.join(option.off)})" if option.off else "")
    return text.replace("%", "%%")


def _from_environment(option: Option) -> object:
    """The option's default, or what the environment sets: command line > environment > default."""
    text = os.environ.get(option.variable) if option.variable else None
    if text is None:
        return option.default
    if option.kind is not None:
        return text if option.kind is str else _read(option, text)
    if text.lower() not in _TRUE + _FALSE:
        raise OptionError(f"environment variable {option.variable}={text}: should be on or off")
    return text.lower() in _TRUE


def _read(option: Option, text: str) -> object:
    assert option.kind is not None
    try:
        return option.kind(text)
    except (ValueError, argparse.ArgumentTypeError):
        name = option.names[-1]
        raise OptionError(f"environment variable {option.variable}={text}: not a value for {name}") from None
