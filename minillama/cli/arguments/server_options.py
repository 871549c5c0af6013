"""The options of `minillama serve`: llama-server's, as tables."""

from functools import partial

from minillama.cli.arguments import llama_options
from minillama.cli.arguments.option import Option, OtherOption
from minillama.cli.arguments.values import choice, integer, integer_in, number

_REFUSE_ROUTER = "router mode is not supported; start one server for each model"
_REFUSE_TOOLS = "built-in tools and MCP servers are not supported; run tools in the client"
_PRESET = "name the model with -hf, and its options"
_LOOKUP = "the server drafts with a draft model only: -md"
_IMAGES = "only text is supported"
_UI = "the page has no settings"
_refused = partial(OtherOption, refused=True, commands="serve")
_ignored = partial(OtherOption, commands="serve")


def slots(text: str) -> int:
    """Parse a number of slots; -1 for the default."""
    value = integer(text)
    if value == 0:
        raise ValueError("expected a number other than 0")
    return value


HTTP = (
    Option(("--host",), "addresses to listen on, separated by commas, or paths of Unix sockets that end in .sock "
           "(default: 127.0.0.1)", str, "127.0.0.1", "LLAMA_ARG_HOST", "HOST"),
    Option(("--port",), "port to listen on; 0: any free one (default: 8080)", integer_in(0, 65535), 8080,
           "LLAMA_ARG_PORT"),
    Option(("--reuse-port",), "let several processes listen on the port", None, False, "LLAMA_ARG_REUSE_PORT"),
    Option(("--api-key",), "keys that requests need one of, separated by commas (default: none)", str, None,
           "LLAMA_API_KEY", "KEY"),
    Option(("--api-key-file",), "file with one key a line", str, None, "LLAMA_ARG_API_KEY_FILE", "FILE"),
    Option(("--ssl-key-file",), "file with the private key of TLS (PEM)", str, None, "LLAMA_ARG_SSL_KEY_FILE", "FILE"),
    Option(("--ssl-cert-file",), "file with the certificate of TLS (PEM)", str, None, "LLAMA_ARG_SSL_CERT_FILE",
           "FILE"),
    Option(("--cors-origins",), "allowed origin of pages; localhost: any of this machine (default: *)", str, "*",
           "LLAMA_ARG_CORS_ORIGINS", "ORIGIN"),
    Option(("--cors-methods",), "allowed methods (default: GET, POST, DELETE, OPTIONS)", str,
           "GET, POST, DELETE, OPTIONS", "LLAMA_ARG_CORS_METHODS", "NAMES"),
    Option(("--cors-headers",), "allowed headers (default: *)", str, "*", "LLAMA_ARG_CORS_HEADERS", "NAMES"),
    Option(("--cors-credentials",), "allow credentials; with the origin * the page's own is echoed (default: on)", None,
           True, "LLAMA_ARG_CORS_CREDENTIALS", off=("--no-cors-credentials",)),
    Option(("-to", "--timeout"), "seconds until a client that reads nothing is dropped (default: 3600)", integer, 3600,
           "LLAMA_ARG_TIMEOUT"),
    Option(("--sse-ping-interval",), "seconds between comments in a silent stream; -1: none (default: 30)", integer, 30,
           "LLAMA_ARG_SSE_PING_INTERVAL"),
    Option(("--threads-http",), "threads for tokenising and templates; -1: 4 (default: -1)", integer, -1,
           "LLAMA_ARG_THREADS_HTTP"),
    Option(("--api-prefix",), "path before the path of every endpoint (default: none)", str, "",
           "LLAMA_ARG_API_PREFIX", "PATH"),
)  # fmt: skip
ENDPOINTS = (
    Option(("-a", "--alias"), "names of the model, separated by commas (default: the file's name)", str, None,
           "LLAMA_ARG_ALIAS", "NAMES"),
    Option(("--tags",), "tags of the model, separated by commas", str, None, "LLAMA_ARG_TAGS", "NAMES"),
    Option(("--metrics",), "counters in Prometheus' form at /metrics (default: off)", None, False,
           "LLAMA_ARG_ENDPOINT_METRICS"),
    Option(("--slots",), "state of the slots at /slots (default: on)", None, True, "LLAMA_ARG_ENDPOINT_SLOTS",
           off=("--no-slots",)),
    Option(("--props",), "accept POST /props (default: off)", None, False, "LLAMA_ARG_ENDPOINT_PROPS"),
    Option(("--embedding", "--embeddings"), "embeddings of texts at /v1/embeddings (default: off)", None, False,
           "LLAMA_ARG_EMBEDDINGS"),
    Option(("--pooling",), "how the states of a text become one vector: none, mean, cls or last (default: the file's)",
           choice("none", "mean", "cls", "last"), None, "LLAMA_ARG_POOLING"),
    Option(("--embd-normalize",), "norm of vectors; -1: none, 0: largest number 32760, 1: sum, 2: Euclidean, p "
           "(default: 2)", integer_in(-1, 1000), 2),
    Option(("--slot-save-path",), "folder of slots that clients save and restore (default: none)", str, None, "",
           "FOLDER"),
    Option(("--sleep-idle-seconds",), "unload the model after these seconds without a request; -1: never (default: -1)",
           integer, -1),
    Option(("--schedule",), "the last steps of the scheduler at /schedule (default: off)", None, False),
    Option(("--trace",), "summaries of the activations of a prompt at /trace (default: off)", None, False),
    Option(("--ui", "--webui"), "a page at / (default: on)", None, True, "LLAMA_ARG_UI", off=("--no-ui", "--no-webui")),
    Option(("--path",), "folder of files to serve in place of the page", str, None, "LLAMA_ARG_STATIC_PATH", "FOLDER"),
)  # fmt: skip
SLOTS = (
    Option(("-np", "--parallel"), "slots: texts that are written at once; -1: 4 that share the context (default: -1)",
           slots, -1, "LLAMA_ARG_N_PARALLEL"),
    Option(("-kvu", "--kv-unified"), "every slot may fill the whole context (default: on with -np -1)", None, None,
           "LLAMA_ARG_KV_UNIFIED", off=("-no-kvu", "--no-kv-unified")),
    Option(("--cache-prompt",), "reuse what a slot holds of a prompt's beginning (default: on)", None, True,
           "LLAMA_ARG_CACHE_PROMPT", off=("--no-cache-prompt",)),
    Option(("-cram", "--cache-ram"), "most MiB of prompts kept in memory next to the slots; 0: none, -1: no limit "
           "(default: 256)", integer, 256, "LLAMA_ARG_CACHE_RAM"),
    Option(("-sps", "--slot-prompt-similarity"), "share of a prompt that a slot must hold to be chosen for it "
           "(default: 0.10)", number, 0.1),
    Option(("-sp", "--special"), "control tokens are a part of the text", None, False),
    Option(("--warmup",), "compile before the first request (default: on)", None, True, off=("--no-warmup",)),
)  # fmt: skip
CHAT = (
    Option(("--jinja",), "tools in chats; templates are always rendered by Jinja (default: on)", None, True,
           "LLAMA_ARG_JINJA", off=("--no-jinja",)),
    Option(("--prefill-assistant",), "go on with a last message of the assistant (default: on)", None, True,
           "LLAMA_ARG_PREFILL_ASSISTANT", off=("--no-prefill-assistant",)),
    *(option for option in llama_options.CHAT
      if option.dest not in ("system_prompt", "system_prompt_file", "conversation")),
)  # fmt: skip
GENERATION = (
    *(option for option in llama_options.GENERATION if option.dest in ("predict", "reverse_prompt", "ignore_eos")),
    *(option for option in llama_options.PROMPT if option.dest == "escape"),
)
OUTPUT = tuple(option for option in llama_options.OUTPUT if option.dest != "color")

_OFF = "minillama keeps no checkpoints of slots"
OTHERS = (
    _ignored("-lcs --lookup-cache-static", str, _LOOKUP),
    _ignored("-lcd --lookup-cache-dynamic", str, _LOOKUP),
    _ignored("--spec-ngram-size-n", integer, _LOOKUP),
    _ignored("--spec-ngram-size-m", integer, _LOOKUP),
    _ignored("--spec-ngram-min-hits", integer, _LOOKUP),
    _ignored("--kv-unified-per-slot", integer, "give the whole context with -c", "LLAMA_ARG_KV_UNIFIED_PER_SLOT"),
    _ignored("-ctxcp --ctx-checkpoints --swa-checkpoints", integer, _OFF, "LLAMA_ARG_CTX_CHECKPOINTS"),
    _ignored("-cms --checkpoint-min-step", integer, _OFF, "LLAMA_ARG_CHECKPOINT_MIN_SPACING_NT"),
    _ignored("--cache-idle-slots", None, "only slots keep prompts", "LLAMA_ARG_CACHE_IDLE_SLOTS",
             "--no-cache-idle-slots", silent=(False,)),
    _ignored("-cb --cont-batching", None, "requests are always batched", "LLAMA_ARG_CONT_BATCHING",
             "-nocb --no-cont-batching", silent=(True,)),
    _ignored("--cache-reuse", integer, "only whole beginnings of prompts are reused", "LLAMA_ARG_CACHE_REUSE",
             silent=(0,)),
    _ignored("--spm-infill", None, "there is no infill endpoint"),
    _ignored("--mtmd-batch-max-tokens", integer, _IMAGES, "LLAMA_ARG_MTMD_BATCH_MAX_TOKENS"),
    _ignored("--media-path", str, _IMAGES),
    _ignored("--ui-config --webui-config", str, _UI, "LLAMA_ARG_UI_CONFIG"),
    _ignored("--ui-config-file --webui-config-file", str, _UI, "LLAMA_ARG_UI_CONFIG_FILE"),
    _ignored("--models-max", integer, _REFUSE_ROUTER, "LLAMA_ARG_MODELS_MAX"),
    _ignored("--models-autoload", None, _REFUSE_ROUTER, "LLAMA_ARG_MODELS_AUTOLOAD", "--no-models-autoload"),
    _ignored("--lora-init-without-apply", None, "LoRA adapters are not supported"),
    _refused("--rerank --reranking", None, "reranking is not supported", "LLAMA_ARG_RERANKING"),
    _refused("--ui-mcp-proxy --webui-mcp-proxy", None, _REFUSE_TOOLS, "LLAMA_ARG_UI_MCP_PROXY",
             "--no-ui-mcp-proxy --no-webui-mcp-proxy", silent=(False,)),
    _refused("--tools", str, _REFUSE_TOOLS, "LLAMA_ARG_TOOLS"),
    _refused("--tools-runtime", str, _REFUSE_TOOLS, "LLAMA_ARG_TOOLS_RUNTIME"),
    _refused("--mcp-servers-config", str, _REFUSE_TOOLS, "LLAMA_ARG_MCP_SERVERS_CONFIG"),
    _refused("--mcp-servers-json", str, _REFUSE_TOOLS, "LLAMA_ARG_MCP_SERVERS_JSON"),
    _refused("-ag --agent", None, _REFUSE_TOOLS, "LLAMA_ARG_AGENT", "-no-ag --no-agent", silent=(False,)),
    _refused("--models-dir", str, _REFUSE_ROUTER, "LLAMA_ARG_MODELS_DIR"),
    _refused("--models-preset", str, _REFUSE_ROUTER, "LLAMA_ARG_MODELS_PRESET"),
    *(_refused(name, None, _PRESET) for name in (
        "--embd-gemma-default", "--fim-qwen-1.5b-default", "--fim-qwen-3b-default", "--fim-qwen-7b-default",
        "--fim-qwen-7b-spec", "--fim-qwen-14b-spec", "--fim-qwen-30b-default")),
)  # fmt: skip
