"""The Python API: `load` a model, then generate, stream, chat, and look inside."""

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float32
from tqdm.auto import tqdm

from minillama.engine.backends.base import Executor, OnDevices
from minillama.engine.backends.choose import lead, open_here, place
from minillama.engine.batches import Batches
from minillama.engine.compile.executable_cache import expect_programs
from minillama.engine.generate_options import GenerateOptions, Request
from minillama.engine.loading.device_sharing import Sharing
from minillama.engine.loading.layer_placement import Placement
from minillama.engine.loading.load_params import unused_tensors
from minillama.engine.loading.memory_budget import Memory, choose_context, keep_weights, logger
from minillama.engine.loading.model_files import resolve
from minillama.engine.memory_usage import Measured, memory_usage
from minillama.engine.result import Completion
from minillama.engine.sampling_defaults import file_defaults
from minillama.engine.session import LEAST_CHUNK, Session
from minillama.engine.stream import Stream
from minillama.errors import FormatError, OptionError, UnsupportedError
from minillama.gguf import GGUF, open_gguf
from minillama.gguf.kv_cache_types import CacheTypes, read_cache_types
from minillama.kernels import reads_in_place
from minillama.model import Cache, Config, Params, empty_cache, forward, read_config, unembed
from minillama.sampling import Sampling, SamplingOptions, resolve_seed
from minillama.tokenizer import BUILTIN_TEMPLATES, ChatTemplate, Tokenizer, load_chat_template, load_tokenizer

DRY_BREAKERS = ("\n", ":", '"', "*")  # llama.cpp's


def load(
    model: str | Path | None = None,
    *,
    hf_repo: str | None = None,
    hf_file: str | None = None,
    offline: bool = False,
    ctx_size: int = 0,
    n_gpu_layers: int | None = None,
    split_mode: str | None = None,
    tensor_split: Sequence[float] = (),
    main_gpu: int = 0,
    tensor_parallel: int = 1,
    workers: str | None = None,
    secret: bytes | None = None,
    threads: int = 0,
    batch_size: int = 2048,
    ubatch_size: int = 512,
    cache_type_k: str = "f16",
    cache_type_v: str = "f16",
    use_mmap: bool = True,
    use_mlock: bool = False,
    chat_template: str | None = None,
    progress: bool = True,
) -> "LLM":
    """Open a GGUF model.

    model: a file, or None for the built-in storyteller; hf_repo: `user/repo[:quant]` on the Hugging Face hub instead.
    ctx_size: tokens of context, a multiple of 256 after rounding up; 0 for the model's own, as far as memory allows.
    n_gpu_layers: layers to place on the accelerator, from the last; None for all, where there is one.
    split_mode: how several devices share the model: none (main_gpu has it all), layer (each some layers, in the shares
    of tensor_split) or tensor (each a part of every layer; row is the same here); None for layer on GPUs.
    tensor_parallel: devices that compute every layer together, each with its own heads and rows; `env.prepare` with
    cpu_devices makes several of one processor, to practise. More than 1 stands for split_mode=tensor.
    workers: `host:port,host:port`, where `minillama worker` runs: they compute everything together, as if they were the
    devices of tensor_parallel, and this process only leads. `close` lets them go.
    secret: what the workers share, needed unless all are on loopback; threads: cores of each, 0 for all of its machine.
    batch_size, ubatch_size: tokens of a prompt that are handed over at once, and of these computed at once; cut to
    ubatch_size <= batch_size <= ctx_size.
    cache_type_k, cache_type_v: how keys and values are kept: f32, f16, bf16 or q8_0.
    use_mmap: compute with the file as it is mapped, all of it at once; False reads it into memory of its own.
    use_mlock: lock the weights in memory; where the system forbids it, that is said in one line.
    chat_template: one of the built-in names, or jinja source, in place of the file's own.
    Raises MinillamaError (one line: the thing, the value, the fix) for files and options that cannot be served.
    """
    started = time.perf_counter()
    batches, cache_types = Batches(batch_size, ubatch_size), read_cache_types(cache_type_k, cache_type_v)
    sharing = Sharing(split_mode, tensor_split, main_gpu, tensor_parallel, workers, secret, threads)
    path = resolve(model, hf_repo=hf_repo, hf_file=hf_file, offline=offline)
    if workers is None:
        expect_programs(path, ctx_size, n_gpu_layers, sharing, batches, cache_types)
    file = open_gguf(path)
    if "token_embd.weight" not in file.tensors:
        raise FormatError(f"{file.path.name}: tensor token_embd.weight is missing; this file holds no language model")
    config = read_config(file.metadata, vocab_size=file.tensors["token_embd.weight"].shape[0])
    if workers is not None:
        tokenizer, template = _text_side(file, config, chat_template)
        ctx_size, memory = choose_context(config, file.nbytes, ctx_size, cache_types, batches, None)
        with tqdm(desc="sending", unit="B", unit_scale=True, disable=not progress, delay=0.5, leave=False) as sent:
            executor = lead(
                sharing, file, config, ctx_size, use_mmap=use_mmap, use_mlock=use_mlock, advance=sent.update
            )
        batches, seconds = batches.within(ctx_size), time.perf_counter() - started
        return LLM(executor, tokenizer, template, file, ctx_size, batches, cache_types, memory, seconds)
    placement = place(sharing, config.block_count, n_gpu_layers)
    ctx_size, memory = choose_context(config, file.nbytes, ctx_size, cache_types, batches, placement.devices[-1])
    stays = any(reads_in_place(device) for device in placement.devices)
    if stays and not use_mmap:  # only here, for beside a device's own copy it would be a second one
        file = open_gguf(file.path, use_mmap=False)
    tokenizer, template = _text_side(file, config, chat_template)
    if unused := unused_tensors(file, config):
        logger.warning("%s: %d tensors are not used, the first is %s", file.path.name, len(unused), unused[0])
    with tqdm(
        total=sum(whole.nbytes for whole in file.mapped.values()),
        desc="loading",
        unit="B",
        unit_scale=True,
        disable=not progress,
        delay=0.5,
        leave=False,
    ) as bar:
        executor = open_here(sharing, file, config, ctx_size, placement, bar.update)
    memory = keep_weights(memory, file, stays=stays, use_mmap=use_mmap, use_mlock=use_mlock)
    batches, seconds = batches.within(ctx_size), time.perf_counter() - started
    return LLM(executor, tokenizer, template, file, ctx_size, batches, cache_types, memory, seconds)


def _text_side(file: GGUF, config: Config, chat_template: str | None) -> tuple[Tokenizer, ChatTemplate | None]:
    """Tokenizer and chat template of a file."""
    tokenizer = load_tokenizer(file.metadata)
    if tokenizer.size > config.vocab_size:
        raise FormatError(f"{file.path.name}: {tokenizer.size} tokens, but embeddings for {config.vocab_size}")
    return tokenizer, _choose_template(file.metadata, chat_template, tokenizer)


@dataclass(frozen=True, eq=False)
class LLM:
    """An open model. Made by `load`."""

    executor: Executor
    tokenizer: Tokenizer
    template: ChatTemplate | None
    file: GGUF
    ctx_size: int
    batches: Batches
    cache_types: CacheTypes
    memory: Memory
    load_seconds: float

    @property
    def config(self) -> Config:
        """Sizes and constants of the model."""
        return self.executor.config

    @property
    def here(self) -> OnDevices:
        """The executor, where this process's devices compute layer by layer; for what looks inside of the model.

        Raises OptionError where they do not.
        """
        if not isinstance(self.executor, OnDevices):
            raise OptionError("this looks inside of the model, whose weights are spread; load it on one device")
        return self.executor

    @property
    def params(self) -> Params:
        """The weights, see `here`."""
        return self.here.params

    @property
    def placement(self) -> Placement:
        """Which device computes which layer, see `here`."""
        return self.here.placement

    @property
    def metadata(self) -> Mapping[str, object]:
        """The file's metadata."""
        return self.file.metadata

    @property
    def path(self) -> Path:
        """The file, the first one of a split model."""
        return self.file.path

    def __repr__(self) -> str:
        shape = f"{self.config.architecture}, {self.config.block_count} layers, context {self.ctx_size}"
        return f"<LLM {self.path.name}: {shape}>"

    def close(self) -> None:
        """Let the workers go, where there are any; nothing can be computed afterwards."""
        self.executor.close()

    def session(self) -> Session:
        """State to pass to several calls: what they have in common at the start is evaluated once."""
        return Session(self.executor, self.ctx_size, self.batches, self.cache_types)

    def stream(
        self, prompt: str | Sequence[int], *, session: Session | None = None, **options: Unpack[GenerateOptions]
    ) -> Stream:
        """Continue a text, piece by piece.

        prompt: text, in which special tokens are recognised and BOS is put in front as the model asks, or token ids.
        session: what it shares with earlier calls at the start is not evaluated again.
        options: the fields of `Request` (n, stop, context_shift, keep, ignore_eos, lookup, ...) and of `Sampling`
        (temp, top_k, seed, ...); sampling options not given come from the file, then from llama.cpp's defaults.
        Raises OptionError for impossible options and for a prompt that does not fit.
        """
        ids = tuple(self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt)
        return self._start(ids, session, options)

    def generate(
        self, prompt: str | Sequence[int], *, session: Session | None = None, **options: Unpack[GenerateOptions]
    ) -> Completion:
        """Continue a text and give it back whole; see `stream`. An interrupt ends it and keeps the text so far."""
        return _run_out(self.stream(prompt, session=session, **options))

    def measure(
        self, prompt: str | Sequence[int], *, session: Session | None = None, **options: Unpack[GenerateOptions]
    ) -> Measured:
        """Continue a text as `generate` does, and weigh: its timings, and the memory that is held, beside formulas."""
        if session is None:
            session = self.session()
        completion = self.generate(prompt, session=session, **options)
        usage = memory_usage(self.here, session, self.batches, self.cache_types, self.file.nbytes)
        return Measured(completion, usage)

    def chat_stream(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        session: Session | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Stream:
        """Answer a conversation, piece by piece; see `stream`. Messages are `{"role": "user", "content": "..."}`.

        Raises UnsupportedError where the model has no chat template or it cannot be rendered.
        """
        ids = tuple(self.encode_chat(messages))
        return self._start(ids, session, options)

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        session: Session | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Completion:
        """Answer a conversation and give the answer back whole; see `chat_stream`."""
        return _run_out(self.chat_stream(messages, session=session, **options))

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> str:
        """The text that a conversation becomes, with its special tokens."""
        if self.template is None:
            names = ", ".join(sorted(BUILTIN_TEMPLATES))
            raise UnsupportedError(f"{self.path.name} has no chat template; choose one with chat_template: {names}")
        return self.template.render(messages, add_generation_prompt=add_generation_prompt)

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a rendered conversation, BOS not doubled where the template wrote it."""
        text, bos = self.render(messages), self.tokenizer.bos
        if self.tokenizer.add_bos and bos is not None:
            text = text.removeprefix(self.tokenizer.tokens[bos])
        return self.tokenizer.encode(text)

    def logits(self, ids: Sequence[int]) -> Float32[np.ndarray, "T V"]:
        """The logits after each of the ids, evaluated from an empty context."""
        ids = self._checked(tuple(ids))
        if len(ids) > self.ctx_size:
            raise OptionError(
                f"{len(ids)} tokens do not fit in a context of {self.ctx_size}; load with a larger ctx_size"
            )
        padded = -(-len(ids) // LEAST_CHUNK) * LEAST_CHUNK
        cache = self.executor.new_cache(padded, self.cache_types)
        row = np.zeros((1, padded), np.int32)
        row[0, : len(ids)] = ids
        parts = []
        for start in range(0, padded, self.batches.ubatch_size):
            part = row[:, start : start + self.batches.ubatch_size]
            logits, cache = self.executor.read_all(part, cache)
            parts.append(np.asarray(logits))
        return np.concatenate(parts)[: len(ids)]

    def trace(self, ids: Sequence[int]) -> dict[str, np.ndarray]:
        """Every named activation of one forward pass, without the batch axis, under llama.cpp's names.

        In the order of computation. Per layer i: attn_norm-i [T, D], Qcur-i [T, N, H], Kcur-i and Vcur-i [T, K, H],
        kq_soft_max-i [N, T, S], kqv_out-i [T, N * H], attn_out-i, ffn_inp-i, ffn_norm-i, ffn_out-i, l_out-i [T, D], and
        in dense layers ffn_swiglu-i (Gemma: ffn_geglu-i) [T, F]; around them inp_embd, result_norm and result_output
        [T, V].
        """
        ids = self._checked(tuple(ids))
        if self.placement.single is None:
            raise OptionError("trace needs all layers on one device; load with n_gpu_layers=0 or all")
        cache = empty_cache(self.config, len(ids), self.cache_types)
        found = _trace(self.params, self.config, jnp.asarray(np.array([ids], np.int32)), cache)
        arrays = {name: np.asarray(value)[0] for name, value in found.items()}
        return {
            name: a.reshape(-1, *a.shape[2:]) if name.startswith("kq_soft_max") else a for name, a in arrays.items()
        }

    def sampling(self, **options: Unpack[SamplingOptions]) -> Sampling:
        """Sampling options in force: those given, else the file's own, else llama.cpp's defaults."""
        chosen = Sampling(**{**file_defaults(self.metadata), **options})
        if chosen.dry_multiplier and not chosen.dry_sequence_breakers:
            chosen = replace(chosen, dry_sequence_breakers=self._breakers)
        return chosen

    @cached_property
    def _breakers(self) -> tuple[int, ...]:
        """Tokens that hold one of llama.cpp's sequence breakers."""
        marks = [mark.encode() for mark in DRY_BREAKERS]
        pieces = ((token, self.tokenizer.piece(token)) for token in range(self.tokenizer.size))
        return tuple(token for token, piece in pieces if any(mark in piece for mark in marks))

    def _start(self, ids: tuple[int, ...], session: Session | None, options: GenerateOptions) -> Stream:
        """Check everything that can be checked before the first token, then start."""
        names = {field.name for field in fields(Request)}
        request = Request(**{name: value for name, value in options.items() if name in names})
        sampling = self.sampling(**{name: value for name, value in options.items() if name not in names})
        ids = self._checked(ids)
        if len(ids) > self.ctx_size - 4:
            raise OptionError(
                f"the prompt has {len(ids)} tokens, too many for a context of {self.ctx_size}; raise ctx_size"
            )
        if request.ignore_eos:
            never = tuple((token, -np.inf) for token in sorted(self.tokenizer.eog))
            sampling = replace(sampling, logit_bias=(*sampling.logit_bias, *never))
        chain = self.executor.chain(sampling)
        if session is None:
            session = self.session()
        seed = self.executor.agree(resolve_seed(sampling.seed))
        return Stream(session, self.tokenizer, chain, ids, request, seed, self.load_seconds)

    def _checked(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        if not ids:
            if self.tokenizer.bos is None or not self.tokenizer.add_bos:
                raise OptionError("the prompt is empty and the model has no BOS token to start from; give a prompt")
            return (self.tokenizer.bos,)
        wrong = [token for token in ids if not 0 <= token < self.config.vocab_size]
        if wrong:
            raise OptionError(f"token id {wrong[0]} is outside the vocabulary of {self.config.vocab_size}")
        return tuple(int(token) for token in ids)


def _run_out(stream: Stream) -> Completion:
    try:
        for _ in stream:
            pass
    except KeyboardInterrupt:
        pass
    return stream.completion


@partial(jax.jit, static_argnames="config")
def _trace(params: Params, config: Config, ids: Array, cache: Cache) -> OrderedDict[str, Array]:
    found: OrderedDict[str, Array] = OrderedDict()  # a plain dict would come out of jit sorted by name

    def tap(name: str, value: Array) -> Array:
        found[name] = value
        return value

    hidden, _ = forward(params, config, ids, cache, tap)
    unembed(params, config, hidden, tap)
    return found


def _choose_template(metadata: Mapping[str, object], wanted: str | None, tokenizer: Tokenizer) -> ChatTemplate | None:
    """The named or given template, else the file's own."""
    if wanted is None:
        return load_chat_template(metadata)
    if wanted not in BUILTIN_TEMPLATES and "{" not in wanted:
        names = ", ".join(sorted(BUILTIN_TEMPLATES))
        raise OptionError(f"unknown chat template {wanted!r}; give jinja source or one of: {names}")

    def text(token: int | None) -> str:
        return "" if token is None else tokenizer.tokens[token]

    return ChatTemplate(BUILTIN_TEMPLATES.get(wanted, wanted), text(tokenizer.bos), text(tokenizer.eos))
