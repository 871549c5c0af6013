"""Command lines: any options are parsed; some commands run, with damaged models."""

import io
import os
import random
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from minillama.cli import ALIASES, build_parser, main
from tests.fuzz import hostile_values
from tests.fuzz.case_kind import Finding, Kind
from tests.fuzz.command_lines import random_command, random_words, value, variables
from tests.fuzz.gguf_kind import GGUFKind
from tests.fuzz.oracle import check_line

READERS = ("inspect", "tokenize", "quantize")  # commands that read a model and compute nothing
RUNNERS = ("run", "simple", "perplexity")
FIRST_WORDS = {
    "inspect": [],
    "tokenize": ["-p", "hello"],
    "quantize": ["model.gguf", "out.gguf", "Q8_0"],
    "run": ["-n", "2", "-c", "64", "-p", "hello"],
    "simple": ["-n", "2", "hello"],
    "perplexity": ["-f", "text.txt", "-c", "64"],
}
RUN, COMPUTE = 0.5, 0.01  # of all cases
MAX_WARNING = 2000


@dataclass(frozen=True)
class CommandLine:
    """Words, variables, standard input and files in the working folder; or only parsed words."""

    words: tuple[str, ...]
    environment: Mapping[str, str]
    stdin: bytes
    content: Mapping[str, bytes]
    runs: bool


class CommandLineKind(Kind[CommandLine]):
    """The command `minillama` in this process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._models = GGUFKind(folder)
        self._place = folder / "here"
        os.environ |= {"HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(folder / "cache")}

    def make(self, rng: random.Random) -> CommandLine:
        choice, content = rng.random(), {"text.txt": hostile_values.raw_text(rng) * rng.choice((1, 30))}
        if choice > RUN:
            command = random_command(rng)
            known = ALIASES.get(command, command)
            words = [command, *random_words(rng, known, calls_others=True)]
            chosen = rng.sample(variables(known), min(len(variables(known)), rng.choice((0, 0, 1, 3))))
            return CommandLine(tuple(words), {name: value(rng, None) for name in chosen}, b"", {}, False)
        command = rng.choice(RUNNERS if choice < COMPUTE else READERS)
        content["model.gguf"] = next(iter(self._models.make(rng).content.values()))
        words = [command, *FIRST_WORDS[command]]
        if command != "quantize":
            words += ["-m", "model.gguf"]
        if rng.random() < 0.5:
            words += random_words(rng, command, calls_others=False)
        return CommandLine(tuple(words), {}, hostile_values.raw_text(rng), content, True)

    def run(self, given: CommandLine) -> str:
        shutil.rmtree(self._place, ignore_errors=True)
        (self._place / "folder").mkdir(parents=True)
        for name, content in given.content.items():
            (self._place / name).write_bytes(content)
        with self._surroundings(given) as errors:
            if not given.runs:
                try:
                    build_parser([ALIASES.get(given.words[0], given.words[0])]).parse_args(_named(given.words))
                except SystemExit as leave:  # --help and --version
                    if leave.code not in (0, None):
                        raise Finding(f"the parser exits with status {leave.code}") from leave
                return "parsed"
            status = main(given.words)
        _check_output(status, errors.read_text(encoding="utf-8", errors="replace"))
        return f"{given.words[0]} {status}"

    def files(self, given: CommandLine) -> dict[str, bytes]:
        words = f"{dict(given.environment)}\nminillama {' '.join(map(repr, given.words))}\n"
        return {**given.content, "words.txt": words.encode("utf-8", "replace"), "stdin": given.stdin}

    def close(self) -> None:
        self._models.close()

    @contextmanager
    def _surroundings(self, given: CommandLine) -> Iterator[Path]:
        """Streams that are files, the variables, and the working folder; yields the file of stderr."""
        files = [self._place / name for name in ("stdin", "stdout", "stderr")]
        files[0].write_bytes(given.stdin)
        before, streams, cores = dict(os.environ), (sys.stdin, sys.stdout, sys.stderr), os.sched_getaffinity(0)
        opened = [io.TextIOWrapper(file.open("rb" if place == 0 else "wb")) for place, file in enumerate(files)]
        here = os.getcwd()
        os.environ |= given.environment
        os.chdir(self._place)
        sys.stdin, sys.stdout, sys.stderr = opened
        try:
            yield files[2]
        finally:
            sys.stdin, sys.stdout, sys.stderr = streams
            for stream in opened:
                stream.close()
            os.chdir(here)
            os.environ.clear()
            os.environ |= before
            os.sched_setaffinity(0, cores)


def _named(words: tuple[str, ...]) -> list[str]:
    return [ALIASES.get(words[0], words[0]), *words[1:]]


def _check_output(status: int, errors: str) -> None:
    """The status and the lines on stderr."""
    if status not in (0, 1, 2):
        raise Finding(f"status {status}")
    lines = errors.split("\n")
    wrong = [line for line in lines if line.startswith("minillama: error: ")]
    if len(wrong) != (1 if status == 2 else 0):
        raise Finding(f"status {status} with {len(wrong)} lines of errors: {errors[-500:]!r}")
    for line in lines:
        if line.startswith(("minillama: error: ", "minillama: warning: ")):
            check_line(line, 520 if line in wrong else MAX_WARNING)
    if "Traceback" in errors:
        raise Finding(f"a traceback on stderr: {errors[-1500:]}")


KIND = CommandLineKind
