"""Open a GGUF file: find it, read it, choose a backend, load the weights."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import jax

from minillama.engine.backends.choose import open_here, open_on_workers, place, prefault
from minillama.engine.compile.executable_cache import prefetch_model
from minillama.engine.drafting.draft_model import DraftModel
from minillama.engine.drafting.draft_vocabulary import check_draft_vocabulary
from minillama.engine.llm import LLM
from minillama.engine.load_options import LoadKeywords, LoadOptions
from minillama.engine.loading.load_params import config_and_ignored_keys, unused_tensors
from minillama.engine.loading.memory_budget import choose_context, logger, record_storage
from minillama.engine.loading.model_files import resolve
from minillama.errors import FormatError, OptionError, UnsupportedError
from minillama.gguf import GGUF, open_gguf
from minillama.kernels import bytes_on, reads_in_place
from minillama.model import Config
from minillama.tokenizer import BUILTIN_TEMPLATES, ChatTemplate, Tokenizer, load_chat_template, load_tokenizer


def load(model: str | Path | None = None, **options: Unpack[LoadKeywords]) -> LLM:
    """Open a GGUF model.

    model: a file, or None for the built-in storyteller. options: the fields of `LoadOptions` (ctx_size, n_gpu_layers,
    cache_type_k, workers, ...).
    Raises MinillamaError (one line: the thing, the value, the fix) for files and options that cannot be served.
    """
    return open_model(model, LoadOptions(**options))


def open_model(model: str | Path | None, options: LoadOptions) -> LLM:
    """Open a model with checked options; see `load`."""
    path = resolve(model, hf_repo=options.hf_repo, hf_file=options.hf_file, offline=options.offline)
    prefetch_model(path, options)
    return _open(path, options)


def _open(path: Path, options: LoadOptions) -> LLM:
    started = time.perf_counter()
    file = open_gguf(path)
    config, ignored = config_and_ignored_keys(file)
    placement = None if options.workers is not None else place(options.sharing, config, options.n_gpu_layers)
    device = None if placement is None else placement.devices[-1]
    if ignored:
        logger.warning("%s: ignored metadata, as in llama.cpp: %s", file.path.name, ", ".join(ignored))
    weights = file.nbytes if device is None else sum(bytes_on(device, tensor) for tensor in file.tensors.values())
    ctx_size, memory = choose_context(config, weights, options.ctx_size, options.cache_types, options.batches, device)
    in_place = placement is not None and any(reads_in_place(device) for device in placement.devices)
    if in_place and not options.use_mmap:  # a device's own copy of the weights needs no second one in memory
        file = open_gguf(file.path, use_mmap=False)
    prefaulted = None if placement is None else prefault(options.sharing, file, placement)
    tokenizer, template = _text_side(file, config, options.chat_template)  # refuses before anything slow starts
    draft = None if options.draft is None else _open_draft(options, file, tokenizer, ctx_size)
    if placement is None:
        backend = open_on_workers(options, file, config, ctx_size)
    else:
        if unused := unused_tensors(file, config):
            logger.warning("%s: %d tensors are not used, the first is %s", file.path.name, len(unused), unused[0])
        here = options.sharing, file, config, ctx_size, placement
        backend = open_here(*here, progress=options.progress, prefaulted=prefaulted)
        memory = record_storage(memory, file, in_place=in_place, use_mmap=options.use_mmap, use_mlock=options.use_mlock)
    batches, seconds = options.batches.within(ctx_size), time.perf_counter() - started
    in_place = in_place and options.use_mmap
    cache_types = options.cache_types
    return LLM(backend, tokenizer, template, file, ctx_size, batches, cache_types, memory, seconds, in_place, draft)


def _open_draft(options: LoadOptions, target: GGUF, tokenizer: Tokenizer, ctx_size: int) -> DraftModel:
    """The draft model; refused before the weights of the other model are read."""
    own = options.draft
    assert own is not None
    path = resolve(options.model_draft, hf_repo=own.hf_repo, hf_file=None, offline=own.offline, is_draft=True)
    file = open_gguf(path)
    if config_and_ignored_keys(file)[0].is_recurrent:
        raise UnsupportedError(
            f"{path.name} has recurrent layers, which cannot go back after a wrong guess; choose another draft model"
        )
    if jax.process_count() > 1:
        raise OptionError("model_draft and a cluster: a draft model runs in one process; leave one of them out")
    check_draft_vocabulary(target, tokenizer, file, load_tokenizer(file.metadata))
    llm = _open(path, replace(own, ctx_size=min(options.ctx_size_draft or ctx_size, ctx_size)))
    size, chunk = llm.ctx_size, llm.batches.ubatch_size
    return DraftModel(llm.backend, path.name, size, llm.cache_types, chunk, tokenizer.size, llm.check_file)


def _text_side(file: GGUF, config: Config, chat_template: str | None) -> tuple[Tokenizer, ChatTemplate | None]:
    """The tokenizer and the chat template of a file."""
    tokenizer = load_tokenizer(file.metadata)
    if tokenizer.size != config.vocab_size:  # llama.cpp refuses both: padding rows have no text, and may win
        raise FormatError(
            f"{file.path.name}: token_embd.weight has {config.vocab_size} rows, but tokenizer.ggml.tokens has "
            f"{tokenizer.size} tokens; convert the model again with a current converter, which adds the missing tokens"
        )
    return tokenizer, _choose_template(file.metadata, chat_template, tokenizer)


def _choose_template(metadata: Mapping[str, object], wanted: str | None, tokenizer: Tokenizer) -> ChatTemplate | None:
    """The named or given template, else the file's own."""
    if wanted is None:
        return load_chat_template(metadata)
    if wanted not in BUILTIN_TEMPLATES and not any(character in wanted for character in "{ \n"):  # no name has one
        names = ", ".join(sorted(BUILTIN_TEMPLATES))
        raise OptionError(f"unknown chat template {wanted!r}; give jinja source or one of: {names}")

    def text(token: int | None) -> str:
        return "" if token is None else tokenizer.tokens[token]

    return ChatTemplate(BUILTIN_TEMPLATES.get(wanted, wanted), text(tokenizer.bos), text(tokenizer.eos))
