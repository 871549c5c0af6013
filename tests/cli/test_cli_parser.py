"""Arguments in llama.cpp's manner."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.cli.arguments import llama_options
from minillama.cli.arguments.ignored_options import RUN_OPTIONS, add_ignored_options
from minillama.cli.arguments.parser import Parser
from minillama.errors import OptionError, UnsupportedError
from minillama.sampling.sampling_params import FIELDS, Sampling

TABLES = {name: value for name, value in vars(llama_options).items() if name.isupper() and name[0] != "_"}


def make_parser() -> Parser:
    parser = Parser(prog="x")
    parser.add_argument("words", nargs="*")
    for name, table in TABLES.items():
        llama_options.add_options(parser, name, table)
    add_ignored_options(parser)
    return parser


def test_no_option_is_in_two_tables() -> None:
    names = [name for table in TABLES.values() for option in table for name in (*option.names, *option.off)]
    names += [name for option in RUN_OPTIONS for name in option.names]
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
        (["-n"], "argument -n: expected a value"),
        (["-n", "many"], "argument -n/--predict/--n-predict: invalid int value: 'many'"),
        (["--zzz"], "invalid argument: --zzz"),
        (["-l", "17"], "'17' should be a token id"),
        (["-l", "a+1"], "should be a token id"),
        (["--ignore-eos=3"], "ignored explicit argument"),
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
    assert [llama_options.layers(text) for text in ("auto", "-1", "0", "12")] == [None, None, 0, 12]
    assert llama_options.layers("all") == llama_options.layers("-2") == 1_000_000


def test_sampling_flags_name_every_field() -> None:
    """A default in the help is the sampler's default."""
    known = {option.dest: option for option in llama_options.SAMPLING}
    known["dry_sequence_breakers"] = known.pop("dry_sequence_breaker")
    assert set(FIELDS) - set(known) == {"min_keep"}
    for name, option in known.items():
        if "(default: " in option.meaning and option.kind in (int, float):
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
    with pytest.raises(OptionError, match="LLAMA_ARG_CTX_SIZE=large"):
        make_parser()
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "0")
    monkeypatch.setenv("LLAMA_ARG_MMAP", "perhaps")
    with pytest.raises(OptionError, match="LLAMA_ARG_MMAP=perhaps: should be on or off"):
        make_parser()


def test_ignored_options(caplog: pytest.LogCaptureFixture) -> None:
    parser = make_parser()
    args = parser.parse_args(["-fa", "-fa", "off", "-p", "x", "--numa", "isolate", "-fa", "auto", "--jinja"])
    assert args.prompt == "x"
    assert [message.split(" has no effect: ")[0] for message in caplog.messages] == ["-fa off", "--numa isolate"]
    assert parser.parse_args(["--rpc", "10.0.0.1:50052", "-ts", "3,1"]).workers == "10.0.0.1:50052"
    for option, accepted in RUN_OPTIONS.items():
        value = [] if accepted.is_switch else ["1"]
        if option.refused:
            with pytest.raises(UnsupportedError, match=f"^{option.names[0]}: "):
                parser.parse_args([option.names[0], *value])
        else:
            parser.parse_args([option.names[-1], *value])
