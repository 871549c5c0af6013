"""Benchmark results in llama-bench's formats: md, csv, json, jsonl and sql."""

import csv
import io
import json
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import fields
from types import NoneType
from typing import get_args

from minillama.measure.speed import bench_tables
from minillama.measure.speed.bench_plan import Plan
from minillama.measure.speed.bench_record import LLAMA_BENCH_FIELDS, MINILLAMA_FIELDS, Record
from minillama.measure.tables import Column, md_head, md_row

_SQL_TYPES = {str: "TEXT", int: "INTEGER", bool: "INTEGER", float: "REAL"}
_OUR_TABLE = "minillama_bench"


class Output(ABC):
    """Formats results one by one: a head before the first, an end after the last."""

    def __init__(self) -> None:
        self.last: Record | None = None

    def show(self, record: Record) -> str:
        """Text of the next result, with the head before the first one."""
        first, self.last = self.last is None, record
        return (self.head(record) if first else "") + self.row(record, first)

    def head(self, record: Record) -> str:
        """Text before the first result."""
        return ""

    @abstractmethod
    def row(self, record: Record, first: bool) -> str:
        """Text of one result."""

    def end(self) -> str:
        """Text after the last result."""
        return ""


class Markdown(Output):
    """llama-bench's table, with more columns if the limits of the machine were measured."""

    def __init__(self, plan: Plan, *, bandwidth: bool = False, roofline: bool = False) -> None:
        super().__init__()
        self._plan, self._bandwidth, self._roofline = plan, bandwidth, roofline
        self._table: Sequence[Column[Record]] = ()

    def head(self, record: Record) -> str:
        self._table = bench_tables.columns(
            self._plan, record.backends, bandwidth=self._bandwidth, roofline=self._roofline
        )
        return md_head(self._table)

    def row(self, record: Record, first: bool) -> str:
        return md_row(self._table, record)

    def end(self) -> str:
        return "" if self.last is None else bench_tables.md_foot(self.last)


class Csv(Output):
    """A line of names, then every value in quotes; missing values are empty."""

    def head(self, record: Record) -> str:
        return ",".join((*LLAMA_BENCH_FIELDS, *MINILLAMA_FIELDS)) + "\n"

    def row(self, record: Record, first: bool) -> str:
        text = io.StringIO()
        values = record.as_dict()
        plain = [_plain(values[name]) for name in (*LLAMA_BENCH_FIELDS, *MINILLAMA_FIELDS)]
        csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(plain)
        return text.getvalue()


class JsonArray(Output):
    """One array of objects."""

    def row(self, record: Record, first: bool) -> str:
        shown = textwrap.indent(json.dumps(record.as_dict(), indent=2), "  ")
        return ("[\n" if first else ",\n") + shown

    def end(self) -> str:
        return "[]\n" if self.last is None else "\n]\n"


class JsonLines(Output):
    """One object a line."""

    def row(self, record: Record, first: bool) -> str:
        return json.dumps(record.as_dict()) + "\n"


class Sql(Output):
    """SQLite statements for llama-bench's table and a second one.

    Results of llama-bench and minillama load into one database in any order. The second table has minillama's own
    fields; its `llama_bench_rowid` is the row in the first.
    """

    def head(self, record: Record) -> str:
        ours = ["llama_bench_rowid INTEGER", *(_column(name) for name in MINILLAMA_FIELDS)]
        return _create("llama_bench", [_column(name) for name in LLAMA_BENCH_FIELDS]) + _create(_OUR_TABLE, ours) + "\n"

    def row(self, record: Record, first: bool) -> str:
        values = record.as_dict()
        theirs = ", ".join(_quoted(values[name]) for name in LLAMA_BENCH_FIELDS)
        ours = ", ".join(_quoted(values[name]) for name in MINILLAMA_FIELDS)
        names = f"llama_bench_rowid, {', '.join(MINILLAMA_FIELDS)}"
        return (
            f"INSERT INTO llama_bench ({', '.join(LLAMA_BENCH_FIELDS)}) VALUES ({theirs});\n"
            f"INSERT INTO {_OUR_TABLE} ({names}) VALUES (last_insert_rowid(), {ours});\n"
        )


# Format name -> constructor; arguments: the plan, and whether bandwidth and roofline were measured.
FORMATS: dict[str, Callable[[Plan, bool, bool], Output]] = {
    "md": lambda plan, bandwidth, roofline: Markdown(plan, bandwidth=bandwidth, roofline=roofline),
    "json": lambda *_: JsonArray(),
    "jsonl": lambda *_: JsonLines(),
    "csv": lambda *_: Csv(),
    "sql": lambda *_: Sql(),
}


def _plain(value: object) -> object:
    """A value as llama-bench prints it: booleans as 0 or 1."""
    return "" if value is None else int(value) if isinstance(value, bool) else value


def _quoted(value: object) -> str:
    if value is None:
        return "NULL"
    text = str(_plain(value)).replace("'", "''")
    return f"'{text}'"


def _create(table: str, columns: Sequence[str]) -> str:
    listed = ",\n".join(f"  {column}" for column in columns)
    return f"CREATE TABLE IF NOT EXISTS {table} (\n{listed}\n);\n"


def _column(name: str) -> str:
    kind = next(field.type for field in fields(Record) if field.name == name)
    plain = next((part for part in get_args(kind) if part is not NoneType), kind)
    return f"{name} {_SQL_TYPES[plain]}"  # type: ignore[index]
