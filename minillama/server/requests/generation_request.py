"""A checked request for completions of one prompt."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from minillama.sampling import Sampling
from minillama.server.http_errors import invalid, not_supported
from minillama.server.requests.constraints.answer_constraint import AnswerConstraint, ChatShape, read_constraint
from minillama.server.requests.draft_fields import read_draft
from minillama.server.requests.fields import COUNTS, FLAGS, SAMPLING, Field, Kind, read_fields
from minillama.server.requests.token_options import (
    read_biases,
    read_breakers,
    read_response_fields,
    read_samplers,
    read_stop,
)
from minillama.server.settings import DraftSettings, ServerSettings
from minillama.tokenizer.chat.answer_parts import Splitter, Uncut
from minillama.tokenizer.chat.tool_calls.call_splitter import CallSplitter

if TYPE_CHECKING:
    from minillama.engine.llm import LLM

MOST_PROBS = 100  # likeliest tokens of one position
RANDOM_SEED = 2**32 - 1


@dataclass(frozen=True)
class ChatFormat:
    """The form of a chat's answer.

    splitter, calls: make the splitters of one answer, into thoughts and text, and into text and tool calls; without
    `calls` there are none. generation_prompt: the end of the prompt, which begins the answer.
    """

    splitter: Callable[[], Splitter] = Uncut
    calls: Callable[[], CallSplitter] | None = None
    name: str = "Content-only"
    reasoning_format: str = "deepseek"
    generation_prompt: str = ""


@dataclass(frozen=True)
class GenerationRequest:
    """The options of the completions of one prompt.

    values: the plain fields by llama-server's names.
    """

    ids: tuple[int, ...]
    sampling: Sampling
    stop: tuple[str, ...]
    values: Mapping[str, int | float | bool]
    breakers: tuple[str, ...]  # DRY's sequence breakers as texts, to show them
    response_fields: tuple[str, ...] = ()
    slot: int | None = None
    completions: int = 1
    include_usage: bool = False
    constraint: AnswerConstraint = field(default_factory=AnswerConstraint)
    draft: DraftSettings = field(default_factory=DraftSettings)
    drafting: str = "none"  # llama-server's name of the kind of guesses
    chat: ChatFormat = field(default_factory=ChatFormat)

    def is_on(self, name: str) -> bool:
        """The value of a flag."""
        return bool(self.values.get(name, False))

    def number(self, name: str, default: int = 0) -> int:
        """The value of a count."""
        return int(self.values.get(name, default))

    def with_ids(self, ids: tuple[int, ...]) -> "GenerationRequest":
        """The same request for another prompt."""
        return replace(self, ids=ids)

    @property
    def most_tokens(self) -> int:
        """Tokens to write; -1 for no limit. With 0 llama-server writes one."""
        n = self.number("n_predict", -1)
        return 1 if n == 0 else n


def read_request(
    body: Mapping[str, object],
    ids: tuple[int, ...],
    llm: "LLM",
    settings: ServerSettings,
    chat: ChatFormat | None = None,
    shape: ChatShape | None = None,
) -> GenerationRequest:
    """Check all fields of a completion request; raises RequestError for a wrong one.

    chat, shape: of a chat's answer.
    """
    values = {**_defaults(settings), **read_fields(body, (*FLAGS, *COUNTS))}
    if values.get("n_predict") == -1:
        values["n_predict"] = settings.n
    _check_unsupported(body, values)
    completions = Field(("n_cmpl", "n"), Kind.INT, 1, settings.slots, is_hard=True)
    options = body.get("stream_options")
    usage = read_fields(options, (Field(("include_usage",), Kind.BOOL),)) if isinstance(options, dict) else {}
    slot = body.get("id_slot")
    breakers = body.get("dry_sequence_breakers")
    return GenerationRequest(
        ids=ids,
        sampling=_sampling(body, values, llm, settings),
        stop=read_stop(body.get("stop")) or settings.stop,
        values=values,
        breakers=tuple(breakers) if isinstance(breakers, list) else ("\n", ":", '"', "*"),
        response_fields=read_response_fields(body.get("response_fields")),
        slot=slot if isinstance(slot, int) and not isinstance(slot, bool) and 0 <= slot < settings.slots else None,
        completions=int(read_fields(body, (completions,)).get("n_cmpl", 1)),
        include_usage=bool(usage.get("include_usage", False)),
        constraint=read_constraint(body, llm, settings, shape),
        draft=read_draft(body, settings.draft),
        drafting="none" if llm.draft is None else "draft-simple",
        chat=chat or ChatFormat(reasoning_format=shown_format(settings.chat.reasoning_format)),
    )


def shown_format(reasoning_format: str) -> str:
    """The name of a reasoning format in answers; `auto` is deepseek, as in llama-server."""
    return "deepseek" if reasoning_format == "auto" else reasoning_format


def _defaults(settings: ServerSettings) -> dict[str, int | float | bool]:
    return {
        "n_predict": settings.n,
        "n_keep": settings.keep,
        "cache_prompt": settings.cache_prompt,
        "ignore_eos": settings.ignore_eos,
        "verbose": settings.verbose,
        "sse_ping_interval": settings.ping_interval,
    }


def _check_unsupported(body: Mapping[str, object], values: Mapping[str, int | float | bool]) -> None:
    if values.get("n_probs", 0) > MOST_PROBS:
        raise invalid(f"Field 'n_probs': {values['n_probs']} likeliest tokens; ask for at most {MOST_PROBS}")
    if values.get("n_indent", 0) > 0:
        raise not_supported("Field 'n_indent': a least indentation is not supported")
    if body.get("lora"):
        raise not_supported("Field 'lora': LoRA adapters are not supported; merge the adapter into the GGUF file")
    if values.get("echo"):
        raise invalid("Only no echo is supported")


def _sampling(
    body: Mapping[str, object], values: Mapping[str, int | float | bool], llm: "LLM", settings: ServerSettings
) -> Sampling:
    """The sampling options of the request, else of the command, the file or llama.cpp."""
    chosen = llm.sampling(**settings.sampling)
    given = read_fields(body, SAMPLING)
    changes: dict[str, object] = {option: given[f.name] for f, option in SAMPLING.items() if f.name in given}
    if changes.get("dry_base", 1.0) < 1.0:  # type: ignore[operator]
        changes["dry_base"] = chosen.dry_base
    seed = read_fields(body, (Field(("seed",)),)).get("seed")
    if seed is not None:
        number = int(seed) % 2**32
        changes["seed"] = -1 if number == RANDOM_SEED else number
    if body.get("samplers") is not None:
        order = read_samplers(body["samplers"])
        changes |= {} if order is None else {"samplers": order}
    if body.get("logit_bias") is not None:
        changes["logit_bias"] = read_biases(body["logit_bias"], llm.tokenizer)
    if values.get("ignore_eos"):
        biases = changes.get("logit_bias", chosen.logit_bias)
        ends = tuple((token, -math.inf) for token in sorted(llm.tokenizer.eog))
        changes["logit_bias"] = (*biases, *ends)  # type: ignore[misc]
    sampling = replace(chosen, **changes)  # type: ignore[arg-type]
    if body.get("dry_sequence_breakers") is not None:
        breakers = read_breakers(body["dry_sequence_breakers"], llm.tokenizer)
        return replace(sampling, dry_sequence_breakers=breakers)
    if sampling.dry_multiplier and not sampling.dry_sequence_breakers:
        return replace(sampling, dry_sequence_breakers=llm.sampling(dry_multiplier=1.0).dry_sequence_breakers)
    return sampling
