"""The table of a model's programs on an accelerator, with an estimate of speed.

A model of many layers is compiled with some of its layers, and with twice as many: the difference is what each layer
adds. Bytes of weights are those of the whole model, temporaries those of the compiled layers.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from minillama.engine.accelerators.compiled_counts import Counts, compiled_counts
from minillama.engine.accelerators.model_shapes import ModelShapes, shapes_of_model
from minillama.engine.accelerators.program_arguments import Sizes
from minillama.engine.accelerators.targets import Target, compile_device
from minillama.engine.backends.programs import text_programs
from minillama.engine.backends.programs.program import Program
from minillama.gguf import GGUF
from minillama.gguf.kv_cache_types import CacheType, CacheTypes
from minillama.model import Config
from minillama.sampling import Sampling

# Of an H200, from machine code and data sheets; no run has confirmed them.
PRODUCT_SHARE = 0.5  # of the memory's bandwidth that XLA's own products of quantised weights may reach
KERNEL_SECONDS = 1.5e-6  # of a small kernel in a graph
LOOP_SECONDS = 19e-6  # of a loop whose end the host waits for, twice
FEW_LAYERS = 4  # up to here a model is compiled whole

CACHE = CacheTypes(CacheType.F16, CacheType.F16)


@dataclass(frozen=True)
class Row:
    """A program of the whole model.

    a_layer: kernels that a layer adds. temporaries: bytes with the layers that were compiled.
    tokens_per_second: an estimate for one text; None for several and for prompts, whose loops run more than once.
    """

    program: str
    kernels: int
    a_layer: float
    loops: int
    graphs: int
    transposes: int
    temporaries: int
    held_over_file: float
    tokens_per_second: float | None

    def as_dict(self) -> dict[str, object]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class Case:
    """A program with sizes, and a name for the table."""

    name: str
    program: Program
    sizes: Sizes


CASES = (
    Case("generate", text_programs.generate, Sizes()),
    Case("generate B=8", text_programs.generate, Sizes(batch=8)),
    Case("prefill 512", text_programs.prefill, Sizes()),
)


def report(
    file: GGUF, target: Target, cases: tuple[Case, ...] = CASES, progress: Callable[[str], object] = lambda name: None
) -> Iterator[Row]:
    """The rows of a model's programs, each as soon as it is compiled.

    progress: called with the name of each case before it is compiled. Raises ResourceError where the compiler is not
    installed, and the errors of `load_params`.
    """
    compile_device(target)
    whole = shapes_of_model(file, target, CASES[0].sizes.capacity)
    fewer = [shapes_of_model(file, target, CASES[0].sizes.capacity, depth) for depth in depths(whole.config)]
    for case in cases:
        progress(case.name)
        yield row(case, whole, [(model, _count(case, model)) for model in fewer])


def depths(config: Config) -> tuple[int, int]:
    """The two numbers of layers that are compiled.

    One period of the kinds of layers, and two; half and all layers of a small model.
    """
    layers, count = config.layers, config.block_count
    if count <= FEW_LAYERS:
        return max(1, count // 2), count
    periods = (p for p in range(2, count // 2 + 1) if all(layers[i] == layers[i - p] for i in range(p, count)))
    period = min(next(periods, count // 2), count // 2)
    return period, 2 * period


def row(case: Case, whole: ModelShapes, found: list[tuple[ModelShapes, Counts]]) -> Row:
    """The counts of a whole model, from those with fewer layers."""
    (small, less), (large, more) = found
    steps = large.config.block_count - small.config.block_count
    missing = whole.config.block_count - large.config.block_count

    def extended(name: str) -> int:
        step = (getattr(more, name) - getattr(less, name)) / steps if steps else 0.0
        return round(getattr(more, name) + step * missing)

    counts = Counts(**{name: extended(name) for name in asdict(more)} | {"temporaries": more.temporaries})
    is_step = case.program is text_programs.generate and case.sizes.batch == 1
    return Row(
        program=case.name,
        kernels=counts.kernels,
        a_layer=round((more.kernels - less.kernels) / steps, 1) if steps else float(counts.kernels),
        loops=counts.loops,
        graphs=counts.graphs,
        transposes=counts.transposes,
        temporaries=counts.temporaries,
        held_over_file=round(whole.held_bytes / whole.file_bytes, 3),
        tokens_per_second=1 / step_seconds(whole, counts) if is_step else None,
    )


def step_seconds(model: ModelShapes, counts: Counts) -> float:
    """An estimate of the seconds of a step of one text.

    On a GPU: the weights at a share of the memory's bandwidth, the launches and the loops. On a TPU: the bytes that
    XLA counts.
    """
    if model.target.platform != "cuda":
        return max(counts.accessed, model.read_bytes) / model.target.read_bytes
    reading = model.read_bytes / (PRODUCT_SHARE * model.target.read_bytes)
    return reading + counts.kernels * KERNEL_SECONDS + counts.loops * LOOP_SECONDS


def _count(case: Case, model: ModelShapes) -> Counts:
    device = compile_device(model.target)
    return compiled_counts(model.lower(case.program, case.sizes, CACHE, Sampling(), device), model.target)
