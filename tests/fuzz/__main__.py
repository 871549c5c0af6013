"""The command line of the fuzzer: run cases, go on with a run, or replay one case."""

import argparse
import re
import sys
import tempfile
from pathlib import Path

from tqdm.auto import tqdm

from tests.fuzz.campaign import Campaign
from tests.fuzz.kinds import KINDS, create, shares
from tests.fuzz.oracle import judge, rng_of
from tests.fuzz.run_state import RunState

MAX_SHOWN = 25  # kinds of findings in the summary


def main() -> int:
    """Run; the status is 1 if there are findings."""
    args = _parser().parse_args()
    kinds = args.kind or list(KINDS)
    if args.case is not None:
        return max([_replay(kind, args.case, args.save) for kind in kinds])
    state = RunState(args.state)
    for kind, count in shares(kinds, args.cases).items():
        with tqdm(total=count, initial=min(count, state.of(kind).count), desc=kind, unit="case") as bar:
            campaign = Campaign(kind, state, bar.update)
            campaign.run(count, args.jobs, args.seconds)
        save_inputs(kind, [int(name) for name in state.of(kind).findings if name.isdigit()], args.save)
    print(*(summary(kind, state) for kind in kinds), sep="\n")
    return int(any(state.of(kind).findings for kind in kinds))


def summary(kind: str, state: RunState) -> str:
    """Counts, extremes and findings of a kind."""
    found = state.of(kind)
    outcomes = ", ".join(f"{count} {name}" for name, count in sorted(found.outcomes.items(), key=lambda row: -row[1]))
    lines = [
        f"{kind}: {found.count} cases: {outcomes}",
        f"  at most {found.slowest[0]:.2f} s of processor time (case {found.slowest[1]}), "
        f"{found.largest[0] / 2**20:.1f} MiB (case {found.largest[1]}), "
        f"{found.bytes_per_case:.0f} bytes of growth a case",
    ]
    if found.in_time_alone:
        lines.append(
            f"  late once, and in time alone: {len(found.in_time_alone)} ({', '.join(found.in_time_alone)[:200]})"
        )
    alike: dict[str, list[str]] = {}
    for number, problem in found.findings.items():
        alike.setdefault(_signature(problem), []).append(number)
    for signature, numbers in sorted(alike.items(), key=lambda row: -len(row[1]))[:MAX_SHOWN]:
        last = next(line for line in reversed(found.findings[numbers[0]].splitlines()) if line.strip())
        lines.append(f"  FOUND {len(numbers)} times, first {', '.join(numbers[:4])}: {signature}: {last[:200]}")
    return "\n".join([*lines, f"  {len(found.findings)} findings"])


def _signature(problem: str) -> str:
    """The kind of a problem: its type, and the last place in the program."""
    lines = [line.strip() for line in problem.splitlines() if line.strip()]
    places = [line for line in lines if line.startswith("File ") and "minillama/" in line]
    place = f" at {places[-1].split('minillama/', 1)[1]}" if places else ""
    text = lines[-1].split(":")[0] if lines[0].startswith("Traceback") else lines[0]
    return re.sub(r"[0-9]+", "N", text)[:60] + place


def save_inputs(kind: str, numbers: list[int], folder: Path) -> None:
    """Write the inputs of cases, and the line that replays each."""
    if not numbers:
        return
    with tempfile.TemporaryDirectory() as scratch:
        made = create(kind, Path(scratch))
        for number in numbers:
            place = folder / f"{kind}-{number}"
            place.mkdir(parents=True, exist_ok=True)
            for name, content in made.files(made.make(rng_of(kind, number))).items():
                (place / name).write_bytes(content)
            (place / "replay.txt").write_text(f"python -m tests.fuzz --kind {kind} --case {number}\n")
        made.close()


def _replay(kind: str, number: int, folder: Path) -> int:
    save_inputs(kind, [number], folder)
    with tempfile.TemporaryDirectory() as scratch:
        made = create(kind, Path(scratch))
        verdict = judge(kind, made, number)
        made.close()
    print(f"{kind} {number}: {verdict.outcome}, {verdict.cpu_seconds:.3f} s, {verdict.peak / 2**20:.1f} MiB")
    print(f"input: {folder / f'{kind}-{number}'}")
    if verdict.problem is not None:
        print(verdict.problem)
    return int(verdict.problem is not None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="cases of all kinds together (default: 10000)")
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="only this kind; may be repeated")
    parser.add_argument("--case", type=int, help="replay one case")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="most seconds of a kind")
    parser.add_argument("--state", type=Path, help="file to go on from; it is written after every batch")
    parser.add_argument("--save", type=Path, default=Path("fuzz-findings"), help="folder of the inputs of findings")
    return parser


if __name__ == "__main__":
    sys.exit(main())
