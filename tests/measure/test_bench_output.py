"""llama-bench's output formats: fields, order and types, then minillama's fields."""

import csv
import io
import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from bench_example import RECORD

from minillama.measure.speed.bench_output import FORMATS, Output
from minillama.measure.speed.bench_plan import Plan
from minillama.measure.speed.bench_record import LLAMA_BENCH_FIELDS, MINILLAMA_FIELDS, NAMES, Record, from_json

PLAN = Plan((Path("m"),), (1,))

# What llama-bench (commit 0c1e570) printed with -o sql.
THEIR_COLUMNS = """\
build_commit TEXT, build_number INTEGER, cpu_info TEXT, gpu_info TEXT, backends TEXT, model_filename TEXT, model_type
TEXT, model_size INTEGER, model_n_params INTEGER, n_batch INTEGER, n_ubatch INTEGER, n_threads INTEGER, cpu_mask TEXT,
cpu_strict INTEGER, poll INTEGER, type_k TEXT, type_v TEXT, n_gpu_layers INTEGER, n_cpu_moe INTEGER, split_mode TEXT,
main_gpu INTEGER, no_kv_offload INTEGER, flash_attn INTEGER, devices TEXT, tensor_split TEXT, tensor_buft_overrides
TEXT, load_mode TEXT, lazy_mode TEXT, embeddings INTEGER, no_op_offload INTEGER, no_host INTEGER, repack INTEGER,
fit_target INTEGER, fit_min_ctx INTEGER, n_prompt INTEGER, n_gen INTEGER, n_depth INTEGER, test_time TEXT, avg_ns
INTEGER, stddev_ns INTEGER, avg_ts REAL, stddev_ts REAL"""
THEIR_VALUES = """\
'0c1e570', '1', 'AMD EPYC', '', 'CPU', 'storyteller-q8_0.gguf', 'llama ?B Q8_0', '2444288', '2295552', '2048', '512',
'1', '0x0', '0', '50', 'f16', 'f16', '-1', '0', 'layer', '0', '0', '-1', 'auto', '0.00', 'none', 'auto', 'auto', '0',
'0', '0', '1', '0', '0', '16', '0', '0', '2026-11-24T12:54:52Z', '985008', '32145', '16252.152543', '529.876132'"""
THEIR_NAMES = [column.split()[0] for column in THEIR_COLUMNS.split(",")]
THEIR_SQL = (
    f"CREATE TABLE IF NOT EXISTS llama_bench (\n{THEIR_COLUMNS}\n);\n\n"
    f"INSERT INTO llama_bench ({', '.join(THEIR_NAMES)}) VALUES ({THEIR_VALUES});\n"
)

SECOND = replace(RECORD, n_prompt=0, n_gen=4, avg_ts=77.5, other_load=0.25, model_filename="it's.gguf")


def printed(name: str, *records: Record) -> str:
    output: Output = FORMATS[name](PLAN, False, False)
    return "".join([*map(output.show, records), output.end()])


def test_the_fields_are_those_of_llama_bench() -> None:
    assert list(LLAMA_BENCH_FIELDS) == THEIR_NAMES
    assert (*LLAMA_BENCH_FIELDS, "samples_ns", "samples_ts", *MINILLAMA_FIELDS) == NAMES
    assert list(RECORD.as_dict()) == list(NAMES)


@pytest.mark.parametrize("ours_first", [True, False])
def test_sql_of_both_loads_into_one_database(ours_first: bool) -> None:
    ours = printed("sql", RECORD, SECOND)
    scripts = [ours, THEIR_SQL] if ours_first else [THEIR_SQL, ours]
    with sqlite3.connect(":memory:") as database:
        for script in scripts:
            database.executescript(script)
        columns = [f"{row[1]} {row[2]}" for row in database.execute("PRAGMA table_info(llama_bench)")]
        assert columns == [column.strip() for column in THEIR_COLUMNS.replace("\n", " ").split(",")]
        rows = database.execute("SELECT typeof(n_prompt), typeof(avg_ts), n_prompt FROM llama_bench").fetchall()
        assert sorted(rows) == [("integer", "real", 0), ("integer", "real", 8), ("integer", "real", 16)]
        joined = database.execute(
            "SELECT model_filename, n_gen, avg_ts, poll, typeof(other_load), other_load, cpu_strict FROM llama_bench "
            "JOIN minillama_bench ON llama_bench.rowid = minillama_bench.llama_bench_rowid ORDER BY n_gen"
        ).fetchall()
    database.close()
    assert joined == [("tiny.gguf", 0, 14111.19, None, "null", None, 0), ("it's.gguf", 4, 77.5, None, "real", 0.25, 0)]


def test_csv_holds_everything_but_the_samples() -> None:
    text = printed("csv", RECORD, SECOND)
    head, row, second = csv.reader(io.StringIO(text))
    assert head == [*LLAMA_BENCH_FIELDS, *MINILLAMA_FIELDS]
    values = dict(zip(head, row, strict=True))
    assert (values["avg_ts"], values["poll"], values["embeddings"], values["flash_attn"]) == ("14111.19", "", "0", "-1")
    assert dict(zip(head, second, strict=True))["other_load"] == "0.25"
    first = text.splitlines()[1]
    assert first.startswith('"minillama","","AMD EPYC","","CPU",') and first.count('"') == 2 * len(head)


@pytest.mark.parametrize("records", [(), (RECORD,), (RECORD, SECOND)])
def test_json_and_lines_of_json(records: tuple[Record, ...]) -> None:
    array = json.loads(printed("json", *records))
    assert [from_json(values) for values in array] == list(records)
    assert [json.loads(line) for line in printed("jsonl", *records).splitlines()] == array
    for values in array:
        assert list(values) == list(NAMES) and values["poll"] is None and values["no_kv_offload"] is False


def test_nothing_is_nothing() -> None:
    assert printed("md") == printed("csv") == printed("sql") == ""


def test_the_foot_says_what_the_machine_gives() -> None:
    lines = printed("md", replace(RECORD, memory_bandwidth=20e9, peak_flops=100e9)).splitlines()
    assert lines[-1] == "memory: 20.0 GB/s read; products: 100 GFLOP/s; they meet at 5.0 FLOP per byte"
