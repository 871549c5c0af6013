"""The open model of the Python API: generate, stream, chat, measure, and look inside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from minillama.array_types import Float32
from minillama.engine.backends.base import Backend
from minillama.engine.backends.local import LocalBackend
from minillama.engine.batches import Batches
from minillama.engine.drafting.draft_model import DraftModel
from minillama.engine.evaluation.text_embeddings import check_normalize, check_pooling, hidden_states, pooled
from minillama.engine.evaluation.text_logits import text_logits
from minillama.engine.evaluation.trace import trace
from minillama.engine.generate_options import GenerateOptions
from minillama.engine.generation.option_names import check_template_variables
from minillama.engine.generation.text_request import RequestReader, TextOrIds
from minillama.engine.loading.memory_budget import Memory
from minillama.engine.memory_usage import Measured, memory_usage
from minillama.engine.result import Completion
from minillama.engine.session import Session
from minillama.engine.stream import Stream
from minillama.errors import OptionError, UnsupportedError
from minillama.gguf import GGUF
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.model import Config, Params
from minillama.sampling import Sampling, SamplingOptions, resolve_seed
from minillama.tokenizer import BUILTIN_TEMPLATES, ChatTemplate, Tokenizer
from minillama.tokenizer.chat.answer_parts import Splitter, Uncut

if TYPE_CHECKING:
    from minillama.engine.batching.batch_engine import BatchEngine

Messages = Sequence[Mapping[str, object]]


@dataclass(frozen=True, eq=False)
class LLM:
    """An open model. Made by `load`."""

    backend: Backend
    tokenizer: Tokenizer
    template: ChatTemplate | None
    file: GGUF
    ctx_size: int
    batches: Batches
    cache_types: CacheTypes
    memory: Memory
    load_seconds: float
    in_place: bool = False  # whether the weights are used where the file is mapped
    draft: DraftModel | None = None  # guesses tokens that this model verifies

    @property
    def config(self) -> Config:
        """Sizes and constants of the model."""
        return self.backend.config

    @property
    def local(self) -> LocalBackend:
        """The backend of a model on one device.

        Raises OptionError where several devices share the model.
        """
        if not isinstance(self.backend, LocalBackend):
            raise OptionError(
                "this needs all weights on one device; load without workers and tensor_parallel, "
                "and with n_gpu_layers=0 or all"
            )
        return self.backend

    @property
    def params(self) -> Params:
        """The weights; raises OptionError where several devices share the model."""
        return self.local.params

    @property
    def metadata(self) -> Mapping[str, object]:
        """The file's metadata."""
        return self.file.metadata

    @property
    def path(self) -> Path:
        """The file, the first one of a split model."""
        return self.file.path

    @cached_property
    def requests(self) -> RequestReader:
        """The reader of prompts and options."""
        return RequestReader(self.tokenizer, self.metadata)

    def __repr__(self) -> str:
        shape = f"{self.config.architecture}, {self.config.block_count} layers, context {self.ctx_size}"
        return f"<LLM {self.path.name}: {shape}>"

    def close(self) -> None:
        """Release the workers, if there are any; the model cannot be used afterwards."""
        self.backend.close()

    def check_file(self) -> None:
        """Raise ResourceError if the file of weights used in place has changed.

        Methods that compute call it first. A file that shrinks while they compute still ends the process (SIGBUS).
        """
        if self.in_place:
            self.file.check_unchanged()
        if self.draft is not None:
            self.draft.check_file()

    def session(self) -> Session:
        """State for several calls: the beginning that they have in common is evaluated once."""
        guesser = None if self.draft is None else self.draft.for_one_text()
        return Session(self.backend, self.ctx_size, self.batches, self.cache_types, guesser)

    def stream(
        self, prompt: TextOrIds, *, session: Session | None = None, **options: Unpack[GenerateOptions]
    ) -> Stream:
        """Continue a text, piece by piece.

        prompt: text (special tokens are parsed, and BOS is prepended if the model has it so), or token ids: a list, a
        tuple or an integer array. An empty one is BOS.
        session: what it shares with earlier calls at the start is not evaluated again. One of this model.
        options: the fields of `Request` (n, stop, context_shift, keep, ignore_eos, lookup, ...) and of `Sampling`
        (temp, top_k, seed, ...); sampling options not given come from the file, then from llama.cpp's defaults.
        grammar, json_schema: the form of the text, in GBNF or as a JSON schema; `lookup` has no effect then.
        Raises OptionError for impossible options and for a prompt that does not fit, ResourceError for a model file
        that has changed since it was loaded. The stream raises NonFiniteError if a logit is NaN or infinite.
        """
        return self._stream(prompt, session, options, Uncut())

    def _stream(
        self, prompt: TextOrIds, session: Session | None, options: GenerateOptions, splitter: Splitter
    ) -> Stream:
        text = self.requests.read(prompt, options)
        text.check_fits(self.ctx_size)
        chain = self.backend.chain(text.sampling)
        if session is None:
            session = self.session()
        if not isinstance(session, Session):
            raise OptionError(f"session is of type {type(session).__name__}; expected one that session() made")
        session.check_model(self.backend)
        self.check_file()
        seed = self.backend.broadcast(resolve_seed(text.sampling.seed))
        return Stream(session, self.tokenizer, chain, text, seed, self.load_seconds, splitter)

    def generate(
        self, prompt: TextOrIds, *, session: Session | None = None, **options: Unpack[GenerateOptions]
    ) -> Completion:
        """Continue a text and give it back whole; see `stream`.

        An interrupt ends it and keeps the text so far.
        """
        return self.stream(prompt, session=session, **options).finish()

    def batch_engine(
        self,
        slots: int = 8,
        *,
        ctx_size: int | None = None,
        max_waiting: int = 1024,
        slot_prompt_similarity: float = 0.1,
        cache_ram: int = 256,
        draft_max: int | None = None,
    ) -> "BatchEngine":
        """Open an engine for many requests at once; a context manager.

        slots: texts that are generated at once; others wait, `max_waiting` at most.
        ctx_size: tokens of context of each slot; None for the model's own.
        slot_prompt_similarity: share of a prompt that a slot must hold more than, to be chosen for that.
        cache_ram: most MiB of copies of slots, for prompts that begin as an earlier text did.
        draft_max: most tokens of a guess of the draft model in any request; None for 3.
        Raises ResourceError where the slots do not fit in memory.
        """
        from minillama.engine.batching.open_batch_engine import SlotOptions, open_batch_engine

        limits = slots, ctx_size or self.ctx_size, max_waiting, slot_prompt_similarity, cache_ram, draft_max
        given = self.backend, self.requests, self.batches, self.cache_types, SlotOptions(*limits), self.check_file
        return open_batch_engine(*given, self.draft)

    def generate_many(
        self, prompts: Sequence[TextOrIds], *, slots: int = 8, **options: Unpack[GenerateOptions]
    ) -> list[Completion]:
        """Continue texts together; each is the text that `generate` gives for it.

        slots: texts that are generated at once. An interrupt ends all of them and keeps the texts so far.
        """
        from minillama.engine.batching.batch_stream import finish_all
        from minillama.engine.batching.open_batch_engine import fitting_slots

        with self.batch_engine(fitting_slots(slots, len(prompts)), max_waiting=len(prompts) + 1) as engine:
            return finish_all([engine.submit(prompt, **options) for prompt in prompts])

    def measure(
        self, prompt: TextOrIds, *, session: Session | None = None, **options: Unpack[GenerateOptions]
    ) -> Measured:
        """Continue a text as `generate` does; its timings, and memory measured and predicted."""
        if session is None:
            session = self.session()
        completion = self.generate(prompt, session=session, **options)
        usage = memory_usage(self.local, session, self.batches, self.cache_types, self.file.nbytes)
        return Measured(completion, usage)

    def chat_stream(
        self,
        messages: Messages,
        *,
        tools: Sequence[object] | None = None,
        chat_template_kwargs: Mapping[str, object] = {},
        reasoning_format: str = "auto",
        reasoning_budget: int = -1,
        reasoning_budget_message: str = "",
        session: Session | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Stream:
        """Answer a conversation, piece by piece; see `stream`. Messages are `{"role": "user", "content": "..."}`.

        tools and chat_template_kwargs: see `render`.
        reasoning_format: thoughts are apart in `reasoning_content` (auto, deepseek), in the text (none), or in both
        (deepseek-legacy).
        reasoning_budget: most tokens of thoughts, -1 for no limit; the message comes before the tag that ends them.
        Raises UnsupportedError where the model has no chat template or it cannot be rendered.
        """
        check_template_variables(chat_template_kwargs)
        prompt = self.render(messages, **{"tools": tools, **chat_template_kwargs})
        assert self.template is not None
        splitter = self.template.answer_splitter(prompt, reasoning_format)
        thoughts = self.template.thoughts(prompt)
        if thoughts is not None and reasoning_budget != -1:
            from minillama.engine.grammar.thinking_budget import thinking_budget

            options["thinking"] = thinking_budget(thoughts, reasoning_budget, reasoning_budget_message)
        return self._stream(self.tokenizer.encode_rendered(prompt), session, options, splitter)

    def chat(
        self,
        messages: Messages,
        *,
        tools: Sequence[object] | None = None,
        chat_template_kwargs: Mapping[str, object] = {},
        reasoning_format: str = "auto",
        reasoning_budget: int = -1,
        reasoning_budget_message: str = "",
        session: Session | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Completion:
        """Answer a conversation and give the answer back whole; see `chat_stream`."""
        chosen = {"tools": tools, "chat_template_kwargs": chat_template_kwargs, "reasoning_format": reasoning_format}
        budget = {"reasoning_budget": reasoning_budget, "reasoning_budget_message": reasoning_budget_message}
        return self.chat_stream(messages, session=session, **chosen, **budget, **options).finish()

    def render(
        self,
        messages: Messages,
        /,
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[object] | None = None,
        **variables: object,
    ) -> str:
        """The text that a conversation becomes, with its special tokens.

        tools: functions that the model may call, as in OpenAI's API. variables: of the template, such as
        enable_thinking=False; `chat` takes them as chat_template_kwargs.
        """
        if self.template is None:
            names = ", ".join(sorted(BUILTIN_TEMPLATES))
            raise UnsupportedError(f"{self.path.name} has no chat template; choose one with chat_template: {names}")
        return self.template.render(messages, add_generation_prompt=add_generation_prompt, tools=tools, extra=variables)

    def encode_chat(
        self, messages: Messages, /, *, tools: Sequence[object] | None = None, **variables: object
    ) -> list[int]:
        """Token ids of a rendered conversation, with one BOS only; see `render`."""
        return self.tokenizer.encode_rendered(self.render(messages, tools=tools, **variables))

    def logits(self, ids: TextOrIds) -> Float32[np.ndarray, "T V"]:
        """The logits after each of the ids, evaluated from an empty context.

        ids: token ids, or a text as in `stream`. Raises NonFiniteError for NaN and infinite logits; `trace` shows where
        they begin.
        """
        return text_logits(self.backend, self.cache_types, self._fitting_ids(ids), self.batches.ubatch_size)

    def embed(
        self, texts: Sequence[TextOrIds], *, pooling: str = "mean", normalize: int = 2
    ) -> list[Float32[np.ndarray, "..."]]:
        """Embeddings of texts: a vector [D] of each; with pooling="none" [T, D].

        pooling: mean, last, cls (first token) or none. normalize: 2 for Euclidean norm 1; see `scaled`.
        Raises OptionError for other values and for a text that does not fit, NonFiniteError for NaN and infinity.
        """
        how = check_pooling(pooling), check_normalize(normalize)
        given, size = [self._fitting_ids(text) for text in texts], self.batches.ubatch_size
        return [pooled(hidden_states(self.backend, self.cache_types, ids, size), *how) for ids in given]

    def trace(self, ids: TextOrIds) -> dict[str, np.ndarray]:
        """Every named activation of one forward pass, without the batch axis, under llama.cpp's names.

        ids: token ids, or a text as in `stream`.
        In the order of computation. Per layer i: attn_norm-i [T, D], Qcur-i [T, N, H], Kcur-i and Vcur-i [T, K, H],
        kq_soft_max-i [N, T, S], kqv_out-i [T, N * H], attn_out-i, ffn_inp-i, ffn_norm-i, ffn_out-i, l_out-i [T, D], and
        in dense layers ffn_swiglu-i (Gemma: ffn_geglu-i) [T, F]; around them inp_embd, result_norm and result_output
        [T, V].
        """
        return trace(self.params, self.config, self._fitting_ids(ids), self.cache_types)

    def sampling(self, **options: Unpack[SamplingOptions]) -> Sampling:
        """Sampling options in force: those given, else the file's own, else llama.cpp's defaults."""
        return self.requests.sampling(**options)

    def _fitting_ids(self, prompt: TextOrIds) -> tuple[int, ...]:
        """Token ids that the context has room for, evaluated now from an unchanged file."""
        ids = self.requests.ids(prompt)
        if len(ids) > self.ctx_size:
            raise OptionError(
                f"{len(ids)} tokens do not fit in a context of {self.ctx_size}; load with a larger ctx_size"
            )
        self.check_file()
        return ids
