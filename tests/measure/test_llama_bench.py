"""llama-bench's tests on the engine, with a log of all calls of the session."""

from dataclasses import replace

import jax
import pytest
from tiny_models import write_tiny

import minillama as ml
from minillama.engine.llm import LLM
from minillama.engine.session import Session
from minillama.errors import OptionError
from minillama.measure.speed.llama_bench import measure_trial
from minillama.measure.trial import Trial


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    return ml.load(write_tiny(tmp_path_factory.mktemp("bench") / "tiny.gguf", "llama"), progress=False)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """Log of the calls of a session, in order."""
    made: list[tuple[str, object]] = []
    read, decode, keep = Session.prefill, Session.decode, Session.truncate

    def logged_read(self: Session, ids: list[int]) -> object:
        made.append(("read", list(ids)))
        return read(self, ids)

    def logged_decode(self: Session, token: int) -> object:
        made.append(("decode", token))
        return decode(self, token)

    def logged_keep(self: Session, count: int) -> None:
        keep(self, count)
        made.append(("keep", list(self.tokens)))

    monkeypatch.setattr(Session, "prefill", logged_read)
    monkeypatch.setattr(Session, "decode", logged_decode)
    monkeypatch.setattr(Session, "truncate", logged_keep)
    return made


def test_a_trial_runs_as_in_llama_bench(llm: LLM, calls: list[tuple[str, object]]) -> None:
    advanced: list[str] = []
    samples, _ = measure_trial(llm, Trial(10, 3, 6), 2, n_batch=4, advance=advanced.append)
    assert len(samples) == 2 and all(sample > 0 for sample in samples)
    assert advanced == ["pp10+tg3 @ d6"] * 3
    prompt = [("read", 4), ("read", 4), ("read", 2)]
    repetition = [("keep", 6), *prompt, *[("decode", 1)] * 3]
    shape = [(name, len(value) if isinstance(value, list) else 1) for name, value in calls]
    assert shape == [("read", 4), ("read", 2), *prompt, ("decode", 1), *repetition, *repetition]

    bos = llm.tokenizer.bos
    assert calls[0][1][0] == bos and calls[2][1][0] == bos  # of the depth and of the prompt after it
    decoded = [value for name, value in calls if name == "decode"]
    assert decoded[0] == decoded[1] == bos and any(token != bos for token in decoded)
    kept = [value for name, value in calls if name == "keep"]
    assert kept[0] == kept[1] == [*calls[0][1], *calls[1][1]]  # the same depth every time


def test_without_warm_up_nothing_runs_before_the_clock(llm: LLM, calls: list[tuple[str, object]]) -> None:
    measure_trial(llm, Trial(0, 2), 1, n_batch=512, warmup=False)
    assert [name for name, _ in calls] == ["keep", "decode", "decode"]


def test_compiling_is_not_in_the_figures(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = Session.decode

    def slow(self: Session, token: int) -> object:
        jax.monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", 1000.0)
        return decode(self, token)

    monkeypatch.setattr(Session, "decode", slow)
    samples, compiling = measure_trial(llm, Trial(0, 2), 1, n_batch=512, warmup=False)
    assert samples == (1,) and compiling >= 2000


def test_reserve_grows_once(llm: LLM) -> None:
    session = replace(llm, ctx_size=2048).session()
    small = session.program(1)
    session.reserve(1500)
    grown = session.program(1)
    assert grown != small
    session.decode(1)
    session.truncate(0)
    assert session.program(1) == grown
    with pytest.raises(OptionError, match="do not fit"):
        session.reserve(4000)
