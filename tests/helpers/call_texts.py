"""Random texts of the grammars of tool calls, and how they are read."""

import json
import random
from functools import cache

from grammar_oracle import plain_tokenizer, tokens_of

from minillama.engine.grammar import Grammar, GrammarVocabulary
from minillama.tokenizer import Tokenizer
from minillama.tokenizer.chat.tool_calls.call_format import CallFormat
from minillama.tokenizer.chat.tool_calls.call_formats import FORMATS
from minillama.tokenizer.chat.tool_calls.call_parts import CallCollector, CallParts
from minillama.tokenizer.chat.tool_calls.call_splitter import CallSplitter, parameter_schemas

TAGS = (
    *dict.fromkeys(marker for _, form in FORMATS for marker in form.markers if marker.startswith(("<|", "<｜", "["))),
    "<tool_call>", "</tool_call>", "<|message|>", "<|start|>", "<|end|>", "<|constrain|>", "<think>", "</think>",
    "[ARGS]", "[CALL_ID]", "<|tool_call_argument_begin|>", "<｜tool▁sep｜>", "｜DSML｜",
)  # fmt: skip
ENDS = ("</parameter>", "</arg_value>", "parameter>", "</param>", "]]></param>", "</function>", "</invoke>")
CLOSERS = {'"', "}", "]", ")", "\n", *ENDS, "</｜DSML｜parameter>", '<|"|>', "</think>", "<|end|>", "</"}


@cache
def call_tokenizer() -> Tokenizer:
    """A vocabulary of characters, with the tags of all formats: control tokens, or texts."""
    letters = [*map(chr, range(32, 127)), "\n", "｜", "▁", "é", "日"]
    texts = ("<s>", "</s>", *dict.fromkeys([*TAGS, *ENDS, "</｜DSML｜parameter>", "</", *letters]))
    return plain_tokenizer(texts, {*texts[:2], *TAGS})


@cache
def call_vocabulary() -> GrammarVocabulary:
    return GrammarVocabulary(call_tokenizer())


def random_answer(gbnf: str, rng: random.Random, most: int = 500) -> str | None:
    """A text of random tokens that a grammar allows; None if it does not come to its end.

    Where many tokens fit, often one is chosen that ends a part of the text.
    """
    state, text = Grammar(gbnf, call_vocabulary()).start(), ""
    for _ in range(most):
        allowed = tokens_of(state.allowed())
        if 1 in allowed and (len(allowed) == 1 or rng.random() < 0.5):
            return text
        texts = [call_tokenizer().tokens[token] for token in allowed if token != 1]
        if not texts:  # the vocabulary lacks what comes next
            return None
        closers = [each for each in texts if each in CLOSERS]
        chosen = rng.choice(closers if closers and len(texts) > 15 and rng.random() < 0.4 else texts)
        state = state.accept(call_tokenizer().vocabulary.ids[chosen])
        text += chosen
    return None


def read_calls(form: CallFormat, tools: list[object], text: str) -> tuple[str, list[tuple[str, object]]]:
    """The text and the calls of an answer: names and arguments."""
    splitter, collector = CallSplitter(form, parameter_schemas(tools)), CallCollector()
    parts = CallParts()
    for character in text:
        parts += splitter.push(character)
    parts += splitter.flush()
    for delta in parts.calls:
        collector.add(delta)
    return parts.text, [(call.name, json.loads(call.arguments)) for call in collector.calls]
