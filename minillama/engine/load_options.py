"""The options of `load`, under llama.cpp's names, checked. Nothing here imports JAX."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from minillama.engine.batches import Batches
from minillama.engine.loading.device_sharing import DeviceSharing
from minillama.errors import OptionError
from minillama.option_values import check_flag, check_int, check_text

if TYPE_CHECKING:
    from minillama.gguf.kv_cache_types import CacheTypes

_WHOLE_NUMBERS = (
    "ctx_size", "main_gpu", "tensor_parallel", "threads", "batch_size", "ubatch_size", "ctx_size_draft",
)  # fmt: skip


@dataclass(frozen=True)
class LoadOptions:
    """The source of a model, its context, its devices and its memory.

    hf_repo: `user/repo[:quant]` on the Hugging Face hub; hf_file: a file there; offline: use only what is cached.
    ctx_size: tokens of context, rounded up to a multiple of 256; 0 for the model's own, as far as memory allows.
    n_gpu_layers: layers on the accelerator, counted from the last; None for all, where there is one.
    split_mode: how several devices share the model: none (main_gpu has it all), layer (each has some layers, in the
    shares of tensor_split) or tensor (each has a part of every layer; row is the same here); None for layer on GPUs.
    tensor_parallel: devices that compute every layer together, each with its own heads and rows; more than 1 stands
    for split_mode=tensor. `env.prepare(cpu_devices=N)` makes several virtual devices of one processor.
    workers: `host:port,host:port` of running `minillama worker`s, which compute together; this process only leads.
    secret: shared with the workers; needed unless all are on loopback and of this user. threads: cores of each, 0 for
    all it has. worker_timeout: seconds without a sign of life until a worker is lost; 0 for no limit.
    batch_size, ubatch_size: tokens of a prompt that are submitted at once, and of these computed at once; cut to
    ubatch_size <= batch_size <= ctx_size.
    cache_type_k, cache_type_v: storage of keys and values: f32, f16, bf16, q8_0, q4_0, q4_1, iq4_nl,
    q5_0 or q5_1.
    use_mmap: compute with the mapped file; False reads it into memory.
    use_mlock: lock the weights in memory; a warning where the system forbids it.
    chat_template: one of the built-in names, or Jinja source, in place of the file's own.
    model_draft: a small model with the same vocabulary, which guesses tokens that this one verifies; or hf_repo_draft.
    ctx_size_draft: longer texts get no guesses; 0 for no limit. n_gpu_layers_draft, cache_type_k_draft,
    cache_type_v_draft: as those of the model.
    Raises OptionError for impossible values and for options that contradict each other.
    """

    hf_repo: str | None = None
    hf_file: str | None = None
    offline: bool = False
    ctx_size: int = 0
    n_gpu_layers: int | None = None
    split_mode: str | None = None
    tensor_split: Sequence[float] = ()
    main_gpu: int = 0
    tensor_parallel: int = 1
    workers: str | None = None
    secret: bytes | None = field(default=None, repr=False)
    threads: int = 0
    worker_timeout: float = 15.0
    batch_size: int = 2048
    ubatch_size: int = 512
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    use_mmap: bool = True
    use_mlock: bool = False
    chat_template: str | None = None
    progress: bool = True
    model_draft: str | Path | None = None
    hf_repo_draft: str | None = None
    ctx_size_draft: int = 0
    n_gpu_layers_draft: int | None = None
    cache_type_k_draft: str = "f16"
    cache_type_v_draft: str = "f16"

    def __post_init__(self) -> None:
        for name in _WHOLE_NUMBERS:
            object.__setattr__(self, name, check_int(name, getattr(self, name)))
        for name in ("n_gpu_layers", "n_gpu_layers_draft"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check_int(name, getattr(self, name)))
        for name in ("offline", "use_mmap", "use_mlock", "progress"):
            check_flag(name, getattr(self, name))
        for name in ("hf_repo", "hf_file", "workers", "chat_template", "hf_repo_draft"):
            check_text(name, getattr(self, name))
        check_text("model_draft", str(self.model_draft) if isinstance(self.model_draft, Path) else self.model_draft)
        _ = self.batches, self.cache_types, self.sharing, self.draft
        if not (self.worker_timeout == 0 or 1 <= self.worker_timeout <= 3600):
            raise OptionError(f"worker_timeout is {self.worker_timeout!r:.40}; expected 1 to 3600 seconds, or 0")

    @cached_property
    def draft(self) -> "LoadOptions | None":
        """The options of the draft model; None without one."""
        if self.model_draft is None and self.hf_repo_draft is None:
            return None
        if self.ctx_size_draft < 0:
            raise OptionError(
                f"ctx_size_draft is {self.ctx_size_draft}; expected a number of tokens, or 0 for no limit"
            )
        return LoadOptions(
            hf_repo=self.hf_repo_draft, offline=self.offline, n_gpu_layers=self.n_gpu_layers_draft,
            batch_size=self.batch_size, ubatch_size=self.ubatch_size, cache_type_k=self.cache_type_k_draft,
            cache_type_v=self.cache_type_v_draft, use_mmap=self.use_mmap, use_mlock=self.use_mlock,
            progress=self.progress,
        )  # fmt: skip

    @classmethod
    def from_args(cls, args: object, **others: object) -> "LoadOptions":
        """Options from parsed arguments of the same names; `others` win, the rest keeps its defaults."""
        given = vars(args)
        return cls(**{f.name: given[f.name] for f in fields(cls) if f.name in given} | others)

    @cached_property
    def batches(self) -> Batches:
        """Sizes of the logical and of the physical batch."""
        return Batches(self.batch_size, self.ubatch_size)

    @cached_property
    def cache_types(self) -> "CacheTypes":
        """Storage types of keys and values."""
        from minillama.gguf.kv_cache_types import read_cache_types  # imports numpy, which `--help` does not need

        return read_cache_types(self.cache_type_k, self.cache_type_v)

    @property
    def program_hints(self) -> tuple[object, ...]:
        """The options on which the first programs of a model depend; see `prefetch_executables`."""
        return self.ctx_size, self.n_gpu_layers, self.sharing, self.batches, self.cache_types

    @cached_property
    def sharing(self) -> DeviceSharing:
        """The devices that share the model."""
        return DeviceSharing(
            self.split_mode, self.tensor_split, self.main_gpu, self.tensor_parallel, self.workers, self.secret,
            self.threads,
        )  # fmt: skip


class LoadKeywords(TypedDict, total=False):
    """The fields of `LoadOptions` as keyword arguments."""

    hf_repo: str | None
    hf_file: str | None
    offline: bool
    ctx_size: int
    n_gpu_layers: int | None
    split_mode: str | None
    tensor_split: Sequence[float]
    main_gpu: int
    tensor_parallel: int
    workers: str | None
    secret: bytes | None
    threads: int
    worker_timeout: float
    batch_size: int
    ubatch_size: int
    cache_type_k: str
    cache_type_v: str
    use_mmap: bool
    use_mlock: bool
    chat_template: str | None
    progress: bool
    model_draft: str | Path | None
    hf_repo_draft: str | None
    ctx_size_draft: int
    n_gpu_layers_draft: int | None
    cache_type_k_draft: str
    cache_type_v_draft: str
