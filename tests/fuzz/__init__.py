"""A structure-aware fuzzer: `python -m tests.fuzz --cases 1000000`.

A case has a kind (`gguf`, `tokenizer`, `template`, ...) and a number, and the number is its seed. Processes with
bounded memory run the cases, so that a crash or a hang belongs to one number and the others go on.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HELPERS = ROOT / "tests" / "helpers"
if str(HELPERS) not in sys.path:  # pytest adds it by its configuration
    sys.path.insert(0, str(HELPERS))
