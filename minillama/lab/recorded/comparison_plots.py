"""Figures and lines of lab 10: two programs on one roof."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from minillama.lab.language import message, translate
from minillama.lab.plots.lab_plots import bars
from minillama.lab.plots.roofline_plots import Dot, dot_of
from minillama.lab.recorded.recorded_runs import (
    LARGE,
    LLAMA,
    OURS,
    RESULTS,
    ROOF,
    RUN_LOAD,
    SMALLER,
    STORYTELLER,
    Records,
    Row,
    number,
    recorded_work,
    trial_name,
)
from minillama.lab.widgets.figure import Figure, text_table
from minillama.measure.host.other_load import NOTABLE_SHARE
from minillama.measure.limits.roofline import Roofline
from minillama.measure.limits.work_per_token import Work

SHORT = {STORYTELLER: message("storyteller"), LARGE: message("random Q8_0"), SMALLER: message("random Q4_0")}


def program_dots(records: Records, model: str, depths: Sequence[int] = (0,)) -> dict[str, Dot]:
    """Dots of both programs' recorded runs on a model, by program and test."""
    return {
        f"{program}, {test}" + (f" @ d{depth}" if depth else ""): dot_of(
            recorded_work(model, test, depth), number(records.row(program, model, test, depth), "avg_ts")
        )
        for test in ("pp512", "tg64")
        for depth in depths
        for program in (LLAMA, OURS)
    }


def own_dots(rows: Iterable[Row]) -> dict[str, Dot]:
    """Dots of the learner's rows, by model and test."""
    found = {}
    for row in rows:
        name = str(row["model_filename"])
        work = Work(number(row, "bytes_per_token"), number(row, "flops_per_token"))
        found[f"{translate(SHORT.get(name, name))}, {trial_name(row)}"] = dot_of(work, number(row, "avg_ts"))
    return found


def rates_and_roof(
    records: Records, model: str, test: str, depth: int, own: Iterable[Row] = (), own_roof: Roofline | None = None
) -> Figure:
    """Tokens a second of both programs, of the learner's run, and of the roofs."""
    work = recorded_work(model, test, depth)
    speeds = {
        translate("{program}, recorded", program=program): number(records.row(program, model, test, depth), "avg_ts")
        for program in (LLAMA, OURS)
    }
    speeds[translate("roof of that machine")] = records.roofs[ROOF].tokens_per_second(work)
    for row in own:
        if str(row["model_filename"]) == model and trial_name(row) == test and row["n_depth"] == depth:
            speeds[translate("minillama bench, here")] = number(row, "avg_ts")
            if own_roof is not None:
                speeds[translate("roof of this machine")] = own_roof.tokens_per_second(work)
    title = f"{translate(SHORT[model])}, {test}" + (f" @ d{depth}" if depth else "")
    return bars(list(speeds), list(speeds.values()), title, translate("tokens a second"))


def ratio_words(ours: Row, theirs: Row) -> str:
    """The ratio of two speeds with its error, and what it allows to say.

    The error is that of the two means, from the ± of the repetitions. Disturbed runs allow nothing.
    """
    ratio = number(ours, "avg_ts") / number(theirs, "avg_ts")
    error = ratio * math.hypot(*(_relative_error(row) for row in (ours, theirs)))
    load = max(float(str(row.get(RUN_LOAD, 0.0))) for row in (ours, theirs))
    if load >= NOTABLE_SHARE:
        verdict = translate("cannot tell, other programs used {load:.0%} of the cores", load=load)
    elif abs(ratio - 1) <= 2 * error:
        verdict = translate("cannot tell")
    else:
        verdict = translate("faster") if ratio > 1 else translate("slower")
    return translate("×{ratio:.2f} ± {error:.2f}: {verdict}", ratio=ratio, error=error, verdict=verdict)


def _relative_error(row: Row) -> float:
    speed, deviation = (number(row, name) for name in RESULTS)
    return deviation / math.sqrt(len(row["samples_ns"])) / speed  # type: ignore[arg-type]


def load_words(records: Records) -> str:
    """The other load of the recorded runs, in a line."""
    shares = np.array([run.other_load for run in records.speeds])
    disturbed = int(np.sum(shares >= NOTABLE_SHARE))
    if not disturbed:
        return translate(
            "other programs used at most {share:.0%} of the cores: the recorded speeds are undisturbed",
            share=shares.max(),
        )
    return translate(
        "other programs used {half:.0%} of the cores during half of the {count} recorded runs, and {notable:.0%} or "
        "more during {disturbed}: these speeds are too low, and ± shows a part of it",
        half=np.median(shares), count=len(shares), notable=NOTABLE_SHARE, disturbed=disturbed,
    )  # fmt: skip


def share_words(shares: Sequence[float]) -> str:
    """A line about shares of the memory's roof."""
    if not shares:
        return translate("no shares yet")
    if max(shares) > 1:
        return translate(
            "{share:.0%} of the roof: a part of these weights came from a cache of the processor, or the roof was "
            "measured in a worse moment",
            share=max(shares),
        )
    return translate(
        "the best program takes {share:.0%} of what the memory gives; more than 100 % is left to no program",
        share=max(shares),
    )


def joined_tables(tables: Sequence[Sequence[str]]) -> str:
    """Tables of llama-bench, one after the other, without repeated heads."""
    lines: list[str] = []
    head: Sequence[str] = ()
    for table in tables:
        if tuple(table[:2]) != tuple(head):
            lines += [*([""] if lines else []), *table[:2]]
            head = table[:2]
        lines += table[2:-1]
    return "\n".join([*lines, "", *dict.fromkeys(table[-1] for table in tables)])


def claims_table(claims: Sequence[Mapping[str, object]]) -> str:
    """Claims with the settings and speeds of their two rows."""
    lines = []
    for place, claim in enumerate(claims):
        for side, row in zip("ab", claim["rows"], strict=True):  # type: ignore[call-overload]
            depth = f" @ d{row['n_depth']}" if row["n_depth"] else ""
            lines.append((
                f"{place} {side}", str(row["program"]), translate(SHORT[row["model_filename"]]), str(row["n_threads"]),
                {-1: "auto", 0: "off", 1: "on"}[row["flash_attn"]], str(row["type_k"]), trial_name(row) + depth,
                f"{row['avg_ts']:.1f} ± {row['stddev_ts']:.1f}",
            ))  # fmt: skip
    said = "\n".join(f"{place}: {claim['claim']}" for place, claim in enumerate(claims))
    head = (
        "",
        translate("program"),
        translate("model"),
        translate("threads"),
        "fa",
        "type_k",
        translate("test"),
        "t/s",
    )
    table = text_table(head, lines)
    return f"{said}\n\n{table}"
