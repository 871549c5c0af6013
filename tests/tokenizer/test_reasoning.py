"""Thoughts and answers: the markers of real templates, and the same parts for every cut into pieces."""

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minillama.errors import OptionError
from minillama.tokenizer import BUILTIN_TEMPLATES
from minillama.tokenizer.chat.answer_parts import Parts, Splitter, overlap
from minillama.tokenizer.chat.chat_template import ChatTemplate
from minillama.tokenizer.chat.harmony_splitter import HarmonySplitter
from minillama.tokenizer.chat.reasoning_format import (
    FORMS,
    REASONING_FORMATS,
    THINK,
    answer_splitter,
    end_thoughts,
)
from minillama.tokenizer.chat.tag_splitter import TagSplitter

RESTART = "<|end|><|start|>assistant"
QWEN, SEED, GPT_OSS, GEMMA = "...</think>...", "...<seed:think>...", "...<|channel|>...", "...<|channel>..."
HARMONY = "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}"


def split(source: str, answer: str, prompt: str = "", reasoning_format: str = "auto") -> tuple[str, str]:
    """Thoughts and text of a whole answer."""
    splitter = answer_splitter(source, prompt, reasoning_format)
    parts = splitter.push(answer) + splitter.flush()
    return parts.reasoning_content, parts.text


# Answers, and what llama.cpp's parser of the template finds in them, without the blanks around thoughts.
@pytest.mark.parametrize(
    ("source", "prompt", "answer", "thoughts", "text"),
    [
        (QWEN, "", "<think>\nI think\n</think>\n\nHello\n", "I think", "Hello\n"),
        (QWEN, "", "  \n<think>x</think>y", "x", "y"),
        (QWEN, "", "Hi <think>x</think>y", "", "Hi <think>x</think>y"),
        (QWEN, "", "<think>\n\n</think>\n\nHi", "", "Hi"),
        (QWEN, "", "<think>never ends", "never ends", ""),
        (QWEN, "", "<think>a</think>b <think>c</think>d", "a", "b <think>c</think>d"),
        (QWEN, "assistant\n<think>\n", "I think\n</think>\n\nHello\n", "I think", "Hello\n"),
        (QWEN, "assistant\n<think>\n", "x </think> y </think> z", "x", "y </think> z"),
        (QWEN, "assistant\n<think>\n\n</think>\n\n", "Hello", "", "Hello"),
        (QWEN, "", " Hello\n", "", " Hello\n"),
        (QWEN, "", "", "", ""),
        (SEED, "", "\n<seed:think>\nr\n</seed:think>\nc", "r", "c"),
        ("[SYSTEM_PROMPT]", "", "[THINK]r[/THINK]c", "r", "c"),
        ("<|START_THINKING|>", "<|START_THINKING|>", "r<|END_THINKING|>c", "r", "c"),
        ("<mm:think>", "", "<mm:think>r</mm:think>c", "r", "c"),
        (GEMMA, "", "<|channel>thought\nabc\n<channel|>Hello", "abc", "Hello"),
        (GEMMA, "", "<|channel>thought\n<channel|>Hi<|channel>thought\n<channel|>", "", "Hi"),
        (GEMMA, "", "Hello<|channel>thought\nmore\n<channel|> there", "more", "Hello there"),
        (GPT_OSS, "", HARMONY.format("r", "c"), "r", "c"),
        (GPT_OSS, "", "<|channel|>final<|message|>c", "", "c"),
        (GPT_OSS, "", "<|channel|>analysis<|message|>r<|en", "r<|en", ""),
        (GPT_OSS, "", "<|channel|>commentary to=assistant" + HARMONY.format("r", "x"), "r", "x"),
    ],
)
def test_answers_of_llama_cpp(source: str, prompt: str, answer: str, thoughts: str, text: str) -> None:
    assert split(source, answer, prompt) == (thoughts, text)


@pytest.mark.parametrize(
    ("source", "answer", "thoughts", "text"),
    [
        # blocks of thoughts, and messages of the answer, are lines
        (GPT_OSS, f"<|channel|>analysis<|message|>a{RESTART}" + HARMONY.format("b ", "c"), "a\nb", "c"),
        (GPT_OSS, f"<|channel|>commentary<|message|>pre{RESTART}" + HARMONY.format("r", "c"), "r", "pre\nc"),
        # calls of tools stay as the model writes them
        (GPT_OSS, f"<|channel|>analysis<|message|>r{RESTART} to=functions.f<|channel|>commentary json<|message|>{{}}",
         "r", "to=functions.f<|channel|>commentary json<|message|>{}"),
        (GPT_OSS, "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}", "",
         "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}"),
        # answers outside the format
        (GPT_OSS, "plain", "", "plain"),
        (GPT_OSS, "plain <|message|> x", "", "plain <|message|> x"),
        (GPT_OSS, "<|channel|>anal", "", ""),
        (GPT_OSS, "to be", "", "to be"),
        (GPT_OSS, "<|start|>" + "x" * 600, "", "<|start|>" + "x" * 600),
        (GPT_OSS, "<|channel|>final<|message|>a" + " <|start|>" + "x" * 600, "", "a <|start|>" + "x" * 600),
        (QWEN, "</think>x", "", "x"),
        (QWEN, "<thi", "", "<thi"),
        (GEMMA, "a<channel|>b", "", "ab"),
    ],
)  # fmt: skip
def test_other_answers(source: str, answer: str, thoughts: str, text: str) -> None:
    assert split(source, answer) == (thoughts, text)


SOURCES = (*FORMS, "</think>")
TEXTS = st.lists(
    st.sampled_from(
        ["a", "b ", " ", "\n", "<", "<|", "think", "to=", "assistant", "final", "analysis", "commentary", "functions.f",
         "x" * 501,
         "<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|channel>thought", "<channel|>", "[", "日本",
         *(mark for tags in FORMS.values() if tags is not None for mark in (tags.start, tags.end)),
         THINK.start, THINK.end]
    ),
    max_size=14,
).map("".join)  # fmt: skip


def streamed(splitter: Splitter, pieces: Sequence[str]) -> list[Parts]:
    return [*map(splitter.push, pieces), splitter.flush()]


@given(st.sampled_from(SOURCES), st.sampled_from(REASONING_FORMATS), TEXTS, st.data(), st.booleans())
@example("</think>", "auto", "<think>a</think>b", None, False)
def test_every_cut_gives_the_same_parts(
    source: str, reasoning_format: str, text: str, data: st.DataObject | None, opened: bool
) -> None:
    tags = FORMS.get(source, THINK)
    prompt = f"x{tags.start}\n" if opened and tags is not None else "x"
    places = range(1, len(text)) if data is None else sorted(data.draw(st.sets(st.integers(0, len(text)))))
    ends = [0, *places, len(text)]
    pieces = [text[start:end] for start, end in pairwise(ends)]
    parts = streamed(answer_splitter(source, prompt, reasoning_format), pieces)
    whole = split(source, text, prompt, reasoning_format)
    assert ("".join(part.reasoning_content for part in parts), "".join(part.text for part in parts)) == whole
    if reasoning_format == "none":
        assert whole == ("", text)
    if reasoning_format == "deepseek-legacy":
        assert whole == (split(source, text, prompt)[0], text)
    assert whole[0] == whole[0].strip()


@given(
    st.sampled_from([text for text, tags in FORMS.items() if tags is not None] + ["</think>"]),
    st.text("ab<>[]/|think \n"),
)
def test_thoughts_and_text_are_found(source: str, thoughts: str) -> None:
    """A reference: the tags and the answer around any thoughts."""
    tags = FORMS.get(source) or THINK
    if tags.end in thoughts or tags.start in thoughts:
        return
    found, text = split(source, f"{tags.start}{thoughts}{tags.end}\n\nThe answer.")
    assert (found, text) == (thoughts.strip(), "The answer.")


@given(TEXTS, st.data())
def test_no_half_of_a_marker_is_shown(text: str, data: st.DataObject) -> None:
    """Characters one by one: what is shown never ends with the beginning of a tag that follows in the text."""
    splitter = TagSplitter(THINK, "<think>")
    shown = ""
    for place, character in enumerate(text):
        shown += splitter.push(character).reasoning_content
        rest = text[place + 1 :]
        for size in range(1, len(THINK.end)):
            assert not (
                len(shown) == place + 1
                and shown.endswith(THINK.end[:size])
                and rest.startswith(THINK.end[size:])
                and THINK.end not in text[:place]
            )


def test_overlap() -> None:
    assert [overlap("a</th", "</think>"), overlap("</think>", "</think>"), overlap("a<<", "<x"), overlap("", "x")] == [
        4,
        0,
        1,
        0,
    ]


def test_an_unknown_format() -> None:
    with pytest.raises(
        OptionError, match="reasoning_format is 'deep'; use one of none, auto, deepseek, deepseek-legacy"
    ):
        answer_splitter("", "", "deep")


def test_built_in_templates() -> None:
    splitters = {name: answer_splitter(source, "") for name, source in BUILTIN_TEMPLATES.items()}
    assert {name for name, splitter in splitters.items() if isinstance(splitter, HarmonySplitter)} == {"gpt-oss"}
    others = {name for name, splitter in splitters.items() if splitter.markers[0] not in ("<think>", "<|start|>")}
    assert others == {"mistral-v7", "mistral-v7-tekken"}


# Tags that llama.cpp finds by its own analysis of the template, where they are not <think>. Hy3 and Kimi K3 build
# theirs with macros; their answers stay whole.
OTHER_TAGS = {
    "Apriel-1.6-15b-Thinker-fixed": "Here are my reasoning steps:", "ByteDance-Seed-OSS": "<seed:think>",
    "Cohere2MoE": "<|START_THINKING|>", "CohereForAI-c4ai-command-r7b-12-2024-tool_use": "<|START_THINKING|>",
    "MiniMax-M3": "<mm:think>", "google-gemma-4-31B-it": "<|channel>thought",
    "google-gemma-4-31B-it-interleaved": "<|channel>thought", "openai-gpt-oss-120b": "<|start|>",
    "mistralai-Ministral-3-14B-Reasoning-2512": "[THINK]", "unsloth-mistral-Devstral-Small-2507": "[THINK]",
    "Mistral-Small-3.2-24B-Instruct-2506": "[THINK]",
}  # fmt: skip


@pytest.mark.parametrize(
    ("source", "prompt", "expected"),
    [
        (QWEN, "assistant\n<think>\n", "assistant\n<think>\n</think>"),
        (QWEN, "assistant\n<think>\n\n</think>\n\n", "assistant\n<think>\n\n</think>\n\n"),
        (QWEN, "assistant\n", "assistant\n"),
        ("<|START_THINKING|>", "<|START_THINKING|>", "<|START_THINKING|><|END_THINKING|>"),
        (GPT_OSS, "<|start|>assistant", "<|start|>assistant"),
    ],
)
def test_thinking_off_ends_the_thoughts_that_a_prompt_begins(source: str, prompt: str, expected: str) -> None:
    assert end_thoughts(source, prompt) == expected
    template = ChatTemplate(f"{{{{ {prompt!r} }}}}{{# {source} #}}", "", "")
    assert template.render([{"role": "user", "content": "x"}], extra={"enable_thinking": False}) == expected


def test_real_templates() -> None:
    folder = Path(os.environ.get("LLAMA_CPP", "llama.cpp")) / "models" / "templates"
    if not folder.is_dir():
        pytest.skip("LLAMA_CPP does not name a checkout of llama.cpp")
    found = {path.stem: answer_splitter(path.read_text(), "").markers[0] for path in folder.glob("*.jinja")}
    assert len(found) > 60
    assert {name: start for name, start in found.items() if start != "<think>"} == OTHER_TAGS
