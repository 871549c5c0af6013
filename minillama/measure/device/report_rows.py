"""Values of a device report, and the sizes that it measures with."""

from dataclasses import asdict, dataclass

from minillama.measure.limits.bandwidth import LARGE_SIZE

MEASURED = "measured"
BY_FORMULA = "by formula"  # a measured speed times bytes that a formula gives


@dataclass(frozen=True)
class Value:
    """A value of a step.

    unit: of `value`, empty for a plain number. origin: MEASURED, or BY_FORMULA where a part is not. launches: of the
    kernels whose time it is, in one call; None of other values.
    """

    what: str
    value: float
    unit: str
    origin: str = MEASURED
    launches: float | None = None

    def as_dict(self) -> dict[str, object]:
        """The fields by name, without `launches` where there are none; the value has six digits."""
        fields = {name: value for name, value in asdict(self).items() if value is not None}
        return {**fields, "value": float(f"{self.value:.6g}")}


@dataclass(frozen=True)
class Sizes:
    """Sizes of a report.

    large, small: names of shapes, most layers and less. read_bytes: of the array that is read for the bandwidth.
    matrix: rows and columns of a product. passes: of each limit, the best counts. prompt, answer, depth: tokens. slots:
    texts at once. repetitions: of a speed.
    """

    large: str
    small: str
    read_bytes: int
    matrix: int
    passes: int
    prompt: int
    answer: int
    depth: int
    slots: int
    repetitions: int


FULL = Sizes("llama-2-7b", "llama-3.2-1b", LARGE_SIZE, 8192, 16, 512, 128, 3000, 8, 3)
REDUCED = Sizes("tiny", "tiny", 32 << 20, 256, 3, 32, 8, 64, 2, 1)
