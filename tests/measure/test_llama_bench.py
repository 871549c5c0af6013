"""What is measured, by what formula, and how it is shown: twins and counts by hand."""

import argparse
import json
import statistics
import sys
from dataclasses import replace
from itertools import count, takewhile
from pathlib import Path

import jax
import numpy as np
import pytest
from bench_example import RECORD
from gguf import GGMLQuantizationType as Type
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import VARIANTS, VOCAB, D, F, H, K, N, write_tiny

import minillama as ml
from minillama.cli import build_parser
from minillama.cli.bench import _plan
from minillama.engine.llm import LLM
from minillama.engine.session import Session
from minillama.errors import OptionError, ResourceError
from minillama.gguf import open_gguf
from minillama.gguf.kv_cache_types import read_cache_types
from minillama.measure.host import child_process
from minillama.measure.host.child_process import Life, json_objects, whole_process
from minillama.measure.limits import bandwidth
from minillama.measure.limits.work_per_token import cache_bytes_read, prompt_weights, weight_bytes
from minillama.measure.speed.bench_plan import Plan, Setup, Trial, Workload, numbers
from minillama.measure.speed.bench_record import deviation, from_json, mean
from minillama.measure.speed.bench_tables import (
    columns,
    comparison_columns,
    md_head,
    md_row,
    start_columns,
)
from minillama.measure.speed.llama_bench import measure_trial
from minillama.measure.speed.side_by_side import Round, Start, compare, find_completion, find_program
from minillama.model import Config, read_config

# Lists and ranges


@st.composite
def parts(draw: st.DrawFn) -> tuple[str, list[int]]:
    """A part of a list, and what it means, said with Python's own ranges."""
    first, length = draw(st.integers(0, 50)), draw(st.integers(0, 200))
    step, factor = draw(st.integers(1, 9)), draw(st.integers(2, 5))
    last = first + length
    kinds = [(f"{first}", [first]), (f"{first}-{last}", list(range(first, last + 1))),
             (f"{first}-{last}+{step}", list(range(first, last + 1, step)))]  # fmt: skip
    if first:
        kinds.append((f"{first}-{last}*{factor}", list(takewhile(last.__ge__, (first * factor**i for i in count())))))
    return draw(st.sampled_from(kinds))


@given(st.lists(parts(), min_size=1, max_size=4))
def test_lists_of_numbers(listed: list[tuple[str, list[int]]]) -> None:
    assert numbers(",".join(text for text, _ in listed)) == tuple(n for _, values in listed for n in values)


@pytest.mark.parametrize(
    "text", ["", "x", "1,", "1-", "5-3", "0-8*2", "1-8*1", "1-8+0", "1-99999", "-1", "1e3", "1--2"]
)
def test_lists_that_are_none(text: str) -> None:
    with pytest.raises(ValueError) as problem:
        numbers(text)
    assert "\n" not in str(problem.value)


def test_negative_numbers_where_they_mean_something() -> None:
    assert numbers("-1,0,16", least=-1) == (-1, 0, 16)
    with pytest.raises(ValueError, match="'0' should be at least 1"):
        numbers("0", least=1)


# Combinations


def test_tests_in_the_order_of_llama_bench() -> None:
    workload = Workload((512, 0, 16), (128,), ((8, 2), (0, 0)), (0, 4096))
    assert [trial.name for trial in workload.trials()] == [
        "pp512", "pp16", "tg128", "pp8+tg2",
        "pp512 @ d4096", "pp16 @ d4096", "tg128 @ d4096", "pp8+tg2 @ d4096",
    ]  # fmt: skip
    assert Trial(8, 2, 100).positions == 110


def test_model_is_the_outer_and_threads_the_inner_loop() -> None:
    plan = Plan((Path("a"), Path("b")), (1, 2), n_ubatch=(64, 128), type_k=("f16", "f32"))
    found = [(s.model.name, s.n_ubatch, s.type_k, s.n_threads) for s in plan.setups()]
    assert found == [(m, u, k, t) for m in "ab" for u in (64, 128) for k in ("f16", "f32") for t in (1, 2)]


def test_flags_say_the_same(builtin_model: Path) -> None:
    """What a child process is started with means the setup and the workload that it came from."""
    setup = Setup(builtin_model, 3, 7, 1024, 64, "f32", "q8_0", "mlock")
    workload = Workload((16, 32), (), ((8, 2), (4, 1)), (0, 100))
    args = build_parser().parse_args(["bench", *setup.flags(), *workload.flags()])
    plan = _plan(args)
    assert [*plan.setups()] == [setup]
    assert plan.workload.trials() == workload.trials()
    assert "-ngl" not in Setup(builtin_model, 1).flags()  # a llama-bench without a GPU warns about it


# Statistics and records


@given(st.lists(st.floats(0.001, 1e6), min_size=2, max_size=20))
def test_mean_and_sample_deviation(values: list[float]) -> None:
    assert mean(values) == pytest.approx(statistics.mean(values))
    assert deviation(values) == pytest.approx(statistics.stdev(values), rel=1e-6, abs=1e-6 * mean(values))


def test_deviation_of_one_value_is_zero() -> None:
    assert deviation([3.0]) == 0.0


def test_record_survives_json() -> None:
    values = json.loads(json.dumps(RECORD.as_dict()))
    assert from_json(values) == RECORD
    del values["avg_ts"]
    with pytest.raises(ValueError, match="no avg_ts"):
        from_json(values)


# Formulas


def config_of(path: Path) -> Config:
    file = open_gguf(path)
    return read_config(file.metadata, vocab_size=file.tensors["token_embd.weight"].shape[0])


ATTENTION = N * H * D + 2 * K * H * D + D * N * H  # weights of q, k, v and output in a tiny layer


@pytest.mark.parametrize(
    ("name", "matrices", "vectors"),
    [
        ("llama", ATTENTION + 3 * D * F, 2 * D),
        ("qwen2", ATTENTION + 3 * D * F, 2 * D + (N + 2 * K) * H),
        ("phi3", ATTENTION + 3 * D * F, 2 * D),
        ("glm4", ATTENTION + 3 * D * F, 4 * D),
        ("mixtral", ATTENTION + 4 * D + 2 * 3 * D * F, 2 * D),  # two of four experts, and their router
        ("qwen2moe", ATTENTION + 4 * D + 2 * 3 * D * F + 3 * D * F, 3 * D + (N + 2 * K) * H),
    ],
)
def test_bytes_of_a_decode_step_by_hand(name: str, matrices: int, vectors: int, tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", name)
    config = config_of(path)
    layers, tied = VARIANTS[name].layers, VARIANTS[name].tied
    head = VOCAB * D + (0 if tied else D)  # an embedding that is not the head gives one row
    assert weight_bytes(open_gguf(path), config) == 4 * (layers * (matrices + vectors) + D + head)
    assert prompt_weights(open_gguf(path), config) == layers * matrices


def test_bytes_of_quantised_weights(tmp_path: Path) -> None:
    """Q8_0 takes 34 bytes for 32 weights; with quantised matrices tiny layers are 256 wide."""
    path = write_tiny(tmp_path / "tiny.gguf", "llama", Type.Q8_0)
    matrices = 2 * ((N * H + 2 * K * H) * 256 + 256 * N * H + 3 * 256 * 256) + VOCAB * 256 + 256
    vectors = 5 * 256  # two norms in each of two layers, and the last
    assert weight_bytes(open_gguf(path), config_of(path)) == matrices * 34 // 32 + 4 * vectors


def test_bytes_of_the_cache(tmp_path: Path) -> None:
    config = config_of(write_tiny(tmp_path / "tiny.gguf", "llama"))
    per_position = 2 * K * 2 * H  # layers x heads x (key and value)
    assert cache_bytes_read(config, read_cache_types("f16", "f16"), [1]) == 2 * per_position
    assert cache_bytes_read(config, read_cache_types("f32", "f16"), [10, 20]) == 15 * 3 * per_position
    # Six of seven layers look no further back than five positions.
    local = config_of(write_tiny(tmp_path / "local.gguf", "gemma3"))
    assert cache_bytes_read(local, read_cache_types("f16", "f16"), [100]) == 2 * K * 2 * H * (100 + 6 * 5)
    blocks = config_of(write_tiny(tmp_path / "blocks.gguf", "qwen3"))  # heads of 32
    assert cache_bytes_read(blocks, read_cache_types("q8_0", "q8_0"), [3]) == 3 * 2 * K * 2 * 34


def test_bandwidth_is_that_of_the_best_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 2.0, 10.0, 10.5, 20.0, 21.0])
    monkeypatch.setattr(bandwidth.time, "perf_counter", lambda: next(ticks))
    assert bandwidth.read_bandwidth(3, size=1 << 16, passes=3) == (1 << 16) / 0.5


# Measuring


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    return ml.load(write_tiny(tmp_path_factory.mktemp("bench") / "tiny.gguf", "llama"), progress=False)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """What is asked of a session, in order."""
    made: list[tuple[str, object]] = []
    read, decode, keep = Session.read, Session.decode, Session.keep

    def logged_read(self: Session, ids: list[int]) -> object:
        made.append(("read", list(ids)))
        return read(self, ids)

    def logged_decode(self: Session, token: int) -> object:
        made.append(("decode", token))
        return decode(self, token)

    def logged_keep(self: Session, count: int) -> None:
        keep(self, count)
        made.append(("keep", list(self.tokens)))

    monkeypatch.setattr(Session, "read", logged_read)
    monkeypatch.setattr(Session, "decode", logged_decode)
    monkeypatch.setattr(Session, "keep", logged_keep)
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
    assert calls[0][1][0] == bos and calls[2][1][0] == bos  # of the depth and of the prompt behind it
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
    session.keep(0)
    assert session.program(1) == grown
    with pytest.raises(ValueError, match="do not fit"):
        session.reserve(4000)


# Tables


def test_table_is_that_of_llama_bench() -> None:
    """What llama-bench printed on a tiny model, and the same numbers through our table."""
    expected = """\
| model                          |       size |     params | backend    | threads | type_k |            test |                  t/s |
| ------------------------------ | ---------: | ---------: | ---------- | ------: | -----: | --------------: | -------------------: |
| llama ?B all F32               |   5.50 MiB |     1.44 M | CPU        |       1 |   q8_0 |             pp8 |   14111.19 ± 5336.93 |
| llama ?B all F32               |   5.50 MiB |     1.44 M | CPU        |       1 |   q8_0 |       tg2 @ d16 |     6941.78 ± 638.33 |
| llama ?B all F32               |   5.50 MiB |     1.44 M | CPU        |       1 |   q8_0 |         pp8+tg2 |      14355.38 ± 0.00 |
"""  # noqa: E501
    table = columns(Plan((Path("m"),), (1,), type_k=("q8_0",)), "CPU")
    rows = [
        replace(RECORD, type_k="q8_0"),
        replace(RECORD, type_k="q8_0", n_prompt=0, n_gen=2, n_depth=16, avg_ts=6941.78, stddev_ts=638.33),
        replace(RECORD, type_k="q8_0", n_gen=2, avg_ts=14355.38, stddev_ts=0.0),
    ]
    assert md_head(table) + "".join(md_row(table, row) for row in rows) == expected


def test_columns_appear_with_what_varies() -> None:
    def headings(plan: Plan, backend: str) -> list[str]:
        return [column.heading for column in columns(plan, backend)][4:-2]

    one = (Path("m"),)
    assert headings(Plan(one, (2,)), "JAX CPU") == ["threads"]
    assert headings(Plan(one, (2,)), "JAX GPU") == ["ngl"]
    assert headings(Plan(one, (1, 2)), "JAX GPU") == ["ngl", "threads"]
    everything = Plan(one, (1,), (-1,), (64,), (512, 64), ("f32",), ("f16", "f32"), ("none", "mmap"))
    assert headings(everything, "JAX CPU") == ["threads", "n_batch", "n_ubatch", "type_k", "type_v", "lm"]
    assert [column.heading for column in columns(everything, "JAX CPU", bandwidth=True)][-1] == "of bandwidth"
    roofs = ["MB/token", "MFLOP/token", "of bandwidth", "of FLOP/s"]
    assert [column.heading for column in columns(everything, "JAX CPU", roofline=True)][-4:] == roofs


# Side by side


def comparison_of(ours: list[float], theirs: list[float]) -> tuple[Round, ...]:
    trial = Trial(0, 64)
    record = replace(RECORD, n_prompt=0, n_gen=64, bytes_per_token=1e9)
    return tuple(
        Round({trial: replace(record, avg_ts=a)}, {trial: b}, "abc (1)") for a, b in zip(ours, theirs, strict=True)
    )


def test_comparison_takes_the_median_of_the_pairs_ratios() -> None:
    setup, workload = Setup(Path("m"), 1), Workload((), (64,))
    # The machine slows down by half on the way: every pair still says 1.2, 1.0 or 0.9.
    (found,) = compare(setup, workload, comparison_of([12.0, 10.0, 4.5], [10.0, 10.0, 5.0]), 20e9)
    assert found.ratio == 1.0 and found.spread == (0.9, 1.2)
    values = json.loads(json.dumps(found.as_dict()))
    assert values["ours"] == {
        "build": "minillama", "samples_ts": [12.0, 10.0, 4.5], "median_ts": 10.0, "bandwidth_share": 0.5,
    }  # fmt: skip
    assert values["theirs"]["build"] == "abc (1)" and values["ratios"] == [1.2, 1.0, 0.9]
    table = comparison_columns(Plan((Path("m"),), (1,)), "JAX CPU")
    cells = [cell.strip() for cell in md_row(table, found).split("|")[6:-1]]
    assert cells == ["tg64", "10.00", "10.00", "1.00", "0.90 - 1.20", "50 %", "50 %"]
    assert compare(setup, workload, (), 20e9) == ()


def test_a_prompt_has_no_share_of_the_bandwidth() -> None:
    trial = Trial(8, 0)
    (found,) = compare(Setup(Path("m"), 1), Workload((8,), ()), (Round({trial: RECORD}, {trial: 1.0}, ""),), 20e9)
    assert found.share(100.0) is None


def test_start_table(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(bytes(1 << 20))
    mib = 1 << 20
    start = Start(Setup(path, 2), (Life(1.0, 2.0, mib), Life(3.0, 4.0, 3 * mib)), (Life(2.0, 2.5, mib),) * 2)
    cells = [cell.strip() for cell in md_row(start_columns(), start).split("|")[1:-1]]
    assert cells == ["m.gguf", "1.00 MiB", "2", "2.00 s", "2.00 s", "1.00", "2.00 MiB", "1.00 MiB"]
    assert json.loads(json.dumps(start.as_dict()))["ours"]["peak_bytes"] == [mib, 3 * mib]


def test_programs_that_are_not_there(tmp_path: Path) -> None:
    program = tmp_path / "llama-bench"
    with pytest.raises(OptionError, match="no such program"):
        find_program(str(program))
    with pytest.raises(OptionError, match="a folder"):
        find_program(str(tmp_path))
    program.touch()
    with pytest.raises(OptionError, match="cannot be executed"):
        find_program(str(program))
    program.chmod(0o755)
    assert find_program(str(program)) == program
    assert find_completion(program) is None
    (tmp_path / "llama-completion").touch(0o755)
    assert find_completion(program) == tmp_path / "llama-completion"


# Other processes


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; sys.exit('first\\nno such model\\n')", "failed with status 1: no such model"),
        ("print('| model |')", "printed no JSON"),
        ("print('{}')", "no list of results"),
        ("print('[1]')", "no list of results"),
    ],
)
def test_programs_that_fail_are_one_line(program: str, message: str) -> None:
    with pytest.raises(ResourceError, match=message) as problem:
        json_objects([sys.executable, "-c", program])
    assert "\n" not in str(problem.value)


def test_a_program_that_cannot_start(tmp_path: Path) -> None:
    (tmp_path / "odd").write_text("not a program")
    (tmp_path / "odd").chmod(0o755)
    with pytest.raises(ResourceError, match="cannot start"):
        json_objects([str(tmp_path / "odd")])


@pytest.mark.skipif(sys.platform == "win32", reason="no wait4")
def test_a_whole_process_is_weighed_alone() -> None:
    """Its peak is its own, not that of the process that starts it."""
    here = np.ones(300 << 20, np.uint8)
    small = whole_process([sys.executable, "-S", "-c", "print('x')"])
    large = whole_process([sys.executable, "-S", "-c", "print('x', flush=True); b = b'1' * (200 << 20)"])
    assert small.peak < here.nbytes // 2
    assert 200 << 20 < large.peak < 300 << 20
    assert 0 < large.first_text < large.seconds
    silent = whole_process([sys.executable, "-S", "-c", "print()"])
    assert silent.first_text == silent.seconds
    with pytest.raises(ResourceError, match="status 3: gone"):
        whole_process([sys.executable, "-c", "import sys; print('gone', file=sys.stderr); sys.exit(3)"])


def test_own_process_gives_plain_values_back() -> None:
    assert child_process.in_own_process(numbers, "1-3") == [1, 2, 3]
    with pytest.raises(ResourceError, match="numbers failed: ValueError: 'x' should be"):
        child_process.in_own_process(numbers, "x")


def test_nothing_to_measure_is_said(builtin_model: Path) -> None:
    args = build_parser().parse_args(["bench", "-p", "0", "-n", "0"])
    assert isinstance(args, argparse.Namespace)
    with pytest.raises(OptionError, match="nothing to measure"):
        _plan(args)
