"""Entry point of child processes that call one function: `python -m minillama.measure.host.child_main`.

stdin holds a JSON object with `module`, `function` and the array `arguments`; stdout gets the result as JSON.
"""

import json
import sys
from importlib import import_module


def main() -> None:
    """Call the function that stdin names."""
    call = json.load(sys.stdin)
    function = getattr(import_module(call["module"]), call["function"])
    json.dump(function(*call["arguments"]), sys.stdout)


if __name__ == "__main__":
    main()
