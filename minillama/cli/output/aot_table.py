"""The table of `minillama doctor --aot`: programs compiled for an accelerator that is not here."""

import json
import sys

from minillama.cli.output.terminal import write_text
from minillama.engine.accelerators.model_shapes import shapes_of_model
from minillama.engine.accelerators.report import CASES, Row, depths, report
from minillama.engine.accelerators.targets import Target
from minillama.gguf import GGUF
from minillama.measure.tables import Column, md_head, md_row

NOTE = """
Nothing was run on {title}. XLA compiled {layers}; kernels of the others are extrapolated, temporaries are not.
A kernel in a loop counts once. estimate: the bytes of the weights, and on a GPU 1.5 us a kernel and 19 us a loop whose
end the host waits for.
"""


def write_table(file: GGUF, target: Target) -> None:
    """Write the rows, each as soon as its program is compiled."""
    whole = shapes_of_model(file, target, CASES[0].sizes.capacity)
    name, held, stored = file.path.name, whole.held_bytes / 1e9, whole.file_bytes / 1e9
    write_text(f"{name} on {target.title}: weights {held:.2f} GB, in the file {stored:.2f} GB\n\n")
    write_text(md_head(_COLUMNS))
    for row in report(file, target, progress=_progress):
        write_text(md_row(_COLUMNS, row))
    few, many = depths(whole.config)
    layers = f"{few} and {many} of {whole.config.block_count} layers"
    write_text(NOTE.format(title=f"a {target.title}", layers=layers))


def write_json(file: GGUF, target: Target) -> None:
    """Write the same as one JSON object."""
    whole = shapes_of_model(file, target, CASES[0].sizes.capacity)
    content = {
        "model": file.path.name,
        "target": target.title,
        "held_bytes": whole.held_bytes,
        "file_bytes": whole.file_bytes,
        "compiled_layers": list(depths(whole.config)),
        "layers": whole.config.block_count,
        "programs": [row.as_dict() for row in report(file, target)],
    }
    write_text(json.dumps(content, indent=2) + "\n")


def _progress(name: str) -> None:
    if sys.stderr.isatty():
        print(f"compiling {name} ...", end="\r", file=sys.stderr, flush=True)


def _estimate(row: Row) -> str:
    return "" if row.tokens_per_second is None else f"{row.tokens_per_second:.0f} t/s"


_COLUMNS = (
    Column[Row]("program", 12, lambda row: row.program, left=True),
    Column[Row]("kernels", 7, lambda row: str(row.kernels)),
    Column[Row]("a layer", 7, lambda row: f"{row.a_layer:g}"),
    Column[Row]("loops", 5, lambda row: str(row.loops)),
    Column[Row]("graphs", 6, lambda row: str(row.graphs)),
    Column[Row]("transposes", 10, lambda row: str(row.transposes)),
    Column[Row]("held/file", 9, lambda row: f"{row.held_over_file:.3f}"),
    Column[Row]("temporaries", 11, lambda row: f"{row.temporaries / 1e6:.1f} MB"),
    Column[Row]("estimate", 9, _estimate),
)
