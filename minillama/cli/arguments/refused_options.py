"""Options of llama.cpp that are refused, because the output would change if they were ignored."""

from functools import partial

from minillama.cli.arguments.option import SHARED, OtherOption
from minillama.cli.arguments.values import choice, integer, number

_ROPE = "the model file sets the position encoding; overriding it is not supported yet"
_LORA = "LoRA adapters are not supported yet; merge the adapter into the GGUF file"
_VECTOR = "control vectors are not supported"
_PROMPT_CACHE = "prompt caches on disk are not supported yet"
_CONVERSATION = "for a conversation use: minillama cli"
_TEMPLATE = "the chat template does this; see --chat-template"
_DOWNLOAD = "download the file and name it with -m, or use -hf"
_IMAGES = "only text is supported"
_PRESET = "name the model with -hf, and its options"
_IN_CHATS = "run cli"
_IN_SERVER_TOO = "run cli serve"


_refused = partial(OtherOption, refused=True)

MODEL = (
    _refused("-mu --model-url", str, _DOWNLOAD, variable="LLAMA_ARG_MODEL_URL", commands=SHARED),
    _refused("-dr --docker-repo", str, _DOWNLOAD, variable="LLAMA_ARG_DOCKER_REPO", commands=SHARED),
    _refused("--override-kv", str, "overriding metadata is not supported yet; use minillama quantize --override-kv",
             commands=SHARED),
    _refused("--lora", str, _LORA),
    _refused("--lora-scaled", str, _LORA),
    _refused("--control-vector", str, _VECTOR),
    _refused("--control-vector-scaled", str, _VECTOR),
    _refused("--control-vector-layer-range", integer, _VECTOR, values=2),
    _refused("--rope-scaling", choice("none", "linear", "yarn"), _ROPE, variable="LLAMA_ARG_ROPE_SCALING_TYPE"),
    _refused("--rope-scale", number, _ROPE, variable="LLAMA_ARG_ROPE_SCALE"),
    _refused("--rope-freq-base", number, _ROPE, variable="LLAMA_ARG_ROPE_FREQ_BASE", silent=(0,)),
    _refused("--rope-freq-scale", number, _ROPE, variable="LLAMA_ARG_ROPE_FREQ_SCALE", silent=(0,)),
    _refused("--yarn-orig-ctx", integer, _ROPE, variable="LLAMA_ARG_YARN_ORIG_CTX", silent=(0,)),
    _refused("--yarn-ext-factor", number, _ROPE, variable="LLAMA_ARG_YARN_EXT_FACTOR", silent=(-1,)),
    _refused("--yarn-attn-factor", number, _ROPE, variable="LLAMA_ARG_YARN_ATTN_FACTOR", silent=(-1,)),
    _refused("--yarn-beta-slow", number, _ROPE, variable="LLAMA_ARG_YARN_BETA_SLOW", silent=(-1,)),
    _refused("--yarn-beta-fast", number, _ROPE, variable="LLAMA_ARG_YARN_BETA_FAST", silent=(-1,)),
    _refused("-gan --grp-attn-n", integer, "self-extend is not supported", variable="LLAMA_ARG_GRP_ATTN_N",
             commands=_IN_CHATS, silent=(1,)),
)  # fmt: skip
GENERATION = (
    _refused("--adaptive-target", number, "the adaptive-p sampler is not supported", commands=_IN_SERVER_TOO,
             silent=(-1,)),
    OtherOption("--adaptive-decay", number, "the adaptive-p sampler is not supported", commands=_IN_SERVER_TOO),
)  # fmt: skip
CHAT = (
    _refused("-i --interactive", None, _CONVERSATION, commands=_IN_CHATS),
    _refused("-if --interactive-first", None, _CONVERSATION, commands=_IN_CHATS),
    _refused("--in-prefix-bos", None, _TEMPLATE, commands=_IN_CHATS),
    _refused("--in-prefix", str, _TEMPLATE, commands=_IN_CHATS),
    _refused("--in-suffix", str, _TEMPLATE, commands=_IN_CHATS),
    _refused("--prompt-cache", str, _PROMPT_CACHE, commands=_IN_CHATS),
    _refused("--prompt-cache-all", None, _PROMPT_CACHE, commands=_IN_CHATS),
    _refused("--prompt-cache-ro", None, _PROMPT_CACHE, commands=_IN_CHATS),
    _refused("--server-base", str, "minillama computes itself, and is no client of a server", commands="cli"),
    _refused("-o --output --output-file", str, "only answers are on stdout; redirect it with > FILE", commands="cli"),
    _refused("-mm --mmproj", str, _IMAGES, variable="LLAMA_ARG_MMPROJ", commands=_IN_SERVER_TOO),
    _refused("-mmu --mmproj-url", str, _IMAGES, variable="LLAMA_ARG_MMPROJ_URL", commands=_IN_SERVER_TOO),
    _refused("--image --audio --video", str, _IMAGES, commands=_IN_CHATS),
    _refused("--gpt-oss-20b-default", None, _PRESET, commands="cli serve"),
    _refused("--gpt-oss-120b-default", None, _PRESET, commands="cli serve"),
    _refused("--vision-gemma-4b-default", None, _IMAGES, commands="cli serve"),
    _refused("--vision-gemma-12b-default", None, _IMAGES, commands="cli serve"),
)  # fmt: skip
PROGRAM = (
    _refused("-cl --cache-list", None, "downloaded files are in the cache of huggingface_hub", commands=SHARED),
    _refused("--completion-bash", None, "there is no completion script", commands=SHARED),
)
IMATRIX = (
    _refused("--output-format", choice("gguf", "dat"), "only GGUF files are written", commands="imatrix",
             silent=("gguf",)),
    _refused("--in-file", str, "matrices are not merged; measure all texts in one run", commands="imatrix"),
    _refused("--show-statistics", None, "statistics are not supported; see the file with: minillama inspect FILE",
             commands="imatrix"),
)  # fmt: skip

REFUSED = (*MODEL, *GENERATION, *CHAT, *PROGRAM, *IMATRIX)
