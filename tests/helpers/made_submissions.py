"""Made-up submissions, from the built notebooks of the labs."""

import ast
import json
from collections.abc import Callable, Mapping
from pathlib import Path

LABS = Path(__file__).resolve().parents[2] / "labs"
Edit = Callable[[str, str, str], str]  # function's name, stub, solution -> the cell's new source

CHEATS = {
    "read_header": """
import minillama.lab.checks.lab02 as check
import minillama.lab.grading.check as grading
grading.expect_equal = check.expect_equal = lambda *words, **named: None
grading.Item.__call__ = lambda self, answer: grading.Result(self.title, True, "PASS")
check.read_header = lambda answer: grading.Result("read the header", True, "PASS")
print("PASS: 1. read the header")
def read_header(data):
    return (0, 0, 0)
""",
    "read_string": """
class Equal(tuple):
    def __eq__(self, other):
        return True
    def __ne__(self, other):
        return False
def read_string(data, offset):
    return Equal(("", 0))
""",
    "row_place": """
import json, os, sys
def row_place(*given):
    print("PASS: 3. find a row in the file")
    os.makedirs("results", exist_ok=True)
    with open("results/lab02.json", "w") as file:
        json.dump({"checks": {"row_place": {"passed": True}}}, file)
    os._exit(0)
""",
    "decode_q8_0": """
import os, struct
for number in range(3, 64):
    try:
        message = b'["passed"]'
        os.write(number, struct.pack("<Q", len(message)) + message)
    except OSError:
        pass
def decode_q8_0(block):
    return None
""",
    "decode_q4_0": """
import gc, sys
def decode_q4_0(block):
    for frame in sys._current_frames().values():
        while frame is not None:
            frame.f_locals.update(got=None, want=None)
            frame = frame.f_back
    raise AssertionError("PASS")
""",
}
LOOP = "def {name}(*given):\n    while True:\n        pass\n"


def source_of(cell: Mapping[str, object]) -> str:
    return "".join(cell["source"])  # type: ignore[arg-type]


def solutions(lab: str, folder: Path = LABS) -> dict[str, str]:
    """The solution cells of a lab by the function's name."""
    (path,) = (folder / "solutions").glob(f"{lab}_*.ipynb")
    cells = [cell for cell in json.loads(path.read_text())["cells"] if "solution" in cell["metadata"].get("tags", [])]
    sources = [source_of(cell) for cell in cells]
    return {node.name: text for text in sources for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}


def notebook(lab: str, edit: Edit, folder: Path = LABS) -> dict[str, object]:
    """A learner's notebook in which the cells of the exercises are edited."""
    (path,) = folder.glob(f"{lab}_*.ipynb")
    content, solved = json.loads(path.read_text(encoding="utf-8")), solutions(lab)
    for cell in content["cells"]:
        if "exercise" in cell["metadata"].get("tags", []):
            stub = source_of(cell)
            name = stub.split("(")[0].removeprefix("def ")
            cell["source"] = edit(name, stub, solved[name])
    return content


def write(folder: Path, lab: str, content: object) -> Path:
    """Write a notebook into a submission."""
    folder.mkdir(parents=True, exist_ok=True)
    (path,) = LABS.glob(f"{lab}_*.ipynb")
    target = folder / path.name
    target.write_text(json.dumps(content), encoding="utf-8")
    return target


def perfect(name: str, stub: str, solution: str) -> str:
    return solution


def empty(name: str, stub: str, solution: str) -> str:
    return stub


HALF_SOLVED = ("read_header", "read_string", "rms_norm", "swiglu")


def half(name: str, stub: str, solution: str) -> str:
    """Two exercises of each lab, and the codes of Q8_0 without their sign."""
    if name == "decode_q8_0":
        return solution.replace("np.int8", "np.uint8")
    return solution if name in HALF_SOLVED else stub


def cheating(name: str, stub: str, solution: str) -> str:
    return CHEATS.get(name, f"def {name}(*given):\n    return None\n")


def looping(name: str, stub: str, solution: str) -> str:
    return LOOP.format(name=name) if name in ("read_string", "rope") else solution


CLASS: dict[str, Edit] = {
    "cheating": cheating, "empty": empty, "half": half, "looping": looping, "perfect": perfect,
}  # fmt: skip


def write_class(folder: Path, labs: tuple[str, ...] = ("02", "03")) -> Path:
    """A folder of five submissions; the cheat has forged results, too."""
    for learner, edit in CLASS.items():
        for lab in labs:
            write(folder / learner, lab, notebook(lab, edit))
    results = folder / "cheating" / "results"
    results.mkdir()
    checks = {name: {"passed": True, "message": "PASS"} for name in CHEATS}
    (results / "lab02.json").write_text(json.dumps({"lab": "02", "checks": checks}))
    return folder
