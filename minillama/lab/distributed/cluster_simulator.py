"""Simulated time of a token on 1 to 256 hosts.

The inputs are bytes, latencies and bandwidths."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations

import numpy as np

from minillama.measure.limits.collective_traffic import FLOAT_BYTES

MOST_HOSTS = 256
CHUNK = 512  # tokens of a prompt that go through in one pass, llama.cpp's -ub


@dataclass(frozen=True)
class Model:
    """Sizes of a model. weight_bytes: read for each token; weights: multiplied for each token."""

    name: str
    weight_bytes: float
    weights: float
    layers: int
    width: int  # numbers of one token between two layers


@dataclass(frozen=True)
class Host:
    """One machine: bytes/s, operations/s, and bytes of memory for weights."""

    bandwidth: float
    flops: float
    memory: float


@dataclass(frozen=True)
class Link:
    """Network between any two hosts: latency in seconds, bandwidth in bytes/s."""

    latency: float
    bandwidth: float

    def seconds(self, size: float | int) -> float:
        """Seconds of one message: latency + size / bandwidth."""
        return self.latency + size / self.bandwidth


class Algorithm(StrEnum):
    """Algorithms of an all-reduce."""

    RING = "ring"
    TREE = "tree"
    EXCHANGE = "exchange"
    GATHER = "all-gather"


class Parallelism(StrEnum):
    """Ways to distribute a model."""

    TENSOR = "tensor parallel"
    LAYER = "layer parallel"
    RPC = "RPC (llama.cpp)"


@dataclass(frozen=True)
class Cluster:
    """A model on equal hosts.

    serial: seconds of a pass that hosts cannot share, such as dispatch."""

    model: Model
    host: Host
    link: Link
    serial: float = 0.0


def all_reduce_seconds(link: Link, size: float | int, hosts: int, algorithm: Algorithm) -> float:
    """Seconds of an all-reduce of `size` bytes over n hosts, without the additions.

    ring: 2 (n - 1) (latency + size / n / bandwidth); each host sends to its neighbour only.
    tree: 2 ceil(log2 n) (latency + size / bandwidth); up to one host and down again.
    exchange: latency + (n - 1) size / bandwidth; each host sends its array to all others at once.
    all-gather: (n - 1) (latency + size / bandwidth); arrays are passed on around a ring. minillama uses it on gloo.
    Thakur, Rabenseifner and Gropp, 2005.
    """
    if hosts == 1:
        return 0.0
    if algorithm is Algorithm.RING:
        return 2 * (hosts - 1) * link.seconds(size / hosts)
    if algorithm is Algorithm.TREE:
        return 2 * math.ceil(math.log2(hosts)) * link.seconds(size)
    if algorithm is Algorithm.EXCHANGE:
        return link.seconds((hosts - 1) * size)
    return (hosts - 1) * link.seconds(size)


def fastest_algorithm(link: Link, size: float | int, hosts: int) -> Algorithm:
    """The fastest algorithm for this size and number of hosts.

    Exchange for small arrays, ring for large ones, tree for many hosts."""
    return min(Algorithm, key=lambda algorithm: all_reduce_seconds(link, size, hosts, algorithm))


def work_seconds(cluster: Cluster, tokens: int = 1) -> float:
    """Seconds of one pass on one host with enough memory.

    max(weight_bytes / bandwidth, 2 weights tokens / flops); a prompt takes one pass for each CHUNK tokens.
    """
    model, host = cluster.model, cluster.host
    passes = math.ceil(tokens / CHUNK)
    return max(passes * model.weight_bytes / host.bandwidth, 2 * model.weights * tokens / host.flops)


def seconds(
    cluster: Cluster, hosts: int, way: Parallelism, tokens: int = 1, algorithm: Algorithm | None = None
) -> float:
    """Seconds of one generated token, or of a prompt of `tokens`, for one user.

    work is `work_seconds`, chunk the bytes of a chunk's activations, n the number of hosts.
    tensor: serial + work / n + 2 layers all-reduces of a chunk, for each chunk; algorithm: the fastest if None.
    layer: serial + (chunks + n - 1) (work / n / chunks + message). Hosts overlap only on different chunks; a single
    token is one chunk.
    RPC: serial + work + 2 n messages for each chunk: to each server and back to the client, one after another.
    """
    work, chunks = work_seconds(cluster, tokens), math.ceil(tokens / CHUNK)
    chunk = FLOAT_BYTES * cluster.model.width * tokens / chunks
    link = cluster.link
    if hosts == 1:
        return cluster.serial + work
    if way is Parallelism.TENSOR:
        chosen = algorithm or fastest_algorithm(link, chunk, hosts)
        summing = all_reduce_seconds(link, chunk, hosts, chosen)
        return cluster.serial + work / hosts + chunks * 2 * cluster.model.layers * summing
    if way is Parallelism.LAYER:
        return (
            cluster.serial + (chunks + hosts - 1) * work / hosts / chunks + (chunks + hosts - 2) * link.seconds(chunk)
        )
    return cluster.serial + work + chunks * 2 * hosts * link.seconds(chunk)


def speeds(cluster: Cluster, counts: Sequence[int], way: Parallelism, tokens: int = 1) -> dict[int, float]:
    """Tokens/s by number of hosts: generated ones for tokens=1, else of a prompt."""
    return {count: tokens / seconds(cluster, count, way, tokens) for count in counts}


def fewest_hosts(cluster: Cluster) -> int:
    """The smallest number of hosts whose memory holds the weights."""
    return max(1, math.ceil(cluster.model.weight_bytes / cluster.host.memory))


def fastest_hosts(cluster: Cluster, way: Parallelism, tokens: int = 1, most: int = MOST_HOSTS) -> int:
    """The number of hosts with the most tokens/s; the smallest one of equals."""
    found = speeds(cluster, range(1, most + 1), way, tokens)
    return max(found, key=lambda count: found[count])


def worthwhile_hosts(
    cluster: Cluster, way: Parallelism, tokens: int = 1, gain: float = 1.1, most: int = MOST_HOSTS
) -> int:
    """The number of hosts that pays off.

    At least the hosts that hold the weights; then more, as long as each further host is `gain` times faster."""
    hosts = fewest_hosts(cluster)
    while hosts < most and seconds(cluster, hosts, way, tokens) / seconds(cluster, hosts + 1, way, tokens) >= gain:
        hosts += 1
    return hosts


def second_host_speed_up(cluster: Cluster, way: Parallelism, tokens: int = 1) -> float:
    """Speed-up of two hosts over one, if one had enough memory."""
    return seconds(cluster, 1, way, tokens) / seconds(cluster, 2, way, tokens)


def fit_link(points: Mapping[int, float]) -> Link:
    """Fit latency and bandwidth to measured messages, {bytes: seconds}.

    Least squares of relative errors. Raises ValueError for fewer than two sizes.
    """
    if len(points) < 2:
        raise ValueError(f"{len(points)} sizes; a line has two unknowns")
    sizes = np.array(list(points), float)
    latency, per_byte = _fit(np.stack([np.ones_like(sizes), sizes], axis=1), np.array(list(points.values())))
    return Link(latency, 1 / per_byte if per_byte > 0 else math.inf)


@dataclass(frozen=True)
class Scaling:
    """Amdahl's law with the cost of collectives.

    seconds(n) = serial + parallel / n + collectives (n - 1) round; an all-gather takes n - 1 rounds.
    """

    serial: float
    parallel: float
    round: float
    collectives: int

    def seconds(self, hosts: int) -> float:
        """Seconds of a token on this number of hosts."""
        return self.serial + self.parallel / hosts + self.collectives * (hosts - 1) * self.round

    def speed_up(self, hosts: int) -> float:
        """Speed-up over one host."""
        return self.seconds(1) / self.seconds(hosts)

    def amdahl(self, hosts: int) -> float:
        """Speed-up over one host if collectives took no time."""
        return replace(self, round=0.0).speed_up(hosts)


def fit_scaling(points: Mapping[int, float], collectives: int, round: float | None = None) -> Scaling:
    """Fit `Scaling` to measured seconds per token, {hosts: seconds}; no part is negative.

    round: the least seconds of a round, if measured separately; then two points suffice, else three are needed. Time
    that neither serial nor parallel work explains counts as waiting and makes the rounds longer.
    Raises ValueError for fewer points.
    """
    needed = 3 if round is None else 2
    if len(points) < needed:
        raise ValueError(f"{len(points)} measured points; {needed} are needed")
    hosts, taken = np.array(list(points), float), np.array(list(points.values()), float)
    gathers, least = collectives * (hosts - 1), round or 0.0
    columns = np.stack([1 / hosts, np.ones_like(hosts), gathers], axis=1)
    parallel, serial, more = _fit(columns, taken - gathers * least, scale=taken)
    return Scaling(serial, parallel, least + more, collectives)


def _fit(columns: np.ndarray, wanted: np.ndarray, scale: np.ndarray | None = None) -> list[float]:
    """Non-negative least squares for few columns, by trying all subsets of columns."""
    scale = wanted if scale is None else scale
    a, b = columns / scale[:, None], wanted / scale
    best, least = [0.0] * a.shape[1], math.inf
    for count in range(1, a.shape[1] + 1):
        for chosen in combinations(range(a.shape[1]), count):
            part = a[:, chosen]
            found, *_ = np.linalg.lstsq(part, b, rcond=None)
            missed = float(np.sum((part @ found - b) ** 2))
            if np.all(found >= 0) and missed < least - 1e-12:
                best, least = [0.0] * a.shape[1], missed
                for place, value in zip(chosen, found, strict=True):
                    best[place] = float(value)
    return best


@dataclass(frozen=True)
class ComparedPoint:
    """One measured point and its simulated value, in seconds."""

    hosts: int
    measured: float
    simulated: float

    @property
    def error_factor(self) -> float:
        """Factor between the two, at least 1."""
        return max(self.measured / self.simulated, self.simulated / self.measured)


def compare_with_measured(
    cluster: Cluster, way: Parallelism, points: Mapping[int, float], tokens: int = 1
) -> tuple[ComparedPoint, ...]:
    """Pair measured seconds, {hosts: seconds}, with simulated ones."""
    return tuple(ComparedPoint(hosts, taken, seconds(cluster, hosts, way, tokens)) for hosts, taken in points.items())


# The worked example. Sizes: the published shape of Llama 3.1 70B, and llama.cpp's Q4_K_M file of it (42.5 GB; the
# embedding's 0.6 GB are not read). Links: values seen in practice, half the round-trip time between two machines at one
# switch, and the throughput of TCP.
LLAMA_70B = Model("Llama 3.1 70B Q4_K_M", 41.9e9, 69.5e9, 80, 8192)
HOME = Host(bandwidth=60e9, flops=0.8e12, memory=28e9)  # two channels of DDR5, 8 cores, 32 GB
LINKS = {
    "Wi-Fi": Link(2e-3, 60e6),
    "1 GbE": Link(0.2e-3, 117e6),
    "2.5 GbE": Link(0.15e-3, 290e6),
    "10 GbE": Link(0.05e-3, 1.15e9),
}
