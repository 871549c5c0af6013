"""Chat templates: Hugging Face's extensions, errors with reasons, built-in formats."""

import itertools
import os
from datetime import datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType

import jinja2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers_jinja import transformers_environment
from vocabularies import MERGES, WORDS, bpe_metadata, spm_metadata

from minillama.errors import FormatError, OptionError, UnsupportedError
from minillama.tokenizer import BUILTIN_TEMPLATES, ChatTemplate, load_chat_template

USER = [{"role": "user", "content": "Hello"}]
TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi there"},
    {"role": "user", "content": " Who? "},
]


def render(source: str, messages: list[dict] = USER, **extra: object) -> str:
    tools = extra.pop("tools", None)
    return ChatTemplate(source, "<s>", "</s>").render(messages, tools=tools, extra=extra)


@pytest.fixture
def llama_cpp_templates() -> Path:
    """Folder models/templates of llama.cpp."""
    folder = Path(os.environ.get("LLAMA_CPP", "llama.cpp")) / "models" / "templates"
    if not folder.is_dir():
        pytest.skip("LLAMA_CPP does not name a checkout of llama.cpp")
    return folder


EXPECTED = {
    "chatml": "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    "Hi there<|im_end|>\n<|im_start|>user\n Who? <|im_end|>\n<|im_start|>assistant\n",
    "llama2": "[INST] Be kind.\nHello [/INST]Hi there</s>[INST]  Who?  [/INST]",
    "llama2-sys": "[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHello [/INST]Hi there</s>[INST]  Who?  [/INST]",
    "llama3": "<|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nHi there<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nWho?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "llama4": "<|header_start|>system<|header_end|>\n\nBe kind.<|eot|><|header_start|>user<|header_end|>\n\nHello"
    "<|eot|><|header_start|>assistant<|header_end|>\n\nHi there<|eot|><|header_start|>user<|header_end|>\n\nWho?<|eot|>"
    "<|header_start|>assistant<|header_end|>\n\n",
    "mistral-v1": " [INST] Be kind.\n\nHello [/INST] Hi there</s> [INST]  Who?  [/INST]",
    "mistral-v3": "[INST] Be kind.\n\nHello[/INST] Hi there</s>[INST]  Who? [/INST]",
    "mistral-v3-tekken": "[INST]Be kind.\n\nHello[/INST]Hi there</s>[INST] Who? [/INST]",
    "mistral-v7": "[SYSTEM_PROMPT] Be kind.[/SYSTEM_PROMPT][INST] Hello[/INST] Hi there</s>[INST]  Who? [/INST]",
    "mistral-v7-tekken": "[SYSTEM_PROMPT]Be kind.[/SYSTEM_PROMPT][INST]Hello[/INST]Hi there</s>[INST] Who? [/INST]",
    "gemma": "<start_of_turn>user\nBe kind.\n\nHello<end_of_turn>\n<start_of_turn>model\nHi there<end_of_turn>\n"
    "<start_of_turn>user\nWho?<end_of_turn>\n<start_of_turn>model\n",
    "phi3": "<|system|>\nBe kind.<|end|>\n<|user|>\nHello<|end|>\n<|assistant|>\nHi there<|end|>\n"
    "<|user|>\n Who? <|end|>\n<|assistant|>\n",
    "phi4": "<|im_start|>system<|im_sep|>Be kind.<|im_end|><|im_start|>user<|im_sep|>Hello<|im_end|>"
    "<|im_start|>assistant<|im_sep|>Hi there<|im_end|><|im_start|>user<|im_sep|> Who? <|im_end|>"
    "<|im_start|>assistant<|im_sep|>",
    "falcon3": "<|system|>\nBe kind.\n<|user|>\nHello\n<|assistant|>\nHi there\n<|user|>\n Who? \n<|assistant|>\n",
    "zephyr": "<|system|>\nBe kind.<|endoftext|>\n<|user|>\nHello<|endoftext|>\n<|assistant|>\nHi there<|endoftext|>\n"
    "<|user|>\n Who? <|endoftext|>\n<|assistant|>\n",
    "orion": "Human: Be kind.\n\nHello\n\nAssistant: </s>Hi there</s>Human:  Who? \n\nAssistant: </s>",
    "openchat": "Be kind.<|end_of_turn|>GPT4 Correct User: Hello<|end_of_turn|>GPT4 Correct Assistant: Hi there"
    "<|end_of_turn|>GPT4 Correct User:  Who? <|end_of_turn|>GPT4 Correct Assistant:",
    "vicuna": "Be kind.\n\nUSER: Hello\nASSISTANT: Hi there</s>\nUSER:  Who? \nASSISTANT:",
    "vicuna-orca": "SYSTEM: Be kind.\nUSER: Hello\nASSISTANT: Hi there</s>\nUSER:  Who? \nASSISTANT:",
    "chatglm3": "[gMASK]sop<|system|>\n Be kind.<|user|>\n Hello<|assistant|>\n Hi there<|user|>\n  Who? <|assistant|>",
    "chatglm4": "[gMASK]<sop><|system|>\nBe kind.<|user|>\nHello<|assistant|>\nHi there<|user|>\n Who? <|assistant|>\n",
    "glmedge": "<|system|>\nBe kind.<|user|>\nHello<|assistant|>\nHi there<|user|>\n Who? <|assistant|>",
    "deepseek": "Be kind.### Instruction:\nHello\n### Response:\nHi there\n<|EOT|>\n### Instruction:\n Who? \n"
    "### Response:\n",
    "deepseek2": "Be kind.\n\nUser: Hello\n\nAssistant: Hi there<｜end▁of▁sentence｜>User:  Who? \n\nAssistant:",
    "deepseek3": "Be kind.\n\n<｜User｜>Hello<｜Assistant｜>Hi there<｜end▁of▁sentence｜><｜User｜> Who? "
    "<｜Assistant｜>",
    "command-r": "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be kind.<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hello<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>Hi there<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Who?<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    "minicpm": "Be kind.<用户>Hello<AI>Hi there<用户>Who?<AI>",
    "exaone3": "[|system|]Be kind.[|endofturn|]\n[|user|]Hello\n[|assistant|]Hi there[|endofturn|]\n[|user|]Who?\n"
    "[|assistant|]",
    "granite": "<|start_of_role|>system<|end_of_role|>Be kind.<|end_of_text|>\n"
    "<|start_of_role|>user<|end_of_role|>Hello<|end_of_text|>\n"
    "<|start_of_role|>assistant<|end_of_role|>Hi there<|end_of_text|>\n"
    "<|start_of_role|>user<|end_of_role|> Who? <|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
    "gpt-oss": "<|start|>system<|message|>Be kind.<|end|><|start|>user<|message|>Hello<|end|>"
    "<|start|>assistant<|message|>Hi there<|return|><|start|>user<|message|> Who? <|end|><|start|>assistant",
}


@pytest.mark.parametrize("name", sorted(BUILTIN_TEMPLATES))
def test_built_in_formats(name: str) -> None:
    assert render(BUILTIN_TEMPLATES[name], TALK) == EXPECTED[name]


def test_no_generation_prompt() -> None:
    template = ChatTemplate(BUILTIN_TEMPLATES["chatml"], "", "")
    assert template.render(USER, add_generation_prompt=False) == "<|im_start|>user\nHello<|im_end|>\n"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", "<s>Hello</s>"),
        ("  {% if true %}\nx\n  {% endif %}\ny\n", "x\ny"),  # trim_blocks and lstrip_blocks
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "1"),
        ("{% generation %}{{ messages[0]['content'] }}{% endgeneration %}!", "Hello!"),
        ("{{ {'a': 'é<', 'b': [1, none, true]} | tojson }}", '{"a": "é<", "b": [1, null, true]}'),
        ("{{ {'a': 1} | tojson(indent=2) }}", '{\n  "a": 1\n}'),
        ("{{ messages[-1:][0].content[::-1].strip('o') }}", "lleH"),
        ("{% for key, value in messages[0].items() %}{{ key }}={{ value }};{% endfor %}", "content=Hello;role=user;"),
        ("{{ 'x,y'.split(',')[1] ~ 1 ~ none ~ missing }}", "y1None"),
        ("{{ '%s-%d' % ('a', 3) }}{{ '{}/{:.1f}'.format('b', 2) }}", "a-3b/2.0"),
        ("{{ ['a', 'b'] | join('/') }}{{ messages | map(attribute='role') | join }}", "a/buser"),
        ("{{ 'a\nb' | indent(2) }}{{ 'aXa' | replace('a', 'b', 1) }}", "a\n  bbXa"),
        ("{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m(1) }}{{ loop is defined }}", "[1]False"),
        ("{% for m in messages %}{{ loop.first and loop.last }}{{ loop.length }}{% endfor %}", "True1"),
        ("{{ enable_thinking }}{{ tools | length }}", "False2"),
        ("{{ strftime_now('%Y') }}", str(datetime.now().year)),
    ],
)
def test_extensions_of_hugging_face(source: str, text: str) -> None:
    assert render(source, [{"content": "Hello", "role": "user"}], enable_thinking=False, tools=[1, 2]) == text


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('System role not supported') }}", "refuses these messages: System role not supported"),
        ("a\n\n{% if %}", "is broken in line 3: Expected an expression"),
        ("a\n{{ 1 / 0 }}", "failed in line 2: division by zero"),
        ("a\n\n{{ things[0].name }}", "failed in line 3: 'things' is undefined"),
        ("{{ 1 | nosuch }}", "is broken in line 1: No filter named 'nosuch'"),
        ("{% nosuch %}", "is broken in line 1: Encountered unknown tag 'nosuch'"),
        ("{{ raise_exception('a\nb') }}", "refuses these messages: a b"),
        ("{{ raise_exception('a\x1b[31mb') }}", r"refuses these messages: a\x1b[31mb"),
        ("{% include '/etc/passwd' %}", "failed in line 1"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "failed: it calls itself without end"),
        ("{% for a in [1] %}" * 25 + "{% endfor %}" * 25, "is broken: too many statically nested blocks"),
        ("{% if 1 %}" * 200 + "{% endif %}" * 200, "is broken: too many levels of indentation"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "is nested too deeply"),
        ("{% generation %}{% break %}{% endgeneration %}", "is broken: 'break' outside loop"),
        ("{{ " + "9" * 5000 + " }}", "is broken: Exceeds the limit"),
        ("x" * 500_001, "has 500001 characters, more than 500000"),
        ("{{ raise_exception('x' * 9999) }}", "refuses these messages: xxx"),
    ],
)
def test_a_template_that_fails_is_refused_with_the_reason_and_the_fix(source: str, reason: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        render(source)
    assert f"the model's chat template {reason}" in str(caught.value)
    assert "--chat-template" in str(caught.value) and str(caught.value).isprintable()
    assert len(str(caught.value)) <= 500


def test_long_conversations() -> None:
    messages = [{"role": "user", "content": "Tell me a story. " * 100}] * 500
    assert len(render(BUILTIN_TEMPLATES["gemma"], messages)) > 800_000


@given(st.text("{}%-# \nabifforinendset=.|()[]'1", max_size=60))
def test_any_template_renders_or_is_refused(source: str) -> None:
    try:
        assert isinstance(render(source), str)
    except UnsupportedError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (["hello"], "message 0 is 'hello'"),
        ([*USER, {"content": "x"}], "message 1 has the role None"),
        ([{"role": "", "content": "x"}], "message 0 has the role ''"),
        ([{"role": "user"}], "message 0 has the content None"),
        ([{"role": "user", "content": 3}], "message 0 has the content 3"),
        ([{"role": "user", "content": {"x": "y" * 9999}}], "message 0 has the content .*; give it a text"),
        ([], "no messages"),
    ],
)
def test_invalid_messages(messages: list, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        ChatTemplate("", "", "").render(messages)


CALL = {"type": "function", "function": {"name": "look_up", "arguments": {"word": "fox"}}}
CALLING = [
    {"role": "user", "content": "Find it."},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "content": "a fox"},
]
WORD = {"type": "object", "properties": {"word": {"type": "string", "description": "<é>"}}, "required": ["word"]}
TOOL = {"type": "function", "function": {"name": "look_up", "description": "Look up a word.", "parameters": WORD}}
THOUGHT = {"role": "assistant", "content": "Hi there", "reasoning_content": "They greet."}
CONVERSATIONS = (USER, TALK, CALLING, [TALK[0], *CALLING], [*TALK[:2], THOUGHT, TALK[3]])
# A prompt that begins thoughts ends them where thinking is off, as in llama.cpp and unlike transformers.
THOUGHTS = {
    "<think>": "</think>",
    "Here are my reasoning steps:": "[BEGIN FINAL RESPONSE]",
    "<|START_THINKING|>": "<|END_THINKING|>",
}
SWITCHES = ({}, {"enable_thinking": False}, {"enable_thinking": True}, {"thinking": True}, {"reasoning_effort": "low"})


@cache
def compiled_as_transformers(source: str) -> jinja2.Template:
    return transformers_environment().from_string(source)


def as_transformers(source: str, messages: list[dict], **extra: object) -> str:
    """What apply_chat_template of transformers gives, with its environment."""
    variables = {"tools": None, "documents": None, "bos_token": "<s>", "eos_token": "</s>", **extra}
    return compiled_as_transformers(source).render(messages=messages, add_generation_prompt=True, **variables)


@pytest.mark.parametrize("tools", [None, [CALL]])
@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}",
        "{% for m in messages %}{% if m.content is defined %}{{ m.content }}{% else %}calls{% endif %}{% endfor %}",
        "{% for m in messages %}{% if 'content' in m and 'x' not in m.content %}<{{ m.role }}>{% endif %}{% endfor %}",
        "{% for m in messages %}{% if m.content is none %}none{% endif %}{{ m.keys() | list }}{% endfor %}",
        "{{ tools is defined }}{{ tools is none }}{{ documents is defined }}{{ tools | length if tools }}",
    ],
)
def test_messages_reach_the_template_unchanged(source: str, tools: list | None) -> None:
    ours = ChatTemplate(source, "<s>", "</s>").render(CALLING, tools=tools)
    assert ours == as_transformers(source, CALLING, tools=tools)


@pytest.mark.parametrize(
    "source",
    [
        "{% generation %}{% set x = 1 %}{{ messages[0].role }}{% endgeneration %}{{ x }}",
        "{% set ns = namespace(x=0) %}{% generation %}{% set ns.x = 1 %}{% endgeneration %}{{ ns.x }}",
        "{{ bos_token | center(9) }}{{ 'a b' | wordwrap(1) }}{{ 99 | filesizeformat }}{{ [1] | slice(1) | list }}",
        "{{ 'x'.ljust(3) }}{{ '%5s' % 'a' }}{{ '{:>4}'.format('b') }}{{ 'x' * 3 }}{{ 2 ** 9 }}{{ 'a' ~ none }}",
        "{{ messages | tojson(indent=2, sort_keys=true) }}{{ {'a': 1} | tojson(separators=(',', ':')) }}",
    ],
)
def test_the_language_of_transformers(source: str) -> None:
    assert render(source, CALLING) == as_transformers(source, CALLING)


@pytest.mark.slow
def test_real_templates_as_transformers(llama_cpp_templates: Path) -> None:
    different, compared, refused = {}, 0, 0
    for path in sorted(llama_cpp_templates.glob("*.jinja")):
        source = path.read_text()
        for messages, extra, tools in itertools.product(CONVERSATIONS, SWITCHES, (None, [TOOL])):
            try:
                right = as_transformers(source, messages, tools=tools, **extra)
            except Exception:
                right = None
            try:
                ours = render(source, messages, tools=tools, **extra)
            except UnsupportedError:
                ours = None
            compared, refused = compared + 1, refused + (right is None)
            if right is not None and extra.get("enable_thinking") is False:
                right += next((end for start, end in THOUGHTS.items() if right.rstrip().endswith(start)), "")
            if ours != right:
                different[path.name] = (right, ours)
    assert not different
    assert compared == 50 * len(list(llama_cpp_templates.glob("*.jinja"))) > 3000 and refused < compared / 5


@pytest.mark.slow
def test_earlier_thoughts_do_not_disturb_real_templates(llama_cpp_templates: Path) -> None:
    """An answer with thoughts goes back into every template; a template writes them once or leaves them out."""
    for path in sorted(llama_cpp_templates.glob("*.jinja")):
        source = path.read_text()
        plain = [*USER, {"role": "assistant", "content": "Hi there"}, *USER]
        try:
            render(source, plain)
        except UnsupportedError:
            continue
        thought = plain[1] | dict.fromkeys(("reasoning_content", "thinking"), "They greet.")
        assert render(source, [*USER, thought, *USER]).count("They greet.") <= 1, path.name


def test_a_file_may_have_another_template_for_tools() -> None:
    metadata = spm_metadata(WORDS) | {
        "tokenizer.chat_template": "plain",
        "tokenizer.chat_template.tool_use": "{{ tools[0].type }}",
    }
    template = load_chat_template(metadata)
    assert template.render(USER) == "plain"
    assert template.render(USER, tools=[CALL]) == "function"


PARTS = [{"role": "user", "content": [{"type": "text", "text": "Tell me"}, {"type": "text", "text": "a story."}]}]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ '<' + messages[0].content + '>' }}", "<Tell me\na story.>"),
        ("{{ messages[0].content }}", "Tell me\na story."),
        ("{{ messages[0].content | tojson }}", '"Tell me\\na story."'),
        ("{% for part in messages[0].content %}<{{ part.text }}>{% endfor %}", "<Tell me><a story.>"),
        (
            "{% if messages[0].content is string %}x{% else %}{{ messages[0].content[-1]['text'] }}{% endif %}",
            "a story.",
        ),
    ],
)
def test_text_parts(source: str, text: str) -> None:
    assert render(source, PARTS) == text


@pytest.mark.parametrize("tools", [5, "look_up", {"name": "look_up"}])
def test_tools_that_are_no_list(tools: object) -> None:
    with pytest.raises(OptionError, match=r"tools is .*; give a list of functions"):
        render("", tools=tools)


def test_a_part_that_is_no_text() -> None:
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    with pytest.raises(OptionError, match=r"message 0 has the part .*image_url.*takes texts only"):
        render("{{ 'a' + messages[0].content }}", image)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"x": {1, 2}}, r"\{1, 2\} is a set; give a text, number, list or dictionary"),
        ({"x": {(1, 2): 3}}, "keys must be"),
        ({"x": datetime.now()}, "is a datetime"),
    ],
)
def test_variables_that_are_no_json(extra: dict, said: str) -> None:
    with pytest.raises(OptionError, match=f"template variables are JSON values: .*{said}"):
        render("{{ x }}", **extra)


def test_texts_of_any_characters() -> None:
    text = "é中😀\udcff\ud800\x00\u2028\r\n\\"
    assert render("{{ messages[0].content }}{{ x }}", [{"role": "user", "content": text}], x=text) == text + text


def test_mappings_of_any_type() -> None:
    message = MappingProxyType({"role": "user", "content": "Hello"})
    assert render("{{ messages[0].content }}{{ x.a }}", [message], x=MappingProxyType({"a": 1})) == "Hello1"


def test_messages_are_not_changed() -> None:
    message = {"role": "user", "content": "Hello"}
    render("{{ messages[0].content }}", [message])
    assert message == {"role": "user", "content": "Hello"}


def test_the_template_of_a_file() -> None:
    source = "{{ bos_token }}-{{ eos_token }}"
    spm, bpe = spm_metadata(WORDS), bpe_metadata(MERGES)
    assert load_chat_template(spm) is None
    assert load_chat_template(spm | {"tokenizer.chat_template": source}).render(USER) == "<s>-</s>"
    bpe |= {"tokenizer.chat_template": source}
    assert load_chat_template(bpe).render(USER) == "-".join(bpe["tokenizer.ggml.tokens"][:2])
    nameless = {"tokenizer.chat_template": source, "tokenizer.ggml.model": "gpt2"}
    assert load_chat_template(nameless).render(USER) == "-"
    with pytest.raises(FormatError, match=r"tokenizer\.chat_template is not a text"):
        load_chat_template({"tokenizer.chat_template": np.zeros(3)})
