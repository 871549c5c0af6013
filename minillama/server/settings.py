"""The settings of a server, from the options of the command."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from minillama.sampling.sampling_params import SamplingOptions


@dataclass(frozen=True)
class Cors:
    """Headers for pages of other origins.

    origins: `*`, `localhost` (any port of this machine), or a fixed value. With `*` and credentials the origin of the
    request is echoed, as in llama-server.
    """

    origins: str = "*"
    methods: str = "GET, POST, DELETE, OPTIONS"
    headers: str = "*"
    credentials: bool = True


@dataclass(frozen=True)
class Listening:
    """Addresses of the server, and files of TLS.

    hosts: names, addresses, or paths of Unix sockets that end in `.sock`.
    """

    hosts: tuple[str, ...] = ("127.0.0.1",)
    port: int = 8080
    reuse_port: bool = False
    ssl_key_file: str | None = None
    ssl_cert_file: str | None = None


@dataclass(frozen=True)
class ChatSettings:
    """Settings of chats."""

    use_jinja: bool = True  # tools need it
    prefill_assistant: bool = True  # a last message of the assistant is continued
    reasoning_format: str = "auto"
    reasoning_budget: int = -1  # most tokens of thoughts; -1: no limit
    reasoning_budget_message: str = ""  # before the end of thoughts where the budget ends
    template_variables: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class EmbeddingSettings:
    """Options of embeddings; pooling None: the file's. normalize: see `LLM.embed`."""

    is_on: bool = False
    pooling: str | None = None
    normalize: int = 2


@dataclass(frozen=True)
class DraftSettings:
    """Defaults of requests where there is a draft model.

    most: most tokens of a guess; None: the engine's own.
    """

    most: int | None = None
    least: int = 0
    p_min: float = 0.0


@dataclass(frozen=True)
class VertexSettings:
    """Paths of Google Vertex AI's protocol; an empty one is left out."""

    predict_path: str = "/predict"
    health_path: str = ""


@dataclass(frozen=True)
class ServerSettings:
    """Everything that a request cannot change.

    sampling, grammar, n, stop, keep, ignore_eos, cache_prompt: defaults of requests.
    """

    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    api_keys: frozenset[str] = frozenset()
    api_prefix: str = ""
    cors: Cors = field(default_factory=Cors)
    chat: ChatSettings = field(default_factory=ChatSettings)
    embeddings: EmbeddingSettings = field(default_factory=EmbeddingSettings)
    draft: DraftSettings = field(default_factory=DraftSettings)
    vertex: VertexSettings | None = None
    slot_save_path: str | None = None  # folder of slots on disk
    idle_seconds: float = -1  # after these the model is unloaded until the next request; -1: never
    slots: int = 4
    shared_context: bool = True  # each slot may fill the whole context; False: the slots divide it
    ctx_size: int = 0  # as given; 0: the model's own, as far as memory allows
    cache_ram: int = 256  # MiB of prompts kept in memory next to the slots
    slot_similarity: float = 0.1  # least shared part of a prompt that chooses a slot
    has_slots: bool = True  # GET /slots
    has_metrics: bool = False  # GET /metrics
    has_props: bool = False  # POST /props
    has_schedule: bool = False  # GET /schedule
    has_trace: bool = False  # POST /trace
    has_page: bool = True  # GET /
    static_path: str | None = None  # folder of files in place of the page
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    grammar: str = ""  # in GBNF
    breakers: tuple[str, ...] = ()  # DRY sequence breakers; empty: llama.cpp's
    n: int = -1
    stop: tuple[str, ...] = ()
    keep: int = 0
    ignore_eos: bool = False
    context_shift: bool = False
    cache_prompt: bool = True
    verbose: bool = False  # answers have `__verbose`
    show_special: bool = False  # control tokens are text
    warm_up: bool = True
    owns_process: bool = False  # nothing else runs in this process: settings of Python may change
    timeout: float = 3600.0  # seconds without progress of a client's connection
    ping_interval: int = 30  # seconds between comments in a silent stream; -1: none
    http_threads: int = -1  # threads for tokenising and templates; -1: 4
