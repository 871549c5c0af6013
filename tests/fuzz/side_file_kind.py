"""Files next to models: importance matrices, base log-probabilities, tasks, records of labs."""

import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from choice_tasks import multiple_choice_file

from minillama.gguf.imatrix_file import read_imatrix, write_imatrix
from minillama.lab.grading.lab_results import read_results
from minillama.measure.quality.kld_base_file import create_base, open_base, record_words, scored_tokens
from minillama.measure.quality.task_files import read_hellaswag, read_multiple_choice, read_winogrande
from minillama.parallel.workers.secret import read_secret
from tests.fuzz.byte_mutations import mutate_bytes
from tests.fuzz.case_kind import Kind

RECORD = {
    "lab": "05", "written": "2026-01-01T00:00:00", "machine": {"cores": 4}, "versions": {"jax": "0.10"},
    "predictions": {"a": {"said": 1.5, "unit": "tok/s"}}, "measurements": {"a": {"value": 2, "unit": "tok/s"}},
    "checks": {"x": {"passed": True}}, "dots": {"d": {"intensity": 1.0, "flops": 2e9}}, "pictures": {},
    "texts": {"q": {"question": "?", "text": "!"}}, "decisions": {},
}  # fmt: skip


@dataclass(frozen=True)
class File:
    """A file of a format; `name` is a key of the table of readers."""

    name: str
    content: bytes


class SideFileKind(Kind[File]):
    """Damaged files of seven formats."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        sums = {"blk.0.ffn_up.weight": np.arange(8, dtype=np.float32), "output.weight": np.ones(4, np.float32)}
        matrix = write_imatrix(folder / "m.gguf", sums, 7, dataset="a.txt", chunks=2, chunk_size=16)
        with create_base(folder / "base", 9, np.arange(16, dtype=np.int32).reshape(2, 8) % 9) as file:
            file.write(np.zeros((2 * scored_tokens(8), record_words(9)), "<u2").tobytes())
        entry = struct.pack("<i", 5) + b"blk.0" + struct.pack("<ii2f", 3, 2, 1.0, 2.0)
        hellaswag = "A man\n2\nruns\nsits\neats\nflies\n" * 3
        winogrande = '1,"The _ is big, and old",cat,dog,2\n2,A _ runs,x,y,1\n'
        self._seeds = {
            "imatrix.gguf": matrix.read_bytes(),
            "imatrix.dat": struct.pack("<i", 1) + entry + struct.pack("<ii", 1, 3) + b"abc",
            "base": (folder / "base").read_bytes(),
            "choices.bin": multiple_choice_file([("What?", ["a", "b"], 1)]),
            "hellaswag.txt": hellaswag.encode(),
            "winogrande.csv": winogrande.encode(),
            "lab05.json": json.dumps(RECORD).encode(),
            "token": b"0123456789abcdef\n",
        }
        self._readers: dict[str, Callable[[Path], object]] = {
            "imatrix.gguf": read_imatrix,
            "imatrix.dat": read_imatrix,
            "base": open_base,
            "choices.bin": lambda path: read_multiple_choice(path.read_bytes()),
            "hellaswag.txt": lambda path: read_hellaswag(path.read_bytes().decode("utf-8", "replace")),
            "winogrande.csv": lambda path: read_winogrande(path.read_bytes().decode("utf-8", "replace")),
            "lab05.json": lambda path: read_results(path.parent),
            "token": lambda path: read_secret(path, None),
        }
        for path in folder.iterdir():
            path.unlink()

    def make(self, rng: random.Random) -> File:
        name = rng.choice(sorted(self._seeds))
        others = tuple(self._seeds[other] for other in sorted(self._seeds))
        content = self._seeds[name]
        return File(name, mutate_bytes(rng, content, others) if rng.random() < 0.98 else content)

    def run(self, given: File) -> str:
        path = self.folder / given.name
        try:
            path.write_bytes(given.content)
            path.chmod(0o600)
            self._readers[given.name](path)
            return f"read {given.name}"
        finally:
            path.unlink()

    def files(self, given: File) -> dict[str, bytes]:
        return {given.name: given.content}


KIND = SideFileKind
