"""Options of llama.cpp that are ignored: they change speed, memory or messages, not the output."""

from argparse import ArgumentTypeError

from minillama.cli.arguments import llama_options
from minillama.cli.arguments.option import MODEL_COMMANDS, ONE_TEXT, SHARED, OtherOption, add_other_options
from minillama.cli.arguments.parser import Parser
from minillama.cli.arguments.refused_options import GENERATION, REFUSED
from minillama.cli.arguments.values import (
    choice,
    cpu_mask,
    cpu_range,
    integer,
    integer_in,
    list_of,
    number,
    switch,
    switch_or_auto,
    tensor_placement,
    unsigned,
)

_XLA = "XLA decides this itself"
_CORES = "use -t, or taskset outside"
_NICE = "use nice outside"
_PLACEMENT = "tensors stay on the device of their layer"
_CACHE = "the KV cache stays on the device of its layer"
_FIT = "the model is not fitted to memory; give -c or -ngl"
_ONE_ANSWER = "one answer at a time"
_STDERR = "messages go to stderr as plain lines"
_NO_IMAGES = "only text is supported"
_SAME_CORES = "the draft model uses the cores of the model"
_SAME_DEVICE = "the draft model is on the same kind of device; give its layers there with -ngld"
_GREEDY = "a guess is one sequence of likeliest tokens"
_NO_DRAFTS = "this command drafts no tokens"
_LOOKUP = "use --lookup to draft tokens from repeated text"
_NO_CACHES = "one conversation has one KV cache"
_IN_CHATS = "run cli"
_IN_SERVER_TOO = "run cli serve"

_PRIORITY, _COUNT = integer_in(0, 3), integer_in(0)
_NGRAM, _HITS, _NGRAMS = integer_in(1, 1024), integer_in(1), integer_in(0, 1024)


def _sequences(text: str) -> int:
    if integer(text) == 0:
        raise ArgumentTypeError("expected a number other than 0")
    return integer(text)


CPU = (
    OtherOption("-C --cpu-mask", cpu_mask, _CORES),
    OtherOption("-Cr --cpu-range", cpu_range, _CORES),
    OtherOption("--cpu-strict", unsigned, _XLA, silent=(0,)),
    OtherOption("--prio", integer_in(-1, 3), _NICE, silent=(0,)),
    OtherOption("--poll", unsigned, _XLA, silent=(50,)),
    OtherOption("-Cb --cpu-mask-batch", cpu_mask, _CORES),
    OtherOption("-Crb --cpu-range-batch", cpu_range, _CORES),
    OtherOption("--cpu-strict-batch", integer, _XLA, silent=(0,)),
    OtherOption("--prio-batch", _PRIORITY, _NICE, silent=(0,)),
    OtherOption("--poll-batch", integer, _XLA),
    OtherOption("--numa", choice("distribute", "isolate", "numactl", ""), "use numactl outside", "LLAMA_ARG_NUMA",
                once_a_switch=True),
)  # fmt: skip
MEMORY = (
    OtherOption("-fa --flash-attn", switch_or_auto, "attention is always computed in tiles", "LLAMA_ARG_FLASH_ATTN",
                silent=(True, None), once_a_switch=True),
    OtherOption("--swa-full", None, "the KV cache of every layer has the whole context", "LLAMA_ARG_SWA_FULL"),
    OtherOption("-kvo --kv-offload", None, _CACHE, "LLAMA_ARG_KV_OFFLOAD", "-nkvo --no-kv-offload", silent=(True,)),
    OtherOption("-kvu --kv-unified", None, _NO_CACHES, "LLAMA_ARG_KV_UNIFIED", "-no-kvu --no-kv-unified",
                ONE_TEXT),
    OtherOption("-np --parallel", _sequences, _ONE_ANSWER, "LLAMA_ARG_N_PARALLEL", commands=ONE_TEXT,
                silent=(1, -1)),
    OtherOption("-cb --cont-batching", None, _ONE_ANSWER, "LLAMA_ARG_CONT_BATCHING", "-nocb --no-cont-batching",
                ONE_TEXT, (False,)),
    OtherOption("-dt --defrag-thold", str, "the KV cache has no holes", "LLAMA_ARG_DEFRAG_THOLD"),
    OtherOption("--repack", None, "weights stay as they are in the file", "LLAMA_ARG_REPACK", "-nr --no-repack"),
    OtherOption("--no-host", None, _XLA, "LLAMA_ARG_NO_HOST"),
    OtherOption("--op-offload", None, _XLA, off="--no-op-offload"),
    OtherOption("-dio --direct-io", None, "the file is read as with -lm auto", "LLAMA_ARG_DIO",
                "-ndio --no-direct-io", silent=(False,)),
    OtherOption("-lzm --lazy-mode", choice("on", "auto", "off"), "a mapped file is always read while it is opened",
                "LLAMA_ARG_LAZY_MODE", silent=("auto",)),
    OtherOption("-ot --override-tensor", tensor_placement, _PLACEMENT, "LLAMA_ARG_OVERRIDE_TENSOR"),
    OtherOption("-cmoe --cpu-moe", None, _PLACEMENT, "LLAMA_ARG_CPU_MOE"),
    OtherOption("-ncmoe --n-cpu-moe", _COUNT, _PLACEMENT, "LLAMA_ARG_N_CPU_MOE", silent=(0,)),
    OtherOption("-ncffn --n-cpu-ffn", _COUNT, _PLACEMENT, "LLAMA_ARG_N_CPU_FFN", silent=(0,)),
    OtherOption("-fit --fit", switch, _FIT, "LLAMA_ARG_FIT", silent=(False,)),
    OtherOption("-fitt --fit-target", list_of(unsigned, ",/"), _FIT, "LLAMA_ARG_FIT_TARGET"),
    OtherOption("-fitc --fit-ctx", integer, _FIT, "LLAMA_ARG_FIT_CTX"),
    OtherOption("--check-tensors", None, "weights are not checked before they are used"),
    OtherOption("-bs --backend-sampling", None, "", "LLAMA_ARG_BACKEND_SAMPLING"),  # always on the device
    OtherOption("--warmup", None, "", off="--no-warmup", commands=ONE_TEXT),  # compile time is reported separately
    OtherOption("-ctxcp --ctx-checkpoints --swa-checkpoints", integer, _NO_CACHES, "LLAMA_ARG_CTX_CHECKPOINTS",
                commands=_IN_CHATS),
    OtherOption("-cram --cache-ram", integer, _NO_CACHES, "LLAMA_ARG_CACHE_RAM", commands=_IN_CHATS),
)  # fmt: skip
MESSAGES = (
    OtherOption("--log-file", str, "messages go to stderr; redirect it with 2> FILE", "LLAMA_ARG_LOG_FILE",
                commands=SHARED),
    OtherOption("--log-jsonl", None, _STDERR, "LLAMA_ARG_LOG_JSONL", "--no-log-jsonl", SHARED, (False,)),
    OtherOption("--log-colors", switch_or_auto, _STDERR, "LLAMA_ARG_LOG_COLORS", "", SHARED, (False, None),
                once_a_switch=True),
    OtherOption("--log-prefix", None, _STDERR, "LLAMA_ARG_LOG_PREFIX", "--no-log-prefix", SHARED, (False,)),
    OtherOption("--log-timestamps", None, _STDERR, "LLAMA_ARG_LOG_TIMESTAMPS", "--no-log-timestamps", SHARED,
                (False,)),
    OtherOption("--log-prompts-dir", str, "use --verbose-prompt", commands=_IN_SERVER_TOO),
    OtherOption("-ptc --print-token-count", integer, "the timings have the counts of tokens", commands=_IN_CHATS,
                silent=(-1,)),
)  # fmt: skip
CHAT = (
    OtherOption("--jinja", None, "chat templates are always rendered by Jinja", "LLAMA_ARG_JINJA", "--no-jinja",
                _IN_CHATS, (True,)),
    OtherOption("--simple-io", None, "", commands=_IN_CHATS),
    OtherOption("--display-prompt", None, "", off="--no-display-prompt", commands="cli"),
    OtherOption("-mli --multiline-input", None, "run has one prompt and one answer", commands="run"),
    OtherOption("-gaw --grp-attn-w", integer, "self-extend is not supported", "LLAMA_ARG_GRP_ATTN_W",
                commands=_IN_CHATS),
)  # fmt: skip
IMAGES = (
    OtherOption("--mmproj-auto", None, "", "LLAMA_ARG_MMPROJ_AUTO", "--no-mmproj --no-mmproj-auto", _IN_SERVER_TOO),
    OtherOption("--mmproj-offload", None, _NO_IMAGES, "LLAMA_ARG_MMPROJ_OFFLOAD", "--no-mmproj-offload",
                _IN_SERVER_TOO),
    OtherOption("-mmdev --mmproj-device", str, _NO_IMAGES, "MTMD_BACKEND_DEVICE", commands=_IN_SERVER_TOO),
    OtherOption("--image-min-tokens", integer, _NO_IMAGES, "LLAMA_ARG_IMAGE_MIN_TOKENS", commands=_IN_SERVER_TOO),
    OtherOption("--image-max-tokens", integer, _NO_IMAGES, "LLAMA_ARG_IMAGE_MAX_TOKENS", commands=_IN_SERVER_TOO),
    OtherOption("--video-fps", number, _NO_IMAGES, "LLAMA_ARG_VIDEO_FPS", commands=_IN_SERVER_TOO),
    OtherOption("--video-timestamp-interval", integer, _NO_IMAGES, "LLAMA_ARG_VIDEO_TIMESTAMP_INTERVAL",
                commands=_IN_SERVER_TOO),
    OtherOption("--video-ffmpeg-dir", str, _NO_IMAGES, "LLAMA_ARG_VIDEO_FFMPEG_DIR", commands=_IN_SERVER_TOO),
)  # fmt: skip
DRAFTS = tuple(
    OtherOption(names, kind, reason, variable, off, _IN_SERVER_TOO)
    for names, kind, reason, variable, off in (
        ("--spec-draft-threads -td --threads-draft", integer, _SAME_CORES, "", ""),
        ("--spec-draft-threads-batch -tbd --threads-batch-draft", integer, _SAME_CORES, "", ""),
        ("--spec-draft-cpu-mask -Cd --cpu-mask-draft", cpu_mask, _SAME_CORES, "", ""),
        ("--spec-draft-cpu-range -Crd --cpu-range-draft", cpu_range, _SAME_CORES, "", ""),
        ("--spec-draft-cpu-strict --cpu-strict-draft", integer, _SAME_CORES, "", ""),
        ("--spec-draft-prio --prio-draft", _PRIORITY, _SAME_CORES, "", ""),
        ("--spec-draft-poll --poll-draft", integer, _SAME_CORES, "", ""),
        ("--spec-draft-cpu-mask-batch -Cbd --cpu-mask-batch-draft", cpu_mask, _SAME_CORES, "", ""),
        ("--spec-draft-cpu-range-batch -Crbd --cpu-range-batch-draft", cpu_range, _SAME_CORES, "", ""),
        ("--spec-draft-cpu-strict-batch --cpu-strict-batch-draft", integer, _SAME_CORES, "", ""),
        ("--spec-draft-prio-batch --prio-batch-draft", _PRIORITY, _SAME_CORES, "", ""),
        ("--spec-draft-poll-batch --poll-batch-draft", integer, _SAME_CORES, "", ""),
        ("--spec-draft-override-tensor -otd --override-tensor-draft", tensor_placement, _SAME_DEVICE, "", ""),
        ("--spec-draft-cpu-moe -cmoed --cpu-moe-draft", None, _SAME_DEVICE, "LLAMA_ARG_SPEC_DRAFT_CPU_MOE", ""),
        ("--spec-draft-n-cpu-moe --spec-draft-ncmoe -ncmoed --n-cpu-moe-draft", _COUNT, _SAME_DEVICE,
         "LLAMA_ARG_SPEC_DRAFT_N_CPU_MOE", ""),
        ("--spec-synth-len", number, _GREEDY, "LLAMA_ARG_SPEC_SYNTH_LEN", ""),
        ("--spec-synth-rates", list_of(number), _GREEDY, "LLAMA_ARG_SPEC_SYNTH_RATES", ""),
        ("--spec-draft-p-split --draft-p-split", number, _GREEDY, "LLAMA_ARG_SPEC_DRAFT_P_SPLIT", ""),
        ("--spec-draft-backend-sampling", None, "", "LLAMA_ARG_SPEC_DRAFT_BACKEND_SAMPLING",
         "--no-spec-draft-backend-sampling"),
        ("--spec-draft-device -devd --device-draft", str, _SAME_DEVICE, "", ""),
    )
) + tuple(
    OtherOption(names, str, _NO_DRAFTS, variable, commands="perplexity imatrix tokenize")
    for names, variable in (
        ("--spec-draft-type-k -ctkd --cache-type-k-draft", "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K"),
        ("--spec-draft-type-v -ctvd --cache-type-v-draft", "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_V"),
    )
)  # fmt: skip
NGRAMS = (
    OtherOption("--spec-type", str, _LOOKUP, "LLAMA_ARG_SPEC_TYPE", "", _IN_SERVER_TOO, ("none", "draft-simple")),
    OtherOption("--spec-default", None, _LOOKUP, commands=_IN_SERVER_TOO),
    OtherOption("--spec-ngram-mod-n-min", _NGRAMS, _LOOKUP, commands=_IN_SERVER_TOO),
    OtherOption("--spec-ngram-mod-n-max", _NGRAMS, _LOOKUP, commands=_IN_SERVER_TOO),
    OtherOption("--spec-ngram-mod-n-match", _NGRAM, _LOOKUP, commands=_IN_SERVER_TOO),
    *(
        OtherOption(f"--spec-ngram-{method}-{size}", _HITS if size == "min-hits" else _NGRAM, _LOOKUP,
                    commands=_IN_SERVER_TOO)
        for method in ("simple", "map-k", "map-k4v")
        for size in ("size-n", "size-m", "min-hits")
    ),
)  # fmt: skip
IMATRIX = (
    OtherOption("-ofreq --output-frequency", integer, "the file is written at the end", commands="imatrix"),
    OtherOption("--save-frequency", integer, "the file is written at the end", commands="imatrix", silent=(0,)),
    OtherOption("--ppl", None, "perplexity is not computed here; use minillama perplexity", "", "--no-ppl", "imatrix",
                (False,)),
)  # fmt: skip

OTHERS = (*CPU, *MEMORY, *MESSAGES, *CHAT, *IMAGES, *DRAFTS, *NGRAMS, *IMATRIX, *REFUSED)
# All options that need a model: llama-tokenize has them, and reads only the vocabulary.
WITH_MODEL = (
    *llama_options.DEVICE,
    *llama_options.MULTI_DEVICE,
    *llama_options.CONTEXT,
    *llama_options.CACHE,
    *(option for option in llama_options.GENERATION if option.dest in ("predict", "ignore_eos")),
    *llama_options.SAMPLING,
    *llama_options.GRAMMAR,
    *(option for option in llama_options.OUTPUT if option.dest != "color"),
    *(option for option in OTHERS if option.commands in (MODEL_COMMANDS, ONE_TEXT)),
    *GENERATION,
)


def add_ignored_options(parser: Parser, command: str, *others: OtherOption) -> None:
    """Add the ignored and refused options of a command, and some more."""
    theirs = (option for option in OTHERS if command in option.commands.split())
    add_other_options(parser, (*theirs, *others))
    parser.reports_variables = True
