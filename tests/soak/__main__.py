"""The command line of the soak."""

import argparse
import sys
from pathlib import Path

from tests.soak.campaign import soak

MODEL = Path(__file__).resolve().parents[2] / "data" / "storyteller-q8_0.gguf"


def main() -> int:
    """Run; the status is 1 if anything was wrong."""
    parser = argparse.ArgumentParser("python -m tests.soak", description="Many rough clients on one server.")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", type=int, default=32, help="different requests (default: 32)")
    parser.add_argument("words", nargs="*", help="options of minillama serve, after --")
    args = parser.parse_args()
    words = args.words or [
        "-np",
        "8",
        "-c",
        "4096",
        "--cache-ram",
        "16",
        "-m",
        str(MODEL),
    ]  # full after the warm-up: the copies of 32 kinds take 22 MiB in 40 s
    found = soak(args.minutes, args.clients, words, args.seed, args.kinds)
    print(", ".join(f"{count} {name}" for name, count in sorted(found.counts.items())))
    print(f"the slowest whole answer took {found.slowest:.1f} s")
    print(*found.problems[:20], f"{len(found.problems)} problems", sep="\n")
    return int(bool(found.problems))


if __name__ == "__main__":
    sys.exit(main())
