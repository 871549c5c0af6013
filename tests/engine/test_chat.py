"""Chats: thoughts apart from the answer, in streams and completions."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from vocabularies import CONTROL, MERGES, bpe_metadata

import minillama as ml
from minillama.engine.generation.text_output import TextOutput
from minillama.engine.llm import LLM
from minillama.engine.result import Reason
from minillama.errors import OptionError
from minillama.tokenizer import ChatTemplate, load_tokenizer
from minillama.tokenizer.chat.answer_parts import Parts
from minillama.tokenizer.chat.reasoning_format import answer_splitter

SPECIAL = [(text, CONTROL) for text in ("<think>", "</think>", "<|im_end|>", "<|tool|>")]
TOKENIZER = load_tokenizer(bpe_metadata(MERGES, SPECIAL))
USER = [{"role": "user", "content": "Once upon a time"}]


@pytest.fixture(scope="module")
def thinker(builtin_model: Path) -> LLM:
    """The storyteller with a template that begins the thoughts, so all that it tells is one."""
    llm = ml.load(builtin_model, progress=False)
    return replace(llm, template=ChatTemplate("{{ messages[0].content }}<think>", "", ""))


def shown(texts: Sequence[str], reason: Reason, *, form: str = "auto", stop: Sequence[str] = ()) -> list[Parts]:
    """The parts that the tokens of some texts show, one by one, and the rest."""
    output = TextOutput(TOKENIZER, stop, False, answer_splitter("", "", form))
    tokens = [token for text in texts for token in TOKENIZER.encode(text, add_special=False)]
    parts = [*map(output.push, tokens), output.end(reason)]
    assert output.text == "".join(part.text for part in parts)
    assert output.reasoning_content == "".join(part.reasoning_content for part in parts)
    return [part for part in parts if part != Parts()]


ANSWER = ("<think>", "he", " the", "</think>", "<|tool|>", " cat", "<|im_end|>")


def test_tags_are_read_where_they_are_control_tokens() -> None:
    assert shown(ANSWER, Reason.STOP) == [Parts("", "he"), Parts("", " the"), Parts("cat")]
    assert shown(ANSWER, Reason.STOP, form="none") == [
        Parts("<think>"), Parts("he"), Parts(" the"), Parts("</think>"), Parts(" cat"),
    ]  # fmt: skip
    both = shown(ANSWER, Reason.STOP, form="deepseek-legacy")
    assert "".join(part.text for part in both) == "<think>he the</think> cat"
    assert "".join(part.reasoning_content for part in both) == "he the"


def test_a_stop_string_ends_thoughts_too() -> None:
    assert shown(ANSWER, Reason.WORD, stop=["the"]) == [Parts("", "he")]
    assert shown(ANSWER[:5], Reason.WORD, stop=["<|tool|>"]) == [Parts("", "he"), Parts("", " the")]


def test_half_a_tag_at_the_end_is_text() -> None:
    assert shown(["<think>", "he", "</thi"], Reason.LIMIT)[-1] == Parts("", "</thi")
    assert shown(["<thi"], Reason.LIMIT) == [Parts("<thi")]


def test_thoughts_of_a_chat(thinker: LLM) -> None:
    plain = thinker.generate(thinker.render(USER), n=8, temp=0.0).text
    answer = thinker.chat(USER, n=8, temp=0.0)
    assert (answer.text, answer.reasoning_content) == ("", plain.strip())
    assert str(answer) == ""
    stream = thinker.chat_stream(USER, n=8, temp=0.0)
    pieces = list(stream)
    assert len(pieces) == 8 and {piece.text for piece in pieces} == {""}
    assert "".join(piece.reasoning_content for piece in pieces) == stream.reasoning_content == plain.strip()
    assert stream.completion.reasoning_content == plain.strip()
    assert answer.message == {
        "role": "assistant", "content": "", "reasoning_content": plain.strip(), "thinking": plain.strip(),
    }  # fmt: skip


@pytest.mark.parametrize("form", ["none", "deepseek-legacy", "deepseek"])
def test_formats_of_a_chat(thinker: LLM, form: str) -> None:
    plain = thinker.generate(thinker.render(USER), n=4, temp=0.0).text
    answer = thinker.chat(USER, n=4, temp=0.0, reasoning_format=form)
    assert answer.text == ("" if form == "deepseek" else plain)
    assert answer.reasoning_content == ("" if form == "none" else plain.strip())
    assert ("thinking" in answer.message) == (form != "none")


def test_an_unknown_format(thinker: LLM) -> None:
    with pytest.raises(OptionError, match="reasoning_format is 'xml'; use one of none, auto"):
        thinker.chat(USER, reasoning_format="xml")


def test_an_interrupt_keeps_the_thoughts(thinker: LLM) -> None:
    with thinker.chat_stream(USER, temp=0.0) as stream:
        first = next(stream)
    assert stream.completion.reason is Reason.INTERRUPTED
    assert stream.completion.reasoning_content.startswith(first.reasoning_content)
