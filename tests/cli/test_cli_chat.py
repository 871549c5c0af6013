"""`minillama cli`: the rules of a conversation with a fake model, and one real chat."""

import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

import minillama as ml
from minillama.cli import chat, main
from minillama.engine.result import Completion, Piece, Reason, Timings

TIMINGS = Timings(0.1, 0.2, 0.5, 0.6, 1.0, 10, 3, (0.1, 0.1))


class FakeStream:
    """A stream of given words."""

    reasoning_content = ""

    def __init__(self, words: Sequence[str], reason: Reason) -> None:
        self._words, self._reason = words, reason

    def __iter__(self) -> Iterator[Piece]:
        return iter([Piece(word, 0, -1.0, 0.1) for word in self._words])

    def close(self) -> None:
        pass

    @property
    def text(self) -> str:
        return "".join(self._words)

    @property
    def completion(self) -> Completion:
        return Completion(self.text, (), (), self._reason, 10, 1, TIMINGS)


class FakeLLM:
    """Answers `a1`, `a2`, ... and remembers what it was asked."""

    def __init__(self, *, template: bool = True, reason: Reason = Reason.STOP) -> None:
        self.template = object() if template else None
        self.path, self.ctx_size = Path("fake.gguf"), 256
        self.asked: list[object] = []
        self.options: list[Mapping[str, object]] = []
        self.tokenizer = SimpleNamespace(encode=lambda text: [1, 2], piece=lambda token, special=False: b"t")
        self._reason = reason

    def session(self) -> str:
        return "the session"

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        return "|".join(message["content"] for message in messages)

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        return self.tokenizer.encode(self.render(messages))

    def chat_stream(self, messages: Sequence[Mapping[str, str]], **options: object) -> FakeStream:
        contents = [message["content"] for message in messages]
        if contents[-1] == "too long":
            raise ml.OptionError("the prompt has 999 tokens")
        self.asked.append(contents)
        self.options.append(options)
        return FakeStream([f"a{len(self.asked)}"], self._reason)

    def stream(self, prompt: str, **options: object) -> FakeStream:
        self.asked.append(prompt)
        return FakeStream([" and", " on"], self._reason)


Talk = Callable[..., tuple[FakeLLM, str, str]]


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Talk:
    """Type lines into `minillama cli` with a fake model; gives the model, stdout and stderr."""

    def run(typed: str, *words: str, llm: FakeLLM | None = None) -> tuple[FakeLLM, str, str]:
        llm = llm or FakeLLM()
        monkeypatch.setattr(chat, "load_model", lambda args: llm)
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        assert main(["cli", *words]) == 0
        return llm, *capsys.readouterr()

    return run


def test_conversation_grows(talk: Talk) -> None:
    llm, out, err = talk("hello\nand then?\n", "-sys", "be kind", "-n", "9", "--temp", "0")
    assert llm.asked == [["be kind", "hello"], ["be kind", "hello", "a1", "and then?"]]
    assert out == "a1\na2\n"
    assert err.count("[ Prompt: 20.0 t/s | Generation: 10.0 t/s ]") == 2
    assert llm.options[0]["session"] == "the session"
    assert (llm.options[0]["n"], llm.options[0]["temp"]) == (9, 0.0)


def test_thoughts_are_apart_and_go_back_to_the_template(talk: Talk) -> None:
    llm, seen = FakeLLM(), []

    class Thinking(FakeStream):
        reasoning_content = "They greet."

        def __iter__(self) -> Iterator[Piece]:
            return iter([Piece("", 0, -1.0, 0.1, "They "), Piece("Hi", 0, -1.0, 0.1, "greet.")])

        @property
        def completion(self) -> Completion:
            return Completion("Hi", (), (), Reason.STOP, 10, 1, TIMINGS, self.reasoning_content)

    def answer(messages: Sequence[Mapping[str, str]], **options: object) -> FakeStream:
        seen.append([*messages])
        return Thinking(["Hi"], Reason.STOP)

    llm.chat_stream = answer  # type: ignore[method-assign]
    _, out, _ = talk("hello\nagain\n", llm=llm)
    assert out == "[Start thinking]\n\nThey greet.\n[End thinking]\n\nHi\n" * 2
    assert seen[1][1] == {"role": "assistant", "content": "Hi"} | dict.fromkeys(
        ("reasoning_content", "thinking"), "They greet."
    )


def test_first_message_and_single_turn(talk: Talk) -> None:
    assert talk("second\n", "-p", r"first\nline")[0].asked == [["first\nline"], ["first\nline", "a1", "second"]]
    assert talk("second\n", "-p", "first", "-st")[0].asked == [["first"]]
    assert talk("only\nnot this\n", "-st")[0].asked == [["only"]]


def test_commands(talk: Talk, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("from a file\n")
    assert talk("/regen\nx\n/regen\n")[0].asked == [["x"], ["x"]]
    assert talk("x\n/clear\ny\n", "-sys", "s")[0].asked == [["s", "x"], ["s", "y"]]
    assert talk("x\n/exit\ny\n")[0].asked == [["x"]]
    assert talk(f"/read {file}\nsum it up\nmore\n")[0].asked[0] == ["from a file\nsum it up"]
    llm, _, err = talk("/read nothing.txt\n\n/help\nx\n")
    assert llm.asked == [["x"]]
    assert "minillama: error: nothing.txt: No such file" in err
    assert "there is no answer yet" in talk("/regen\n")[2]
    assert talk("/etc/hosts is a file\n")[0].asked == [["/etc/hosts is a file"]]


def test_lines(talk: Talk) -> None:
    assert talk("one \\\ntwo\nthree\n")[0].asked[0] == ["one \ntwo"]
    assert talk("one\ntwo\\\nthree", "-mli")[0].asked == [["one\ntwo"], ["one\ntwo", "a1", "three"]]
    assert talk("one \\\n")[0].asked == [["one "]]  # the end of input ends a message too


def test_an_error_ends_the_turn_not_the_talk(talk: Talk) -> None:
    llm, out, err = talk("x\ntoo long\ny\n")
    assert llm.asked == [["x"], ["x", "a1", "y"]]
    assert "minillama: error: the prompt has 999 tokens" in err
    assert out == "a1\na2\n"


def test_full_context_says_what_to_do(talk: Talk) -> None:
    assert "use /clear, enlarge it with -c N" in talk("x\n", llm=FakeLLM(reason=Reason.LENGTH))[2]


def test_without_template_the_text_goes_on(talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    llm, out, err = talk("Once\n then\n", llm=FakeLLM(template=False))
    assert llm.asked == ["Once", "Once and on then"]
    assert out == " and on\n and on\n"
    assert "no chat template: the model continues your text" in err
    assert talk("Once\n", "-no-cnv")[0].asked == ["Once"]
    assert main(["cli", "-no-cnv", "-sys", "be kind"]) == 2
    assert "-sys needs a chat template" in capsys.readouterr().err


def test_quiet_and_verbose(talk: Talk) -> None:
    assert talk("x\n", "--log-disable")[2] == ""
    assert "t/s" not in talk("x\n", "--no-show-timings")[2]
    assert "prompt: 's|x'" in talk("x\n", "--verbose-prompt", "-sys", "s")[2]


def test_real_talk(builtin_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Tell me a story.\nThank you!\n"))
    assert main(["cli", "-n", "6", "--temp", "0"]) == 0
    llm = ml.load(builtin_model, progress=False)
    messages = [{"role": "user", "content": "Tell me a story."}]
    first = llm.chat(messages, n=6, temp=0.0).text
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "Thank you!"}]
    assert capsys.readouterr().out == f"{first}\n{llm.chat(messages, n=6, temp=0.0).text}\n"
