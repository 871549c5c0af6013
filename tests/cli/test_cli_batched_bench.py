"""`minillama batched-bench` on a tiny model."""

import json
from pathlib import Path

import pytest
from tiny_models import write_tiny

import minillama as ml
from minillama.cli import main
from minillama.errors import OptionError
from minillama.measure.host import other_load
from minillama.measure.serving import batched_bench
from minillama.measure.serving.batched_bench import BatchedBench, BatchedTrial, batched_columns
from minillama.measure.tables import md_table


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(other_load, "load_warning", lambda share, when: None)


class FakeExecutor:
    """Notes its calls."""

    def __init__(self, *arguments: object) -> None:
        self.capacity, self.calls = arguments[2], []

    def prefill(self, slot: int, start: int, ids: list[int]) -> str:
        self.calls.append(("prefill", slot, start, len(ids)))
        return "chunk"

    def copy(self, source: int, target: int, count: int) -> None:
        self.calls.append(("copy", source, target, count))

    def join(self, slot: int, *_: object) -> None:
        self.calls.append(("join", slot))

    def step(self, slots: list[int], positions: list[int]) -> str:
        self.calls.append(("step", tuple(slots), tuple(positions)))
        return f"step {len(self.calls)}"

    def read(self, draw: str) -> None:
        self.calls.append(("read", draw.split()[0]))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchedBench:
    monkeypatch.setattr(batched_bench, "SlotExecutor", FakeExecutor)
    llm = ml.load(write_tiny(tmp_path / "tiny.gguf", "llama"), ctx_size=64, progress=False)
    return BatchedBench(llm, [BatchedTrial(6, 3, 2), BatchedTrial(5, 1, 1)])


def calls_of(bench: BatchedBench, trial: BatchedTrial) -> list[tuple[object, ...]]:
    bench._executor.calls.clear()
    bench._run(trial)
    return bench._executor.calls


def test_all_texts_step_together_and_the_next_step_comes_before_the_read(bench: BatchedBench) -> None:
    assert calls_of(bench, BatchedTrial(6, 3, 2)) == [
        ("prefill", 0, 0, 5), ("join", 0), ("prefill", 1, 0, 5), ("join", 1),
        ("step", (0, 1), (5, 5)), ("read", "step"),
        ("step", (0, 1), (6, 6)), ("step", (0, 1), (7, 7)), ("read", "step"), ("step", (0, 1), (8, 8)),
        ("read", "step"), ("read", "step"),
    ]  # fmt: skip


def test_a_shared_prompt_is_copied_and_separate_texts_step_alone(bench: BatchedBench) -> None:
    assert calls_of(bench, BatchedTrial(6, 1, 2, shared=True, separate=True)) == [
        ("prefill", 0, 0, 5), ("join", 0), ("copy", 0, 1, 5), ("join", 1), ("step", (0, 1), (5, 5)), ("read", "step"),
        ("step", (0,), (6,)), ("read", "step"), ("step", (1,), (6,)), ("read", "step"),
    ]  # fmt: skip


def test_speeds_and_the_table(bench: BatchedBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_run", lambda trial: (0.5, 2.0))
    record = bench.measure(BatchedTrial(6, 3, 2))
    assert (record.n_kv, record.speed_pp, record.speed_tg, record.speed) == (18, 24.0, 3.0, 18 / 2.5)
    assert (
        bench.measure(BatchedTrial(6, 3, 2, shared=True)).speed_pp == 12.0
        and record.n_kv_max == 2 * bench._executor.capacity
    )
    head, _, row = md_table(batched_columns(), [record]).splitlines()
    assert [cell.strip() for cell in head.split("|")[1:5]] == ["PP", "TG", "B", "N_KV"]
    assert row.split()[1::2] == ["6", "3", "2", "18", "0.500", "24.00", "2.000", "3.00", "2.500", "7.20"]


@pytest.mark.parametrize(
    ("trial", "message"),
    [(BatchedTrial(6000, 5, 1), "6005 tokens does not fit in a context of"), (BatchedTrial(0, 5, 1), "1 or more")],
)
def test_trials_that_do_not_fit(bench: BatchedBench, trial: BatchedTrial, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        BatchedBench(bench._llm, [trial])


@pytest.mark.slow
def test_table_and_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_tiny(tmp_path / "tiny.gguf", "llama")
    words = ["batched-bench", "-m", str(model), "-npp", "6", "-ntg", "3", "-ub", "16", "-c", "64"]
    assert main([*words, "-npl", "1,2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["PP", "TG", "B", "N_KV", "T_PP s", "S_PP t/s", "T_TG s", "S_TG t/s", "T s", "S t/s"]
    assert [row[:4] for row in cells[2:]] == [["6", "3", "1", "9"], ["6", "3", "2", "18"]]
    assert main([*words, "-npl", "2", "-pps", "-tgs", "--output-format", "jsonl"]) == 0
    (record,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (record["pp"], record["tg"], record["pl"], record["is_pp_shared"]) == (6, 3, 2, 1)
    assert record["speed_pp"] == pytest.approx(6 / record["t_pp"])
    assert record["speed_tg"] == pytest.approx(6 / record["t_tg"])
    assert record["speed"] == pytest.approx(12 / record["t"])
    assert main([*words[:3], "-c", "64", "-npp", "900"]) == 2
    assert "tokens does not fit in a context of" in capsys.readouterr().err
