"""Record interleaved runs of llama.cpp and minillama (lab 10).

`python -m minillama.lab.recorded.record_runs FOLDER_OF_LLAMA_BENCH WORK_FOLDER ATTEMPTS SECONDS` writes
WORK_FOLDER/llama_cpp.json. Speeds are kept with the share of the cores that other programs used. Of several
attempts the quietest counts. An attempt after the first waits SECONDS for a quiet moment, and is left out without one.
A later call goes on.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from minillama import env
from minillama.atomic_file import atomic_write
from minillama.engine.loading.model_files import data_file
from minillama.env import MINILLAMA
from minillama.gguf import TensorType
from minillama.gguf.quantisation_mixes import Mix
from minillama.gguf.quantise.file_quantiser import quantise_file
from minillama.lab.recorded.own_runs import write_random
from minillama.lab.recorded.recorded_runs import LARGE, SMALLER, STORYTELLER
from minillama.measure.host.other_load import OtherLoad, other_load
from minillama.measure.limits.roofline import measure_roofline
from minillama.measure.quality.kld_base_file import open_base, unpack

QUIET = 0.1  # share of other load that a measurement does not repeat
REPEATS = ("-r", "5")
TESTS = {"pp512": ("-p", "512", "-n", "0"), "tg64": ("-p", "0", "-n", "64")}
DEPTHS = ("0", "1024")
BOTH = ("minillama bench", "llama-bench")
Words = tuple[str, ...]
SPEEDS: tuple[tuple[Words, Words], ...] = (
    *((BOTH, ("-m", LARGE, *test, "-d", depth, "-t", "1")) for depth in DEPTHS for test in TESTS.values()),
    *((BOTH, ("-m", STORYTELLER, *test, "-d", "0", "-t", "1")) for test in TESTS.values()),
    (BOTH[1:], ("-m", LARGE, *TESTS["pp512"], "-d", "0", "-t", "2")),
    (BOTH[1:], ("-m", SMALLER, *TESTS["pp512"], "-d", "0", "-t", "1")),
    (BOTH[1:], ("-m", LARGE, *TESTS["tg64"], "-d", "1024", "-t", "1", "-fa", "off")),
    (BOTH[1:], ("-m", LARGE, *TESTS["tg64"], "-d", "1024", "-t", "1", "-ctk", "q8_0", "-ctv", "q8_0")),
)
SCORED = tuple(
    ("-m", f"storyteller-{name}.gguf", "-f", "heldout.txt", "-c", ctx, "-t", "2")
    for name, ctx in (("f16", "256"), ("q8_0", "256"), ("q4_0", "256"), ("f16", "128"), ("f16", "512"))
)


def record(binaries: Path, folder: Path, attempts: int, pause: float) -> None:
    """Make the files, then record; the state is saved after each run."""
    folder.mkdir(parents=True, exist_ok=True)
    make_files(folder)
    target = folder / "llama_cpp.json"
    found = json.loads(target.read_text()) if target.exists() else {"machine": machine(), "roofs": {}, "runs": []}
    keep: Callable[[], object] = lambda: write(target, as_text(found).encode())  # noqa: E731
    for words in SCORED:
        if not any(run["command"] == command_of("llama-perplexity", words) for run in found["runs"]):
            found["runs"].append(scored_run(binaries, folder, words))
            keep()
    for _ in range(attempts):
        record_roof(found["roofs"], 1, "Q8_0", pause)
        keep()
        for programs, words in SPEEDS:
            record_turn(found["runs"], binaries, folder, programs, words, pause)
            keep()


def write(path: Path, data: bytes) -> None:
    """Replace a file as a whole."""
    with atomic_write(path) as file:
        file.write(data)


def make_files(folder: Path) -> None:
    """The built-in models, a smaller type of one, and a random model in two types."""
    for name in (STORYTELLER, "storyteller-f16.gguf", "heldout.txt"):
        if not (folder / name).exists():
            write(folder / name, data_file(name).read_bytes())
    if not (folder / "storyteller-q4_0.gguf").exists():
        quantise_file(folder / "storyteller-f16.gguf", folder / "storyteller-q4_0.gguf", Mix.named("Q4_0"))
    for name, mix in ((LARGE, "Q8_0"), (SMALLER, "Q4_0")):
        if not (folder / name).exists():
            write_random(folder / name, mix)


def machine() -> dict[str, object]:
    """The processor, as its system names it."""
    facts = env.describe()
    return {"processor": facts.cpu, "cores": len(facts.affinity), "instruction_sets": list(facts.instruction_sets)}


def record_roof(roofs: dict[str, dict[str, object]], threads: int, kind: str, pause: float) -> None:
    """Measure a roof unless a quiet measurement is there."""
    name = f"threads {threads}, {kind}"
    old = roofs.get(name)
    if old and (float(str(old["other_load"])) < QUIET or not is_quiet(pause)):
        return
    load = OtherLoad()
    new = asdict(measure_roofline(threads, kind=TensorType[kind])) | {"date": now(), "other_load": load.share()}
    if old is None or float(str(new["other_load"])) < float(str(old["other_load"])):
        roofs[name] = new


def record_turn(
    runs: list[dict[str, object]], binaries: Path, folder: Path, programs: Sequence[str], words: Sequence[str],
    pause: float,
) -> None:  # fmt: skip
    """Run the programs in turn; keep the turn if it is the quietest."""
    commands = [command_of(program, (*words, *REPEATS)) for program in programs]
    old = [run for run in runs if run["command"] in commands]
    loudest = max((float(str(run["other_load"])) for run in old), default=2.0)
    if loudest < QUIET or (old and not is_quiet(pause)):
        return
    turn = [speed_run(binaries, folder, program, (*words, *REPEATS)) for program in programs]
    if max(float(str(run["other_load"])) for run in turn) < loudest:
        runs[:] = [run for run in runs if run["command"] not in commands] + turn


def speed_run(binaries: Path, folder: Path, program: str, words: Sequence[str]) -> dict[str, object]:
    """One benchmark: its JSON from stdout, and the table of the same run from stderr."""
    front = (*MINILLAMA, "bench") if program == BOTH[0] else (str(binaries / program),)
    load, date = OtherLoad(), now()
    done = subprocess.run((*front, *words, "-o", "json", "-oe", "md"), cwd=folder, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, check=True)  # fmt: skip
    return {
        "program": program,
        "command": command_of(program, words),
        "date": date,
        "other_load": round(load.share(), 3),
        "rows": json.loads(done.stdout),
        "table": [line for line in done.stderr.splitlines() if line.startswith(("|", "build:"))],
    }


def scored_run(binaries: Path, folder: Path, words: Sequence[str]) -> dict[str, object]:
    """A perplexity: its lines, and the log likelihoods of a second run."""
    call = (str(binaries / "llama-perplexity"), *words)
    final: list[str] = []
    while not final:  # the program may end before its last lines are written
        date = now()
        done = subprocess.run(call, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              stdin=subprocess.DEVNULL, check=True)  # fmt: skip
        parts = (r"calculating perplexity.*", r"\[\d+\][\d.]+,", r"Final estimate.*")
        head, windows, final = (re.findall(part, done.stdout) for part in parts)
    base = folder / "base.kld"
    subprocess.run((*call, "--kl-divergence-base", base.name), cwd=folder, capture_output=True, check=True)
    return {
        "program": "llama-perplexity",
        "command": command_of("llama-perplexity", words),
        "date": date,
        "build": build_of(binaries),
        "output": [*head, "".join(windows), *final],
        "log_likelihoods": [round(float(value), 4) for value in log_likelihoods(base)],
    }


def log_likelihoods(path: Path) -> np.ndarray:
    """The log likelihoods of the scored tokens of a base file."""
    base, found = open_base(path), []
    for tokens, records in zip(base.tokens, base.records, strict=True):
        scale, least, codes = unpack(records, base.vocab_size)
        found.append(least + scale * codes[np.arange(len(records)), tokens[-len(records) :]])
    return np.concatenate(found)


def build_of(binaries: Path) -> str:
    """Commit and number of llama.cpp."""
    done = subprocess.run((str(binaries / "llama-bench"), "--version"), capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).splitlines()[0]


def is_quiet(pause: float) -> bool:
    """Wait at most `pause` seconds for a moment without other load."""
    end = time.monotonic() + pause
    while other_load(1.0) >= QUIET:
        if time.monotonic() > end:
            return False
        time.sleep(1.0)
    return True


def command_of(program: str, words: Sequence[str]) -> str:
    """A command line as one text."""
    return " ".join((program, *words))


def now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def as_text(found: Mapping[str, object]) -> str:
    """JSON with one line a run."""
    runs = ",\n".join(json.dumps(run, ensure_ascii=False) for run in found["runs"])  # type: ignore[attr-defined]
    front = json.dumps({name: value for name, value in found.items() if name != "runs"}, ensure_ascii=False, indent=1)
    return f'{front[:-2]},\n "runs": [\n{runs}\n]}}\n'


if __name__ == "__main__":
    record(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), int(sys.argv[3]), float(sys.argv[4]))
