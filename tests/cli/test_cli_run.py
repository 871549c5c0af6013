"""`minillama run`, `simple` and `tokenize` on the built-in model: stdout and stderr."""

import io
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import minillama as ml
from minillama import env
from minillama.cli import main, parse_arguments
from minillama.cli.arguments.model_from_args import generate_options
from minillama.cli.output.terminal import use_colour
from minillama.engine.llm import LLM
from minillama.tokenizer.chat.reasoning_format import REASONING_FORMATS

STORY = "Once upon a time"


@pytest.fixture(scope="module")
def llm(builtin_model: Path) -> LLM:
    return ml.load(builtin_model, progress=False)


class Terminal(io.StringIO):
    """A standard input that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_continuation_echoes_the_prompt(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    expected = llm.generate(STORY, n=8, temp=0.0).text
    assert main(["run", "-no-cnv", "-p", STORY, "-n", "8", "--temp", "0"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{STORY}{expected}\n"
    assert (
        main(["completion", "-no-cnv", "--no-display-prompt", *STORY.split(), "-n", "8", "--temp", "0", "--no-perf"])
        == 0
    )
    quiet = capsys.readouterr()
    assert (quiet.out, quiet.err) == (f"{expected}\n", "")

    # The block of timings, in llama.cpp's words; compiling is a line of its own.
    lines = [line.partition("=")[0].removeprefix("minillama:").strip() for line in err.splitlines() if "=" in line]
    assert lines == ["load time", "compile time", "prompt eval time", "eval time", "total time"]
    assert (
        " ms /     5 tokens (" in err
        and " ms /     7 runs   (" in err
        and err.endswith("stopped as -n tokens were generated\n")
    )


def test_chat_prints_only_the_answer(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    messages = [{"role": "system", "content": "You are kind."}, {"role": "user", "content": "Tell me a story."}]
    expected = llm.chat(messages, n=8, seed=7, top_k=5)
    words = ["run", "-sys", "You are kind.", "-p", "Tell me a story.", "-n", "8", "-s", "7", "--top-k", "5"]
    assert main([*words, "--verbose-prompt"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{expected.text}\n"
    assert repr(llm.render(messages)) in err
    assert f"number of tokens in prompt = {expected.prompt_tokens}" in err


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([], "[][]"),
        (["--chat-template-kwargs", '{"enable_thinking": false, "reasoning_effort": "low"}'], "[False][low]"),
        (["-rea", "off"], "[False][]"),
        (["--reasoning", "on", "--reasoning-effort", "high"], "[True][high]"),
        (["-rea", "auto", "--reasoning-effort", "default"], "[][]"),
        (["--reasoning-budget", "0"], "[False][]"),
        (["-rea", "on", "--chat-template-kwargs", '{"enable_thinking": 1}'], "[1][]"),
        (["-rea", "disabled", "--no-reasoning-preserve"], "[False][]False"),
        (["--reasoning-preserve"], "[][]True"),
        (["--chat-template-kwargs", '{"messages": [], "self": 1, "tools": []}'], "[][]"),
    ],
)
@pytest.mark.parametrize("command", [["run"], ["cli", "-st"]])
def test_variables_of_the_chat_template(
    command: list[str], words: list[str], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    template = "[{{ enable_thinking }}][{{ reasoning_effort }}]{{ preserve_reasoning }}{{ messages[0].content }}"
    given = ["-p", "Hello", "-n", "1", "--chat-template", template, "--verbose-prompt", *words]
    assert main([*command, *given]) == 0
    assert f"{shown}Hello" in capsys.readouterr().err


THINK = "{{ messages[0].content }}<think>"


@pytest.mark.parametrize(
    ("words", "before", "after"),
    [
        ([], "[Start thinking]\n\n", "\n"),
        (["--color", "on"], "\x1b[2m[Start thinking]\n\n", "\x1b[0m\n"),
        (["--reasoning-format", "deepseek"], "[Start thinking]\n\n", "\n"),
        (["--reasoning-format", "none"], "", "\n"),
        (["--reasoning-format", "deepseek-legacy"], "", "\n"),
        (["--skip-chat-parsing"], "", "\n"),
    ],
)
def test_thoughts(llm: LLM, capsys: pytest.CaptureFixture[str], words: list[str], before: str, after: str) -> None:
    told = llm.generate(f"{STORY}<think>", n=4, temp=0.0).text
    given = ["run", "-p", STORY, "-n", "4", "--temp", "0", "--chat-template", THINK, "--no-perf", *words]
    assert main(given) == 0
    assert capsys.readouterr().out == before + (told.strip() if before else told) + after


def test_a_budget_of_thoughts(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    told = llm.generate(f"{STORY}<think>", n=4, temp=0.0).text
    budget = ["--reasoning-budget", "4", "--reasoning-budget-message", " Enough."]
    given = ["run", "-p", STORY, "-n", "16", "--temp", "0", "--chat-template", THINK, "--no-perf", *budget]
    assert main(given) == 0
    thoughts = f"[Start thinking]\n\n{told.strip()} Enough."
    assert capsys.readouterr().out.startswith(f"{thoughts}\n[End thinking]")


def test_formats_of_thoughts_are_those_of_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-p", "x", "--reasoning-format", "xml"]) == 2
    assert f"use one of {', '.join(REASONING_FORMATS)}" in capsys.readouterr().err


def test_colour_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert not use_colour(None) and use_colour(True)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert use_colour(None) and not use_colour(False)
    monkeypatch.setenv("TERM", "dumb")
    assert not use_colour(None)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not use_colour(None) and use_colour(True)


@pytest.mark.parametrize(
    "words",
    [
        ["--chat-template-kwargs", "{"],
        ["--chat-template-kwargs", "[1]"],
        ["-rea", "maybe"],
        ["--reasoning-budget", "-2"],
    ],
)
def test_invalid_variables_of_the_chat_template(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-p", "Hello", *words]) == 2
    error = capsys.readouterr().err
    assert words[0] in error and words[1] in error and error.count("\n") == 1


def test_control_tokens_are_printed_on_demand(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    end = llm.tokenizer.eos
    words = ["run", "-no-cnv", "--no-display-prompt", STORY, "-n", "2", "--no-perf", "-l", f"{end}+1000"]
    assert main(words) == 0
    assert capsys.readouterr().out == "\n"
    assert main([*words, "--special"]) == 0
    assert capsys.readouterr().out == llm.tokenizer.piece(end, special=True).decode() + "\n"


def test_bytes_that_are_no_utf8(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    """Python reads them from the command line as surrogates."""
    words = ["run", "-p", "\udcff", "-sys", "\udcfe", "-n", "1", "-r", "\udcff", "--no-perf"]
    assert main(words) == 0
    assert capsys.readouterr().err == ""
    chosen = generate_options(parse_arguments([*words, "--dry-sequence-breaker", "\udcff"]), llm)
    pieces = [llm.tokenizer.piece(token) for token in chosen["dry_sequence_breakers"]]
    assert pieces and all(b"\xff" in piece for piece in pieces)


def test_verbosity(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", STORY, "-n", "1", "--temp", "0"]
    shown = {}
    for level in ("1", "2", "3", "4"):
        assert main([*words, "-lv", level]) == 0
        shown[level] = capsys.readouterr().err
    assert shown["1"] == shown["2"] == ""
    assert "total time" in shown["3"] and "info: memory: " not in shown["3"]
    assert "total time" in shown["4"] and "info: memory: " in shown["4"]


def test_variables_turn_off(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LLAMA_ARG_NO_MMAP", "1")
    monkeypatch.setenv("LLAMA_ARG_NO_PERF", "1")
    assert main(["run", STORY, "-n", "1", "-v"]) == 0
    err = capsys.readouterr().err
    assert "read into memory" in err and "total time" not in err
    assert main(["run", STORY, "-n", "1", "-v", "-lm", "mmap"]) == 0  # the command line is stronger
    assert "mapped from the file" in capsys.readouterr().err


def test_devices_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["run", "-p", STORY, "--list-devices"], ["imatrix", "--list-devices"]):
        assert main(words) == 0
        assert capsys.readouterr().out == "Available devices:\n  cpu: cpu\n"


def test_pipe_is_the_prompt(llm: LLM, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("你好\n"))
    assert main(["run", "-n", "3", "--temp", "0", "--log-disable"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (llm.chat([{"role": "user", "content": "你好"}], n=3, temp=0.0).text + "\n", "")
    monkeypatch.setattr(sys, "stdin", Terminal())
    assert main(["run"]) == 2
    assert "minillama: error: no prompt; give one with -p" in capsys.readouterr().err


def test_stop_text(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    whole = llm.generate(STORY, n=16, temp=0.0).text
    word = whole.split()[2]
    assert main(["run", "-no-cnv", "--no-display-prompt", "-p", STORY, "-n", "16", "--temp", "0", "-r", word]) == 0
    out, err = capsys.readouterr()
    assert out == whole.partition(word)[0] + "\n"
    assert "stopped as a stop string was generated" in err


def test_interrupt_keeps_what_was_written(
    builtin_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from minillama.cli.output import answer_writer

    written: list[str] = []

    def write(text: str) -> None:
        written.append(text)
        if len(written) == 4:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(answer_writer, "write_text", write)
    assert main(["run", "-p", "Tell me a story.", "--ignore-eos", "-s", "1"]) == 130
    assert 4 <= len(written) <= 7  # a piece or two may be on their way when the signal comes
    assert "stopped as interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_reader_that_goes_away(builtin_model: Path) -> None:
    program = "from minillama.cli import entry; entry()"
    command = [sys.executable, "-c", program, "run", "-no-cnv", "-p", STORY, "--ignore-eos", "-n", "300"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(4) == b"Once"
        process.stdout.close()
        errors = process.stderr.read().decode()
        assert process.wait(120) == 141
    assert errors == ""


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has what must be missing")
def test_a_device_that_is_not_there_is_not_replaced_in_silence(builtin_model: Path) -> None:
    command = [sys.executable, "-c", "from minillama.cli import entry; entry()", "run", "-p", "x", "-dev", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("minillama: error: -dev cuda: ")


def test_options_reach_the_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All options of the model, without loading it."""
    from minillama.engine import load as engine
    from minillama.engine.load_options import LoadOptions

    asked: dict[str, object] = {}

    def open_model(path: Path, options: LoadOptions) -> None:
        asked.update({field.name: getattr(options, field.name) for field in fields(options)}, path=path)
        raise ml.ResourceError("enough")

    monkeypatch.setattr(engine, "open_model", open_model)
    model, template = tmp_path / "m.gguf", tmp_path / "template.jinja"
    model.touch()
    template.write_text("{{ messages }}")
    threads: dict[str, object] = {}
    monkeypatch.setattr(env, "prepare", lambda **options: threads.update(options))
    words = ["-m", str(model), "-t", "1", "-tb", "2"]
    words += ["-sm", "layer", "-ts", "3,1", "--worker-timeout", "20"]
    words += ["-c", "1024", "-b", "64", "-ub", "32", "-ngl", "0", "-lm", "none", "-ctk", "q8_0"]
    words += ["-md", str(model), "-cd", "512", "-ngld", "0", "-ctkd", "q8_0"]
    assert main(["run", "-p", "x", *words, "--chat-template-file", str(template)]) == 2
    assert asked == {
        "path": model, "ctx_size": 1024, "batch_size": 64, "ubatch_size": 32, "n_gpu_layers": 0, "use_mmap": False,
        "use_mlock": False,
        "cache_type_k": "q8_0", "cache_type_v": "f16", "chat_template": "{{ messages }}", "progress": False,
        "split_mode": "layer", "tensor_split": (3.0, 1.0), "main_gpu": 0, "tensor_parallel": 1, "workers": None,
        "secret": None, "threads": 1, "worker_timeout": 20.0, "hf_repo": None, "hf_file": None, "offline": False,
        "model_draft": model, "hf_repo_draft": None, "ctx_size_draft": 512, "n_gpu_layers_draft": 0,
        "cache_type_k_draft": "q8_0", "cache_type_v_draft": "f16",
    }  # fmt: skip
    assert threads == {"threads": 1, "threads_batch": 2, "platform": None, "cpu_devices": 2}
    assert capsys.readouterr().err == "minillama: error: enough\n"
    for words, mapped, locked in (
        ([], True, False),
        (["-lm", "mlock"], False, True),
        (["-lm", "mmap+mlock"], True, True),
        (["--mlock"], True, True),
        (["--mlock", "--no-mmap"], False, True),
    ):
        assert main(["run", "-p", "x", "-m", str(model), *words]) == 2
        assert (asked["use_mmap"], asked["use_mlock"]) == (mapped, locked)


def test_command_line_is_stronger_than_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_ARG_MODEL", "from-environment.gguf")
    assert main(["run", "-p", "x"]) == 2
    assert "from-environment.gguf: no such file" in capsys.readouterr().err
    assert main(["run", "-p", "x", "-hf", "user/nothing", "--offline"]) == 2
    assert "user/nothing was not fetched before" in capsys.readouterr().err
    monkeypatch.setenv("LLAMA_ARG_HF_REPO", "user/environment")
    assert main(["run", "-p", "x", "-m", "mine.gguf"]) == 2
    assert "mine.gguf: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["run", "-p", "x"], ["bench", "-p", "8"]])
def test_quantised_values_want_flash_attention(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "-fa", "off", "-ctv", "q4_0"]) == 2
    *_, error = capsys.readouterr().err.splitlines()
    assert error == "minillama: error: -fa off: -ctv q4_0 requires flash attention; leave -fa out, or use -ctv f16"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "-p", "x", "--top-p", "7"], "top_p is 7.0"),
        (["run", "-p", "x", "-m", "missing.gguf"], "missing.gguf: no such file"),
        (["run", "-p", "x", "-dev", "abacus"], "-dev abacus: use cpu"),
        (["run", "-p", "x", "-t", "many"], "-t many: expected a whole number"),
        (["run", "-p", "x", "-lm", "fast"], "-lm fast: use one of auto, mmap"),
        (["run", "-p", "x", "-m", ""], "-m '': expected a file"),
        (["run", "-p", "x", "-ctk", "q4_k"], "cache_type_k is 'q4_k'; supported: f32, f16, bf16, q8_0"),
        (["run", "--color", "maybe"], "--color maybe: use on, off or auto"),
        (["cli", "--host", "0.0.0.0"], "--host: not an option of minillama cli, but of minillama serve"),
        (["quantize", "--color"], "--color: not an option of minillama quantize, but of minillama run, cli"),
        (["run", "-p", "x", "--samplers", "top_k;top_q"], "top_q"),
        (["run", "-p", "x", "-f", "y"], "given more than once"),
        (["run", "-p", "x", "-m", "a", "-hf", "b/c"], "leave one out"),
        (["tokenize"], "give the text with one of -p, -f and --stdin, not none"),
        (["frobnicate"], "no command frobnicate; the commands are: run, cli"),
        (["--frobnicate"], "invalid argument: --frobnicate"),
    ],
)
def test_wrong_use_is_one_line_and_two(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err
    assert err.startswith("minillama: error: ") and err.count("\n") == 1


def test_help_needs_nothing_heavy() -> None:
    program = """if True:
        import sys
        from minillama.cli import main
        assert main(sys.argv[1:]) == 0
        print([name for name in ("jax", "numpy", "gguf", "tokenizers", "jinja2") if name in sys.modules])
    """
    for words in (["--help"], ["--version"], [], ["run", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout.splitlines()[-1] == "[]"
        assert done.stdout.startswith(("usage: minillama", f"minillama {ml.__version__}"))
        assert done.stderr == ""


def test_simple_is_short_and_greedy(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simple", "-n", "6", *STORY.split()]) == 0
    out, err = capsys.readouterr()
    pieces = [llm.tokenizer.piece(token, special=True).decode() for token in llm.tokenizer.encode(STORY)]
    assert out == "".join(pieces) + llm.generate(STORY, n=6, temp=0.0).text + "\n"
    assert "main: decoded 6 tokens in " in err
    source = Path(ml.__file__).parent / "cli" / "simple.py"
    assert len(source.read_text().splitlines()) <= 60


def test_tokenize(llm: LLM, capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    ids = llm.tokenizer.encode("Hi 你好\n")
    assert main(["tokenize", "-p", r"Hi 你好\n", "--show-count"]) == 0
    *lines, count = capsysbinary.readouterr().out.split(b"\n")[:-1]
    assert count == b"Total number of tokens: %d" % len(ids)
    text = b"\n".join(lines)  # a piece may itself hold a newline
    for token in ids:
        line = b"%6d -> '%s'" % (token, llm.tokenizer.piece(token, special=True))
        assert text.startswith(line)
        text = text.removeprefix(line).removeprefix(b"\n")
    assert text == b""

    file = tmp_path / "text.txt"
    file.write_text("Hi\n")  # the newline of a file counts
    assert main(["tokenize", "-f", str(file), "--ids", "--no-bos"]) == 0
    assert capsysbinary.readouterr().out.decode() == f"{llm.tokenizer.encode('Hi' + chr(10), add_special=False)}\n"
    assert main(["tokenize", "-p", "<|end|>", "--ids", "--no-bos", "--no-parse-special"]) == 0
    plain = llm.tokenizer.encode("<|end|>", add_special=False, parse_special=False)
    assert len(plain) > 1 and capsysbinary.readouterr().out.decode() == f"{plain}\n"


def test_tokenize_gives_llama_cpp_ids(reference: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    vocabulary = reference / "vocab" / "ggml-vocab-qwen2.gguf"
    texts = Path(f"{vocabulary}.inp").read_bytes().split(b"\n__ggml_vocab_test__\n")
    answers = Path(f"{vocabulary}.out").read_text().splitlines()
    file = tmp_path / "text.txt"
    file.write_bytes(texts[5])
    assert main(["tokenize", "-m", str(vocabulary), "-f", str(file), "--ids", "--no-bos", "--no-escape"]) == 0
    assert capsys.readouterr().out == f"[{', '.join(answers[5].split())}]\n"
