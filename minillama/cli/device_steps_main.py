"""The process that `doctor --device-report` starts: `python -m minillama.cli.device_steps_main FOLDER STEP...`.

It runs steps on JAX's first device and prints events as lines of JSON. FOLDER keeps the models. MINILLAMA_REPORT_DEVICE
is the value of --device.
"""

import json
import os
import sys
from pathlib import Path

from minillama.cli.arguments.model_from_args import platform_of, prepare_machine
from minillama.cli.output.terminal import note, write_text
from minillama.errors import MinillamaError


def main(folder: str, *names: str) -> int:
    """Run some steps; none on a processor that was not named as the device."""
    device = os.environ.get("MINILLAMA_REPORT_DEVICE")
    try:
        prepare_machine(device, None)
        from minillama.measure.device.model_speeds import ModelBench
        from minillama.measure.device.report_rows import FULL, REDUCED
        from minillama.measure.device.report_steps import device_event, run_steps, steps_named

        found, on_cpu = device_event(), platform_of(device) == "cpu"
        write_text(json.dumps(found) + "\n")
        if found["platform"] != "cpu" or on_cpu:
            sizes = REDUCED if on_cpu else FULL
            for event in run_steps(steps_named(sizes, names), ModelBench(Path(folder), sizes)):
                write_text(json.dumps(event) + "\n")
    except MinillamaError as error:
        note(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
