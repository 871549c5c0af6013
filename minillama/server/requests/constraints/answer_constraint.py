"""The constraint of an answer: a grammar, and a budget of thoughts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minillama.server.http_errors import invalid
from minillama.server.requests.constraints.grammar_fields import read_schema, read_triggers
from minillama.server.requests.constraints.thinking_fields import read_thinking
from minillama.server.requests.constraints.tool_choice import Need, ToolChoice
from minillama.server.settings import ServerSettings
from minillama.tokenizer.chat.prompt_thoughts import PromptThoughts
from minillama.tokenizer.chat.tool_calls.call_format import CallFormat

if TYPE_CHECKING:
    from minillama.engine.grammar import GrammarState, LazyState, ThinkingBudget, Triggers
    from minillama.engine.llm import LLM


@dataclass(frozen=True)
class ChatShape:
    """The shape of a chat's answer: its possible thoughts, functions, and form of calls."""

    thoughts: PromptThoughts | None
    choice: ToolChoice
    calls: CallFormat


@dataclass(frozen=True)
class AnswerConstraint:
    """gbnf: the text of the grammar, "" without one."""

    gbnf: str = ""
    grammar: "GrammarState | LazyState | None" = None
    thinking: "ThinkingBudget | None" = None


def read_constraint(
    body: Mapping[str, object], llm: "LLM", settings: ServerSettings, chat: ChatShape | None
) -> AnswerConstraint:
    """Read the fields of a request; the command has their defaults.

    Raises RequestError or OptionError for a grammar or a schema that cannot be kept.
    """
    gbnf, triggers = _tool_grammar(body, llm, chat) or _own_grammar(body, llm, settings, chat)
    thoughts = None if chat is None else chat.thoughts
    thinking = read_thinking(body, settings.chat, thoughts, is_watched=triggers is not None)
    if not gbnf:
        return AnswerConstraint(thinking=thinking)
    compiled = llm.requests.grammars.compile(gbnf, triggers=triggers)
    assert compiled is not None
    return AnswerConstraint(gbnf, compiled.start(), thinking)


def _tool_grammar(
    body: Mapping[str, object], llm: "LLM", chat: ChatShape | None
) -> "tuple[str, Triggers | None] | None":
    """The grammar of calls; None where the answer is not bound to them.

    A function that is not needed, next to a form of the answer, does not bind it.
    """
    if chat is None or not chat.choice.may_call:
        return None
    from minillama.engine.grammar.tool_calls.call_grammar import CallGrammarWriter

    if body.get("grammar"):
        raise invalid("Cannot use custom grammar constraints with tools.")
    choice = chat.choice
    writer = CallGrammarWriter(llm.tokenizer, chat.calls, choice.is_parallel)
    if choice.need is Need.REQUIRED:
        return writer.required(choice.functions, chat.thoughts).gbnf, None
    found = writer.optional(choice.functions) if choice.functions and read_schema(body) is None else None
    return None if found is None else (found.gbnf, found.triggers)


def _own_grammar(
    body: Mapping[str, object], llm: "LLM", settings: ServerSettings, chat: ChatShape | None
) -> "tuple[str, Triggers | None]":
    """The grammar of the fields grammar, json_schema and response_format, else that of the command."""
    grammar, schema = body.get("grammar"), read_schema(body)
    if grammar and schema is not None:
        raise invalid("Cannot use both json_schema and grammar")
    if schema is not None:
        return _schema_grammar(schema, llm, None if chat is None else chat.thoughts), read_triggers(body)
    if grammar is None:
        return settings.grammar, None
    if not isinstance(grammar, str):
        raise invalid("Field 'grammar': type must be string")
    return grammar, read_triggers(body) if grammar else None


def _schema_grammar(schema: object, llm: "LLM", thoughts: PromptThoughts | None) -> str:
    """JSON of a schema; in a chat, after thoughts."""
    from minillama.engine.grammar.json_schema.schema_grammar import schema_to_gbnf
    from minillama.engine.grammar.tool_calls.call_rules import CallRules
    from minillama.engine.grammar.tool_calls.thought_rules import wrap_answer

    if thoughts is None:
        return schema_to_gbnf(schema)
    rules = CallRules(llm.tokenizer)
    wrap_answer(rules, thoughts, rules.add_schema(schema, "answer"))
    return rules.text()
