"""llama.cpp's options that minillama has, as tables: names, help, type, default, environment variable.

A subcommand adds the tables that it needs. The other options of llama.cpp are in `ignored_options` and
`refused_options`.
"""

import json
import logging
from argparse import ArgumentTypeError

from minillama.cli.arguments.option import Option
from minillama.cli.arguments.values import choice, integer, integer_in, number, seed, switch_or_auto
from minillama.engine.generate_options import LARGEST_DRAFT
from minillama.engine.load_options import LoadOptions

logger = logging.getLogger("minillama")

LOAD_MODES = ("auto", "mmap", "none", "mlock", "mmap+mlock", "dio")


def layers(text: str) -> int | None:
    """Parse a number of layers: `auto` is None, `all` more than any model has."""
    if text == "auto":
        return None
    count = 1_000_000 if text == "all" else integer(text)
    return None if count == -1 else 1_000_000 if count < -1 else count


def json_object(text: str) -> dict[str, object]:
    """Parse a JSON object."""
    try:
        found = json.loads(text)  # its error is a ValueError, as the parser expects
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def dry_base(text: str) -> float | None:
    """Parse --dry-base; below 1 the default stays, as in llama.cpp."""
    base = number(text)
    if base < 1:
        logger.warning("--dry-base %s has no effect: expected at least 1", text)
    return base if base >= 1 else None


def shares(text: str) -> tuple[float, ...]:
    """Parse the share of each device: `3,1`, or `3/1` as in llama-bench."""
    return tuple(number(share) for share in text.replace("/", ",").replace(";", ",").split(",") if share.strip())


def bias(text: str) -> tuple[int, float]:
    """Parse a token id and its logit bias: `15043+1`, `15043-0.5`, `2-inf`."""
    place = next((place for place, sign in enumerate(text) if sign in "+-" and text[:place].strip()), None)
    if place is None or not text[place + 1 :].strip():
        raise ArgumentTypeError("expected a token id, + or -, and a number, as in 15043+1")
    size = number(text[place + 1 :])
    return integer(text[:place]), -size if text[place] == "-" else size


MODEL = (
    Option(("-m", "--model"), "GGUF file, or a built-in model: storyteller or storyteller-f16 (default: storyteller)",
           variable="LLAMA_ARG_MODEL", value="FILE"),
    Option(("-hf", "-hfr", "--hf-repo"),
           "Hugging Face repository; without :QUANT Q4_K_M, else Q8_0, else the first file",
           variable="LLAMA_ARG_HF_REPO", value="USER/REPO[:QUANT]"),
    Option(("-hff", "--hf-file"), "file in the Hugging Face repository", variable="LLAMA_ARG_HF_FILE", value="FILE"),
    Option(("-hft", "--hf-token"), "Hugging Face access token (default: HF_TOKEN)", variable="HF_TOKEN", value="TOKEN"),
    Option(("--offline",), "no network access; use downloaded files only", None, False, "LLAMA_ARG_OFFLINE"),
)  # fmt: skip

DEVICE = (
    Option(("-t", "--threads"), "CPU cores to use (default: all that this process may use)", integer, -1,
           "LLAMA_ARG_THREADS"),
    Option(("-tb", "--threads-batch"), "CPU cores for prompt processing (default: same as -t)", integer, -1),
    Option(("-ngl", "--gpu-layers", "--n-gpu-layers"), "layers on the GPU: a number, auto or all (default: auto)",
           layers, None, "LLAMA_ARG_N_GPU_LAYERS"),
    Option(("-dev", "--device"),
           "cpu (or none), cuda or tpu (default: JAX's choice)", str, None, "LLAMA_ARG_DEVICE", "NAME"),
    Option(("-lm", "--load-mode"), "auto, mmap, none (read the file), mlock (lock it) or mmap+mlock (default: auto)",
           choice(*LOAD_MODES), "auto", "LLAMA_ARG_LOAD_MODE", "MODE"),
    Option(("--mmap",), "with -lm auto: memory-map the model file (default: on)", None, True, "LLAMA_ARG_MMAP",
           off=("--no-mmap",)),
    Option(("--mlock",), "lock the weights in memory, so that they are not swapped out", None, False,
           "LLAMA_ARG_MLOCK"),
    Option(("--list-devices",), "list the devices that JAX finds, and exit", None, False),
)  # fmt: skip

MULTI_DEVICE = (
    Option(("-sm", "--split-mode"),
           "how to split a model across devices: none, layer (whole layers per device) or tensor "
           "(a part of every layer per device; row is the same) (default: layer on GPUs, tensor with workers)",
           variable="LLAMA_ARG_SPLIT_MODE", value="MODE"),
    Option(("-ts", "--tensor-split"), "with -sm layer: share of the layers of each device, as in 3,1", shares,
           LoadOptions.tensor_split, "LLAMA_ARG_TENSOR_SPLIT", "A,B"),
    Option(("-mg", "--main-gpu"), "with -sm none: index of the device (default: 0)", integer, LoadOptions.main_gpu,
           "LLAMA_ARG_MAIN_GPU"),
    Option(("-tp", "--tensor-parallel"), "with -sm tensor: number of devices; virtual devices on a CPU",
           integer, LoadOptions.tensor_parallel),
    Option(("--workers", "--rpc"), "hosts that compute, each with minillama worker; this host leads",
           variable="LLAMA_ARG_RPC", value="HOST:PORT,..."),
    Option(("--token-file",), "file with the secret shared with the workers (default: value of MINILLAMA_TOKEN; "
           "on loopback the user's own)", value="FILE"),
    Option(("--worker-timeout",), "seconds without a sign of life until a worker is lost; 0: never (default: 15)",
           number, LoadOptions.worker_timeout, value="SECONDS"),
    Option(("--cluster",), "no leader: the same command runs on every host, started by Slurm or Open MPI",
           None, False),
    Option(("--coordinator",),
           "like --cluster, started by hand: address of process 0; needs the next two options", value="HOST:PORT"),
    Option(("--num-processes",), "number of processes in the cluster", integer),
    Option(("--process-id",), "index of this process", integer),
)  # fmt: skip

CONTEXT = (
    Option(("--keep",), "tokens of the initial prompt to keep in a context shift; -1: all (default: 0)", integer, 0),
    Option(("-c", "--ctx-size"),
           "context size in tokens; 0: from the model (default: 0)", integer,
           LoadOptions.ctx_size, "LLAMA_ARG_CTX_SIZE"),
    Option(("-b", "--batch-size"), "logical batch size in tokens (default: 2048)", integer,
           LoadOptions.batch_size, "LLAMA_ARG_BATCH"),
    Option(("-ub", "--ubatch-size"), "physical batch size in tokens (default: 512)", integer,
           LoadOptions.ubatch_size, "LLAMA_ARG_UBATCH"),
    Option(("--context-shift",), "when the context is full, drop its older half and continue (default: off)", None,
           False, "LLAMA_ARG_CONTEXT_SHIFT", off=("--no-context-shift",)),
)  # fmt: skip

CACHE = (
    Option(("-ctk", "--cache-type-k"), "KV cache type of the keys: f32, f16, bf16, q8_0, q4_0, q4_1, iq4_nl, q5_0 or "
           "q5_1 (default: f16)", str,
           LoadOptions.cache_type_k, "LLAMA_ARG_CACHE_TYPE_K", "TYPE"),
    Option(("-ctv", "--cache-type-v"), "KV cache type of the values: the same types (default: f16)", str,
           LoadOptions.cache_type_v, "LLAMA_ARG_CACHE_TYPE_V", "TYPE"),
)  # fmt: skip

GENERATION = (
    Option(("-n", "--predict", "--n-predict"),
           "tokens to generate; -1: until the end token, -2: until the context is full (default: -1)",
           integer, -1, "LLAMA_ARG_N_PREDICT"),
    Option(("-r", "--reverse-prompt"),
           "stop string; may be repeated", str, (), value="TEXT", repeated=True),
    Option(("--ignore-eos",), "continue after the end token", None, False),
    Option(("--lookup",), "prompt lookup decoding: draft tokens from repeated text; same output",
           None, False),
    Option(("--ngram-max",), "with --lookup: longest n-gram to search for (default: 4)", integer, 4),
)  # fmt: skip

DRAFT = (
    Option(("-md", "--model-draft", "--spec-draft-model"), "draft model: a small one with the same vocabulary guesses "
           "tokens, which the model verifies; same output", variable="LLAMA_ARG_SPEC_DRAFT_MODEL", value="FILE"),
    Option(("-hfd", "-hfrd", "--hf-repo-draft", "--spec-draft-hf"), "Hugging Face repository of the draft model",
           variable="LLAMA_ARG_SPEC_DRAFT_HF_REPO", value="USER/REPO[:QUANT]"),
    Option(("--draft-max", "--draft", "--draft-n", "--spec-draft-n-max"), "most guessed tokens; 0: none; above 7 "
           "rounding may change ties (default: 3, with --lookup 7)", integer_in(0, LARGEST_DRAFT), None,
           "LLAMA_ARG_DRAFT_MAX LLAMA_ARG_SPEC_DRAFT_N_MAX"),
    Option(("--draft-min", "--draft-n-min", "--spec-draft-n-min"), "drop shorter guesses of the draft model "
           "(default: 0)", integer_in(0, LARGEST_DRAFT), 0, "LLAMA_ARG_DRAFT_MIN LLAMA_ARG_SPEC_DRAFT_N_MIN"),
    Option(("--draft-p-min", "--spec-draft-p-min"), "end a guess before a token that the draft model finds less likely "
           "(default: 0.00)", number, 0.0, "LLAMA_ARG_SPEC_DRAFT_P_MIN", "P"),
    Option(("-cd", "--ctx-size-draft"), "context of the draft model; 0: the model's (default: 0)", integer, 0),
    Option(("-ngld", "--gpu-layers-draft", "--n-gpu-layers-draft", "--spec-draft-ngl"),
           "layers of the draft model on the GPU (default: auto)", layers, None, "LLAMA_ARG_N_GPU_LAYERS_DRAFT"),
    Option(("-ctkd", "--cache-type-k-draft", "--spec-draft-type-k"), "KV cache type of its keys (default: f16)", str,
           LoadOptions.cache_type_k_draft, "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K", "TYPE"),
    Option(("-ctvd", "--cache-type-v-draft", "--spec-draft-type-v"), "KV cache type of its values (default: f16)", str,
           LoadOptions.cache_type_v_draft, "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_V", "TYPE"),
)  # fmt: skip

PROMPT = (
    Option(("-p", "--prompt"), "the prompt", value="TEXT"),
    Option(("-f", "--file"), "file with the prompt", value="FILE"),
    Option(("-bf", "--binary-file"), "file with the prompt, with its last line end", value="FILE"),
    Option(("-e", "--escape"),
           r"process escapes \n \t \" \\ \xHH in prompts (default: on)", None, True, off=("--no-escape",)),
    Option(("--verbose-prompt",), "print the rendered prompt and its tokens on stderr", None, False),
    Option(("-sp", "--special"), "print control tokens in the answer", None, False),
)  # fmt: skip

CHAT = (
    Option(("-sys", "--system-prompt"), "system message", value="TEXT"),
    Option(("-sysf", "--system-prompt-file"), "file with the system message", value="FILE"),
    Option(("-cnv", "--conversation"), "use the model's chat template (default: if it has one)", None, None,
           off=("-no-cnv", "--no-conversation")),
    Option(("--chat-template",), "chat template: a name (chatml, llama3, ...) or Jinja source (default: the model's)",
           variable="LLAMA_ARG_CHAT_TEMPLATE", value="NAME"),
    Option(("--chat-template-file",),
           "file with a Jinja chat template", variable="LLAMA_ARG_CHAT_TEMPLATE_FILE", value="FILE"),
    Option(("--chat-template-kwargs",), "variables of the chat template, a JSON object: '{\"enable_thinking\": false}'",
           json_object, None, "LLAMA_ARG_CHAT_TEMPLATE_KWARGS LLAMA_CHAT_TEMPLATE_KWARGS", "JSON"),
    Option(("--reasoning-format",),
           "thoughts are dimmed and apart (auto, deepseek), or in the answer (none, deepseek-legacy) (default: auto)",
           choice("none", "auto", "deepseek", "deepseek-legacy"), "auto", "LLAMA_ARG_THINK", "FORMAT"),
    Option(("--skip-chat-parsing",), "print answers as the model writes them, as --reasoning-format none", None, False,
           "LLAMA_ARG_SKIP_CHAT_PARSING", off=("--no-skip-chat-parsing",)),
    Option(("-rea", "--reasoning"), "on or off: sets the template's enable_thinking (default: auto, the template's)",
           switch_or_auto, variable="LLAMA_ARG_REASONING", value="WHEN"),
    Option(("--reasoning-effort",), "the template's reasoning_effort: low, medium, high ... (default: its own)",
           variable="LLAMA_ARG_REASONING_EFFORT", value="LEVEL"),
    Option(("--reasoning-budget",), "most tokens of thoughts; 0: no thinking, -1: no limit (default: -1)",
           integer_in(-1), -1, "LLAMA_ARG_THINK_BUDGET"),
    Option(("--reasoning-budget-message",), "text before the end of thoughts where the budget ends (default: none)",
           str, "", "LLAMA_ARG_THINK_BUDGET_MESSAGE", "TEXT"),
    Option(("--reasoning-preserve",), "keep the thoughts of earlier answers, if the template can (default: its own)",
           None, None, "LLAMA_ARG_REASONING_PRESERVE", off=("--no-reasoning-preserve",)),
)  # fmt: skip

SAMPLING = (
    Option(("-s", "--seed"), "seed; -1: random (default: -1)", seed),
    Option(("--temp", "--temperature"),
           "temperature; 0: greedy (default: 0.80)", number, None, "LLAMA_ARG_TEMPERATURE"),
    Option(("--top-k",), "top-k sampling; 0: off (default: 40)", integer, None, "LLAMA_ARG_TOP_K"),
    Option(("--top-p",), "top-p sampling; 1: off (default: 0.95)", number, None, "LLAMA_ARG_TOP_P"),
    Option(("--min-p",),
           "min-p sampling; 0: off (default: 0.05)", number, None, "LLAMA_ARG_MIN_P"),
    Option(("--typical", "--typical-p"), "locally typical sampling; 1: off (default: 1.00)", number),
    Option(("--top-nsigma", "--top-n-sigma"), "top-n-sigma sampling; -1: off (default: -1)", number),
    Option(("--repeat-last-n",), "last n tokens to penalise; 0: off (default: 64)", integer_in(0)),
    Option(("--repeat-penalty",),
           "penalise repeated tokens; 1: off (default: 1.00)", number, None, "LLAMA_ARG_REPEAT_PENALTY"),
    Option(("--presence-penalty",),
           "presence penalty; 0: off (default: 0.00)", number, None, "LLAMA_ARG_PRESENCE_PENALTY"),
    Option(("--frequency-penalty",),
           "frequency penalty; 0: off (default: 0.00)", number, None, "LLAMA_ARG_FREQUENCY_PENALTY"),
    Option(("--dry-multiplier",), "DRY multiplier; 0: off (default: 0.00)", number),
    Option(("--dry-base",), "DRY base (default: 1.75)", dry_base),
    Option(("--dry-allowed-length",), "longest repeat without a DRY penalty (default: 2)", integer),
    Option(("--dry-penalty-last-n",), "last n tokens for DRY; 0: off (default: 64)", integer_in(0)),
    Option(("--dry-sequence-breaker",), r"""DRY sequence breaker, or none; may be repeated (default: \n : " *)""",
           str, (), value="TEXT", repeated=True),
    Option(("--xtc-probability",), "XTC probability; 0: off (default: 0.00)", number),
    Option(("--xtc-threshold",), "XTC threshold (default: 0.10)", number),
    Option(("--dynatemp-range",), "dynamic temperature range; 0: off (default: 0.00)", number),
    Option(("--dynatemp-exp",), "dynamic temperature exponent (default: 1.00)", number),
    Option(("--mirostat",), "Mirostat version 1 or 2; 0: off (default: 0)", integer),
    Option(("--mirostat-lr",), "Mirostat learning rate eta (default: 0.10)", number),
    Option(("--mirostat-ent",), "Mirostat target entropy tau (default: 5.00)", number),
    Option(("-l", "--logit-bias"), "bias of a token's logit, as in 15043+1 or 15043-inf; may be repeated", bias, (),
           value="TOKEN(+/-)BIAS", repeated=True),
    Option(("--samplers",),
           "order of the samplers (default: penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature)",
           value="NAMES"),
    Option(("--sampler-seq", "--sampling-seq"),
           "order of the samplers as letters (default: edskypmxt)", value="LETTERS"),
)  # fmt: skip

GRAMMAR = (
    Option(("--grammar",), "the form of the answer, in GBNF (see docs/grammars.md)", value="TEXT"),
    Option(("--grammar-file",), "file with a grammar in GBNF", value="FILE"),
    Option(("-j", "--json-schema"), "the form of the answer, a JSON schema; {} for any JSON", value="SCHEMA"),
    Option(("-jf", "--json-schema-file"), "file with a JSON schema", value="FILE"),
)  # fmt: skip

OUTPUT = (
    Option(("-co", "--color"), "colour the prompt, dim thoughts: on, off or auto (default: auto)", switch_or_auto,
           value="WHEN", once_a_switch=True),
    Option(("--perf",), "print timings on stderr (default: on)", None, True, "LLAMA_ARG_PERF", off=("--no-perf",)),
    Option(("-v", "--verbose", "--log-verbose"), "more messages on stderr", None, False),
    Option(("--log-disable",), "only errors on stderr", None, False),
    Option(("-lv", "--verbosity", "--log-verbosity"),
           "messages on stderr; 1: errors, 2: warnings, 3: timings, 4: everything (default: 3)", integer, 3,
           "LLAMA_ARG_LOG_VERBOSITY"),
)  # fmt: skip
