"""Arguments in llama.cpp's manner."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.cli.arguments import llama_options
from minillama.cli.arguments.ignored_options import OTHERS, add_ignored_options
from minillama.cli.arguments.option import Option, add_options
from minillama.cli.arguments.parser import Parser
from minillama.errors import OptionError, UnsupportedError
from minillama.sampling.sampling_params import FIELDS, Sampling

TABLES = {
    name: table
    for name, table in vars(llama_options).items()
    if isinstance(table, tuple) and isinstance(table[0], Option)
}


@cache
def make_parser() -> Parser:
    parser = Parser(prog="x")
    parser.add_argument("words", nargs="*")
    for name, table in TABLES.items():
        add_options(parser, name, table)
    add_ignored_options(parser, "run")
    return parser


def test_no_option_is_in_two_tables() -> None:
    names = [name for table in TABLES.values() for option in table for name in (*option.names, *option.off)]
    others = [option for option in OTHERS if "run" in option.commands.split()]
    names += [name for option in others for name in f"{option.names} {option.off}".split()]
    assert len(names) == len(set(names))


def test_names_and_values() -> None:
    args = make_parser().parse_args(
        ["-ngl", "all", "--n_predict", "3", "--top_p=0.5", "-p", "- a list", "-hf", "u/r:Q8_0", "a", "-b", "7", "b"]
    )
    assert (args.gpu_layers, args.predict, args.top_p, args.prompt) == (1_000_000, 3, 0.5, "- a list")
    assert (args.hf_repo, args.batch_size, args.words) == ("u/r:Q8_0", 7, ["a", "b"])
    assert (args.ctx_size, args.ubatch_size, args.model, args.escape, args.mmap) == (0, 512, None, True, True)


def test_switches() -> None:
    parser = make_parser()
    assert parser.parse_args(["--no-mmap", "--no-escape", "-cnv"]).conversation is True
    args = parser.parse_args(["--no_mmap", "-no-cnv", "--context-shift"])
    assert (args.mmap, args.conversation, args.context_shift) == (False, False, True)
    assert parser.parse_args([]).conversation is None


@given(st.text(max_size=20))
def test_any_text_can_be_a_prompt(text: str) -> None:
    assert make_parser().parse_args(["-p", text]).prompt == text
    assert make_parser().parse_args(["--prompt", text, "-n", "-1"]).prompt == text


def test_the_last_one_counts(caplog: pytest.LogCaptureFixture) -> None:
    args = make_parser().parse_args(["--temp", "1", "--top-k", "3", "--temperature", "2", "-r", "a", "-r", "b"])
    assert (args.temp, args.reverse_prompt) == (2.0, ["a", "b"])
    assert caplog.messages == ["--temperature is given more than once; the last one counts"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--promt", "x"], r"invalid argument: --promt \(did you mean --prompt\?\); see x --help"),
        (["-ngx", "3"], "invalid argument: -ngx"),  # argparse would read -n gx
        (["-n"], "-n: expected a value"),
        (["-n", "many"], "-n many: expected a whole number; see x --help"),
        (["-n", ""], "-n '': expected a whole number"),
        (["-n", "9" * 5000], "-n '9{60}'...: expected a whole number from -2147483648 to 2147483647"),
        (["--temp", "1e50"], "--temp 1e50: expected a number of at most 3.4e"),
        (["--temp", "a\nb"], r"--temp 'a\\nb': expected a number"),
        (["--color", "maybe"], "--color maybe: use on, off or auto"),
        (["-fa", "hello"], "-fa hello: use on, off or auto"),
        (["-fa=-n"], "-fa -n: use on, off or auto"),
        (["--poll", "-n", "4"], "--poll -n: expected a whole number"),
        (["--prio", "-n"], "--prio -n: expected a whole number"),
        (["--control-vector-layer-range", "1"], "--control-vector-layer-range: expected 2 values"),
        (["--zzz"], "invalid argument: --zzz"),
        (["-l", "17"], "-l 17: expected a token id, \\+ or -, and a number, as in 15043\\+1"),
        (["-l", "a+1"], "-l a\\+1: expected a whole number"),
        (["--ignore-eos=3"], "--ignore-eos takes no value, but 3 is given"),
        (["--reasoning-budget", "-2"], "--reasoning-budget -2: expected at least -1"),
        (["--chat-template-kwargs", "{"], "--chat-template-kwargs {: Expecting property name"),
    ],
)
def test_errors_are_one_line(words: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        make_parser().parse_args(words)
    assert "\n" not in str(caught.value)


def test_bias_and_layers() -> None:
    assert llama_options.bias("15043+1") == (15043, 1.0)
    assert llama_options.bias("2-0.5") == (2, -0.5)
    assert llama_options.bias("2-inf") == (2, float("-inf"))
    assert llama_options.bias("5--1") == (5, 1.0) and llama_options.bias(" 7 + 1e1") == (7, 10.0)
    assert llama_options.dry_base("2") == 2 and llama_options.dry_base("0.5") is None
    assert [llama_options.layers(text) for text in ("auto", "-1", "0", "12")] == [None, None, 0, 12]
    assert llama_options.layers("all") == llama_options.layers("-2") == 1_000_000


def test_sampling_flags_name_every_field() -> None:
    """A default in the help is the sampler's default."""
    known = {option.dest: option for option in llama_options.SAMPLING}
    known["dry_sequence_breakers"] = known.pop("dry_sequence_breaker")
    assert set(FIELDS) - set(known) == {"min_keep", "n_probs", "post_sampling_probs"}
    for name, option in known.items():
        if "(default: " in option.meaning and option.kind is not str and name != "logit_bias":
            stated = option.meaning.rpartition("(default: ")[2].rstrip(")")
            assert float(stated) == getattr(Sampling(), name), name


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "LLAMA_ARG_CTX_SIZE": "4096",
        "LLAMA_ARG_MODEL": "a.gguf",
        "LLAMA_ARG_MMAP": "0",
        "LLAMA_ARG_TEMPERATURE": "0.5",
        "LLAMA_ARG_CONTEXT_SHIFT": "on",
        "LLAMA_ARG_N_GPU_LAYERS": "all",
    }.items():
        monkeypatch.setenv(name, value)
    args = make_parser().parse_args(["-c", "512"])
    assert args.ctx_size == 512  # the command line is stronger
    assert (args.model, args.mmap, args.temp, args.context_shift) == ("a.gguf", False, 0.5, True)
    assert args.gpu_layers == 1_000_000
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "large")
    with pytest.raises(OptionError, match="LLAMA_ARG_CTX_SIZE=large: expected a whole number"):
        make_parser().parse_args([])
    assert make_parser().parse_args(["-c", "512"]).ctx_size == 512
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "0")
    monkeypatch.setenv("LLAMA_ARG_MMAP", "perhaps")
    with pytest.raises(OptionError, match="LLAMA_ARG_MMAP=perhaps: use on or off"):
        make_parser().parse_args([])
    monkeypatch.setenv("LLAMA_ARG_NO_MMAP", "0")  # with any value, and stronger, as in llama.cpp
    assert make_parser().parse_args([]).mmap is False
    assert make_parser().parse_args(["--mmap"]).mmap is True
    monkeypatch.setenv("LLAMA_CHAT_TEMPLATE_KWARGS", '{"a": 1}')  # the name in older releases
    assert make_parser().parse_args([]).chat_template_kwargs == {"a": 1}


def test_ignored_options(caplog: pytest.LogCaptureFixture) -> None:
    parser = make_parser()
    args = parser.parse_args(["-fa", "off", "-p", "x", "--numa", "isolate", "-fa", "-1", "--jinja", "--no-warmup"])
    assert args.prompt == "x"
    assert [message.split(" has no effect: ")[0] for message in caplog.messages] == ["-fa off", "--numa isolate"]
    assert parser.parse_args(["--rpc", "10.0.0.1:50052", "-ts", "3,1"]).workers == "10.0.0.1:50052"
    with pytest.raises(UnsupportedError, match=r"^--lora: LoRA adapters are not supported yet"):
        parser.parse_args(["--lora", "a.gguf"])


@pytest.mark.parametrize("name", ["--color", "-fa", "--numa", "--log-colors"])
def test_what_was_a_switch_takes_no_option(name: str) -> None:
    """Older releases of llama.cpp have these without a value."""
    args = make_parser().parse_args([name, "-n", "4", "hello"])
    assert (args.predict, args.words) == (4, ["hello"])
    assert args.color is (True if name == "--color" else None)
    assert make_parser().parse_args(["--temp", "0", name]).temp == 0


def test_words_of_colour() -> None:
    given = {"on": True, "enabled": True, "1": True, "off": False, "disabled": False, "auto": None, "-1": None}
    assert {text: make_parser().parse_args(["-co", text]).color for text in given} == given
    assert {text: make_parser().parse_args(["-rea", text]).reasoning for text in given} == given


def test_values_that_begin_with_a_dash() -> None:
    args = make_parser().parse_args(["-r", "--", "-p", "- a list", "--seed", "-1", "--temp", "-0.5", "--", "-n", "--"])
    assert (args.reverse_prompt, args.prompt, args.seed, args.temp) == (["--"], "- a list", -1, -0.5)
    assert (args.words, args.predict) == (["-n", "--"], -1)
    assert make_parser().parse_args(["-5", "--no-mmap"]).words == ["-5"]
