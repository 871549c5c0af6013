"""What a cluster would give: the time of a token on 1 to 256 hosts, from bytes, latencies and bandwidths alone."""

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
    """What of a model matters here. weight_bytes: read for each token; weights: multiplied for each token."""

    name: str
    weight_bytes: float
    weights: float
    layers: int
    width: int  # numbers of one token between two layers


@dataclass(frozen=True)
class Host:
    """One machine: bytes read and operations done in a second, and bytes of memory for weights."""

    bandwidth: float
    flops: float
    memory: float


@dataclass(frozen=True)
class Link:
    """The way from any host to any other: seconds until a message of no bytes is there, and bytes a second."""

    latency: float
    bandwidth: float

    def seconds(self, size: float | int) -> float:
        """Of one message: latency + size / bandwidth."""
        return self.latency + size / self.bandwidth


class Algorithm(StrEnum):
    """How hosts add up arrays of which each holds one."""

    RING = "ring"
    TREE = "tree"
    EXCHANGE = "exchange"
    GATHER = "all-gather"


class Parallelism(StrEnum):
    """How a model is spread."""

    TENSOR = "tensor parallel"
    LAYER = "layer parallel"
    RPC = "handed over (llama.cpp RPC)"


@dataclass(frozen=True)
class Cluster:
    """A model on equal hosts. alone: seconds of a pass that no host takes off another, such as dispatch."""

    model: Model
    host: Host
    link: Link
    serial: float = 0.0


def all_reduce_seconds(link: Link, size: float | int, hosts: int, algorithm: Algorithm) -> float:
    """Seconds until `hosts` hosts have the sum of arrays of `size` bytes, adding not counted.

    ring: 2 (n - 1) (latency + size / n / bandwidth), every host sends to its neighbour only.
    tree: 2 ceil(log2 n) (latency + size / bandwidth), up to one host and down again.
    exchange: latency + (n - 1) size / bandwidth, every host sends all it has to every other at once.
    all-gather: (n - 1) (latency + size / bandwidth), the same handed on round a ring; minillama's, on gloo.
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
    """The algorithm that takes the least: exchange for little, ring for much, a tree for many hosts."""
    return min(Algorithm, key=lambda algorithm: all_reduce_seconds(link, size, hosts, algorithm))


def work_seconds(cluster: Cluster, tokens: int = 1) -> float:
    """Seconds of one pass on one host that could hold everything: what takes longer, reading or computing.

    max(weight_bytes / bandwidth, 2 weights tokens / flops); a prompt takes a pass for every CHUNK of its tokens.
    """
    model, host = cluster.model, cluster.host
    passes = math.ceil(tokens / CHUNK)
    return max(passes * model.weight_bytes / host.bandwidth, 2 * model.weights * tokens / host.flops)


def seconds(
    cluster: Cluster, hosts: int, way: Parallelism, tokens: int = 1, algorithm: Algorithm | None = None
) -> float:
    """Seconds of one token behind the others, or of a prompt of `tokens`, with one user.

    work is `work_seconds`, chunk the bytes of a chunk's activations, n the hosts.
    tensor: alone + work / n + 2 layers all-reduces of a chunk, for each chunk; algorithm: the quickest if None.
    layer: alone + (chunks + n - 1) (work / n / chunks + message): hosts work at a time only on different chunks, and a
    single token is one chunk.
    RPC: alone + work + 2 n messages for each chunk: to each server and back to the client, one after the other.
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
    """Tokens a second by number of hosts: generated ones for tokens=1, else of a prompt of so many."""
    return {count: tokens / seconds(cluster, count, way, tokens) for count in counts}


def fewest_hosts(cluster: Cluster) -> int:
    """How many hosts it takes to hold the weights at all."""
    return max(1, math.ceil(cluster.model.weight_bytes / cluster.host.memory))


def fastest_hosts(cluster: Cluster, way: Parallelism, tokens: int = 1, most: int = MOST_HOSTS) -> int:
    """The number of hosts with the most tokens a second; the smallest such number."""
    found = speeds(cluster, range(1, most + 1), way, tokens)
    return max(found, key=lambda count: found[count])


def worthwhile_hosts(
    cluster: Cluster, way: Parallelism, tokens: int = 1, gain: float = 1.1, most: int = MOST_HOSTS
) -> int:
    """How many hosts are worth it: as many as are needed to hold the weights, and on while one more gives `gain`."""
    hosts = fewest_hosts(cluster)
    while hosts < most and seconds(cluster, hosts, way, tokens) / seconds(cluster, hosts + 1, way, tokens) >= gain:
        hosts += 1
    return hosts


def second_host_speed_up(cluster: Cluster, way: Parallelism, tokens: int = 1) -> float:
    """How many times faster two hosts are than one, were its memory large enough."""
    return seconds(cluster, 1, way, tokens) / seconds(cluster, 2, way, tokens)


def fit_link(points: Mapping[int, float]) -> Link:
    """The latency and bandwidth that explain measured messages best: bytes and seconds, relative errors squared.

    Raises ValueError with fewer than two sizes.
    """
    if len(points) < 2:
        raise ValueError(f"{len(points)} sizes; a line has two unknowns")
    sizes = np.array(list(points), float)
    latency, per_byte = _fit(np.stack([np.ones_like(sizes), sizes], axis=1), np.array(list(points.values())))
    return Link(latency, 1 / per_byte if per_byte > 0 else math.inf)


@dataclass(frozen=True)
class Scaling:
    """Amdahl's law with a price of meeting: what is done alone, what is shared, and what each collective takes.

    seconds(n) = alone + shared / n + collectives (n - 1) round: an all-gather takes n - 1 rounds.
    """

    serial: float
    parallel: float
    round: float
    collectives: int

    def seconds(self, hosts: int) -> float:
        """Seconds of a token on so many hosts."""
        return self.serial + self.parallel / hosts + self.collectives * (hosts - 1) * self.round

    def speed_up(self, hosts: int) -> float:
        """How many times faster than one host."""
        return self.seconds(1) / self.seconds(hosts)

    def amdahl(self, hosts: int) -> float:
        """The same if meeting cost nothing."""
        return replace(self, round=0.0).speed_up(hosts)


def fit_scaling(points: Mapping[int, float], collectives: int, round: float | None = None) -> Scaling:
    """The law that explains measured seconds a token by number of hosts best, none of its parts negative.

    round: the least that a round takes, if measured on its own; without it three points are needed, else two. What
    neither work that is done alone nor work that is shared can explain is waiting, and makes the rounds longer.
    Raises ValueError for fewer points.
    """
    needed = 3 if round is None else 2
    if len(points) < needed:
        raise ValueError(f"{len(points)} measured points; {needed} are needed")
    hosts, taken = np.array(list(points), float), np.array(list(points.values()), float)
    meetings, least = collectives * (hosts - 1), round or 0.0
    columns = np.stack([1 / hosts, np.ones_like(hosts), meetings], axis=1)
    parallel, serial, more = _fit(columns, taken - meetings * least, scale=taken)
    return Scaling(serial, parallel, least + more, collectives)


def _fit(columns: np.ndarray, wanted: np.ndarray, scale: np.ndarray | None = None) -> list[float]:
    """Coefficients of zero or more, for few columns: the best of all choices of columns that may be other than zero."""
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
    """One measured point and what the simulation says of it, in seconds."""

    hosts: int
    measured: float
    said: float

    @property
    def error_factor(self) -> float:
        """By what factor they differ, 1 or more."""
        return max(self.measured / self.said, self.said / self.measured)


def compare_with_measured(
    cluster: Cluster, way: Parallelism, points: Mapping[int, float], tokens: int = 1
) -> tuple[ComparedPoint, ...]:
    """Measured seconds by number of hosts, each with what the simulation says."""
    return tuple(ComparedPoint(hosts, taken, seconds(cluster, hosts, way, tokens)) for hosts, taken in points.items())


# The worked example. Sizes by the published shape of Llama 3.1 70B and llama.cpp's Q4_K_M of it (42.5 GB, of which the
# embedding's 0.6 GB are not read); links by their names, with what is left of them in practice: round-trip times
# between two machines at one switch, halved, and the bytes that TCP gets through.
LLAMA_70B = Model("Llama 3.1 70B Q4_K_M", 41.9e9, 69.5e9, 80, 8192)
HOME = Host(bandwidth=60e9, flops=0.8e12, memory=28e9)  # two channels of DDR5, 8 cores, 32 GB
LINKS = {
    "Wi-Fi": Link(2e-3, 60e6),
    "1 GbE": Link(0.2e-3, 117e6),
    "2.5 GbE": Link(0.15e-3, 290e6),
    "10 GbE": Link(0.05e-3, 1.15e9),
}
