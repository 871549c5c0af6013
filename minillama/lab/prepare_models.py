"""Write all models of the labs into one folder, which a class shares.

python -m minillama.lab.prepare_models FOLDER        # about 2 GB; files that are there stay
export MINILLAMA_LAB_MODELS=FOLDER                    # for every learner's notebooks, which only read it
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from minillama import __version__
from minillama.atomic_file import make_folder
from minillama.errors import MinillamaError
from minillama.lab.experiments.counted_passes import big_file
from minillama.lab.experiments.quantised_storytellers import storyteller_file
from minillama.lab.lab_models import LabModel
from minillama.lab.layer_costs.step_times import equal_files
from minillama.lab.plots.roofline_plots import random_file
from minillama.lab.recorded.own_runs import large_file
from minillama.lab.speculation.heavy_storyteller import heavy_file

TYPES = ("F32", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K")  # of lab 07's table


def lab_models() -> Iterator[LabModel]:
    """All models that the labs write, the small ones first."""
    for name in TYPES:
        yield storyteller_file(name)
    yield from equal_files().values()
    yield heavy_file()
    yield large_file()
    for name in TYPES:
        yield big_file(name)
    for megabytes in (100, 1000):
        yield random_file(megabytes)


def prepare(folder: Path) -> int:
    """Write the models that are missing; returns the bytes of all."""
    make_folder(folder / __version__)
    size = 0
    for model in lab_models():
        path = folder / __version__ / model.name
        if not path.is_file():
            model.write(path)
        size += path.stat().st_size
        print(f"{path}: {path.stat().st_size / 1e6:.0f} MB", flush=True)
    return size


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m minillama.lab.prepare_models", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder that all learners can read")
    folder = parser.parse_args(arguments).folder
    try:
        size = prepare(folder)
    except MinillamaError as error:
        print(f"minillama: error: {error}", file=sys.stderr)
        return 2
    print(f"{size / 1e9:.2f} GB; for the notebooks: export MINILLAMA_LAB_MODELS={folder.absolute()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
