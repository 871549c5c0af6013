"""Time kernels in turns on a matrix that no cache holds."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np

from minillama.lab.benchmarks.ratio_interval import Interval, ratio_interval
from minillama.lab.language import message, translate
from minillama.lab.measuring import measuring
from minillama.lab.own_kernels.block_kernels import BLOCK_BYTES, BLOCK_WEIGHTS
from minillama.lab.own_kernels.traced_kernels import random_blocks

WIDTH, ROWS = 4096, 65536  # 151 MB in Q4_0
Product = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class TimedProducts:
    """Seconds of each kernel, round by round."""

    seconds: Mapping[str, tuple[float, ...]]
    weights: int

    def rate(self, name: str) -> float:
        """Weights a second, the median."""
        return self.weights / median(self.seconds[name])

    def speed_up(self, name: str, base: str) -> Interval:
        """Speed of one kernel over another, with its interval."""
        return ratio_interval([b / a for a, b in zip(self.seconds[name], self.seconds[base], strict=True)])

    def sentence(self, name: str, base: str) -> str:
        """The verdict on two kernels: faster, slower, cannot tell."""
        found = self.speed_up(name, base)
        words = {
            1: message("{name}: faster than {base}, {found}"),
            -1: message("{name}: slower than {base}, {found}"),
            0: message("{name}: cannot tell against {base}, {found}"),
        }
        return translate(words[found.side], name=name, base=base, found=found)


def large_matrix(rows: int = ROWS, width: int = WIDTH) -> np.ndarray:
    """Q4_0 bytes of a large matrix: a small random one again and again."""
    few = random_blocks(min(rows, 256), width)
    return np.ascontiguousarray(np.broadcast_to(few, (rows // len(few), *few.shape))).reshape(rows, -1)


def time_products(products: Mapping[str, Product], weights: np.ndarray, *, rounds: int = 9) -> TimedProducts:
    """Time each kernel once a round on this thread; the first round does not count."""
    x = np.random.default_rng(17).standard_normal(weights.shape[1] // BLOCK_BYTES * BLOCK_WEIGHTS)
    seconds: dict[str, list[float]] = {name: [] for name in products}
    with measuring("kernels in turns", tells_load=True):
        for turn in range(rounds + 1):
            said = translate("warm-up") if turn == 0 else translate(", round {number}", number=turn)
            print(said, end="", flush=True)
            for name, product in products.items():
                started = time.perf_counter()
                product(weights, x)
                if turn:
                    seconds[name].append(time.perf_counter() - started)
        print()
    return TimedProducts(
        {name: tuple(each) for name, each in seconds.items()}, weights.size // BLOCK_BYTES * BLOCK_WEIGHTS
    )
