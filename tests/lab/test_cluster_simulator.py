"""The cluster simulator's formulas, limits and fits, against single messages."""

import math

import numpy as np
import pytest

from minillama.lab.distributed import cluster_simulator
from minillama.lab.distributed.cluster_simulator import (
    HOME,
    LINKS,
    LLAMA_70B,
    Algorithm,
    Cluster,
    Host,
    Link,
    Model,
    Parallelism,
    Scaling,
)

LINK = Link(1e-3, 1e6)
TOY = Cluster(Model("toy", 1e9, 1e9, 4, 250), Host(1e10, 1e12, 1e9), LINK)


def played(link: Link, size: float, hosts: int, algorithm: Algorithm) -> float:
    """Seconds of rounds of messages; a host sends its messages of a round in sequence."""
    if algorithm is Algorithm.RING:
        messages = [[size / hosts]] * (2 * (hosts - 1))
    elif algorithm is Algorithm.TREE:
        messages, left = [], hosts
        while left > 1:
            left = -(-left // 2)
            messages += [[size], [size]]
    elif algorithm is Algorithm.EXCHANGE:
        messages = [[size] * (hosts - 1)]
    else:
        messages = [[size]] * (hosts - 1)
    return sum(link.latency + sum(sent) / link.bandwidth for sent in messages)


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("hosts", [2, 3, 4, 7, 8, 64, 256])
def test_all_reduce_by_rounds(algorithm: Algorithm, hosts: int) -> None:
    for size in (0, 1000, 10**7):
        said = cluster_simulator.all_reduce_seconds(LINK, size, hosts, algorithm)
        assert said == pytest.approx(played(LINK, size, hosts, algorithm))
    assert cluster_simulator.all_reduce_seconds(LINK, 1000, 1, algorithm) == 0


def test_each_algorithm_has_its_place() -> None:
    assert cluster_simulator.fastest_algorithm(LINK, 100, 2) is Algorithm.EXCHANGE
    assert cluster_simulator.fastest_algorithm(LINK, 10**7, 8) is Algorithm.RING
    assert cluster_simulator.fastest_algorithm(LINK, 1000, 256) is Algorithm.TREE


def pipelined(stages: int, chunks: int, work: float, message: float) -> float:
    """A pipeline simulated step by step.

    A chunk starts when it has arrived and its host is free; the host also sends it on."""
    free = [0.0] * stages
    for _ in range(chunks):
        there = 0.0
        for stage in range(stages):
            done = max(there, free[stage]) + work
            free[stage] = done + (message if stage < stages - 1 else 0.0)
            there = done + message
    return free[-1]


@pytest.mark.parametrize(("hosts", "chunks"), [(2, 1), (4, 1), (2, 4), (4, 8)])
def test_layer_parallel_is_a_pipeline(hosts: int, chunks: int) -> None:
    tokens = chunks * cluster_simulator.CHUNK
    work = cluster_simulator.work_seconds(TOY, tokens)
    message = LINK.seconds(4 * 250 * cluster_simulator.CHUNK)
    said = cluster_simulator.seconds(TOY, hosts, Parallelism.LAYER, tokens)
    assert said == pytest.approx(pipelined(hosts, chunks, work / hosts / chunks, message), rel=0.01)


def test_a_token_by_hand() -> None:
    """0.1 s of reads; 4 layers of 2 all-reduces of 1000 bytes."""
    assert cluster_simulator.seconds(TOY, 1, Parallelism.TENSOR) == pytest.approx(0.1)
    assert cluster_simulator.seconds(TOY, 2, Parallelism.TENSOR) == pytest.approx(0.05 + 8 * 0.002)
    assert cluster_simulator.seconds(TOY, 2, Parallelism.TENSOR, algorithm=Algorithm.RING) == pytest.approx(
        0.05 + 8 * 2 * 0.0015
    )
    assert cluster_simulator.seconds(TOY, 2, Parallelism.LAYER) == pytest.approx(0.1 + 0.002)
    assert cluster_simulator.seconds(TOY, 2, Parallelism.RPC) == pytest.approx(0.1 + 4 * 0.002)
    assert cluster_simulator.second_host_speed_up(TOY, Parallelism.TENSOR) == pytest.approx(0.1 / 0.066)


def test_handing_on_never_makes_a_token_faster() -> None:
    for link in LINKS.values():
        home = Cluster(LLAMA_70B, HOME, link)
        for way in (Parallelism.LAYER, Parallelism.RPC):
            found = list(cluster_simulator.speeds(home, (1, 2, 4, 16, 256), way).values())
            assert found == sorted(found, reverse=True) and found[0] > found[-1]
            assert cluster_simulator.fastest_hosts(home, way) == 1
            assert cluster_simulator.worthwhile_hosts(home, way) == cluster_simulator.fewest_hosts(home) == 2, (
                "as many as hold it"
            )


def test_a_prompt_computes_and_a_pipeline_helps_it() -> None:
    home = Cluster(LLAMA_70B, HOME, LINKS["10 GbE"])
    assert cluster_simulator.work_seconds(home, 2048) == pytest.approx(2 * 69.5e9 * 2048 / 0.8e12)
    assert cluster_simulator.second_host_speed_up(home, Parallelism.LAYER, 2048) > 1.5
    assert cluster_simulator.second_host_speed_up(home, Parallelism.RPC, 2048) < 1


def test_70b_at_home() -> None:
    """The worked example for 1 GbE, calculated by hand.

    698 ms of reads; 160 exchanges of 32 KB at 0.2 ms and 117 MB/s."""
    home = Cluster(LLAMA_70B, HOME, LINKS["1 GbE"])
    assert cluster_simulator.seconds(home, 2, Parallelism.TENSOR) == pytest.approx(
        0.349 + 160 * (0.2e-3 + 32768 / 117e6), rel=0.01
    )
    gains = {
        name: cluster_simulator.second_host_speed_up(Cluster(LLAMA_70B, HOME, link), Parallelism.TENSOR)
        for name, link in LINKS.items()
    }
    assert list(gains.values()) == sorted(gains.values()) and gains["1 GbE"] > 1.5 and gains["10 GbE"] > 1.8
    useful = [
        cluster_simulator.worthwhile_hosts(Cluster(LLAMA_70B, HOME, link), Parallelism.TENSOR)
        for link in LINKS.values()
    ]
    assert useful == sorted(useful) and useful[0] == 2 < useful[-1] < 32
    fastest = cluster_simulator.fastest_hosts(home, Parallelism.TENSOR)
    assert cluster_simulator.seconds(home, fastest, Parallelism.TENSOR) <= min(
        cluster_simulator.seconds(home, count, Parallelism.TENSOR) for count in (2, 3, 4, 8, 16, 256)
    )


def test_link_is_found_again() -> None:
    sizes = (64, 4096, 65536, 1 << 20)
    found = cluster_simulator.fit_link({size: LINK.seconds(size) for size in sizes})
    assert (found.latency, found.bandwidth) == pytest.approx((1e-3, 1e6))
    noise = np.random.default_rng(9).uniform(0.9, 1.1, len(sizes))
    found = cluster_simulator.fit_link({size: LINK.seconds(size) * by for size, by in zip(sizes, noise, strict=True)})
    assert found.latency == pytest.approx(1e-3, rel=0.15) and found.bandwidth == pytest.approx(1e6, rel=0.15)
    assert cluster_simulator.fit_link({1: 1e-3, 10**6: 0.9e-3}).bandwidth == math.inf, "never a negative bandwidth"
    with pytest.raises(ValueError, match="two unknowns"):
        cluster_simulator.fit_link({1: 1.0})


def test_scaling_is_found_again() -> None:
    law = Scaling(0.01, 0.1, 1e-4, 32)
    points = {hosts: law.seconds(hosts) for hosts in (1, 2, 4, 8)}
    found = cluster_simulator.fit_scaling(points, 32)
    assert (found.serial, found.parallel, found.round) == pytest.approx((0.01, 0.1, 1e-4))
    two = cluster_simulator.fit_scaling({hosts: points[hosts] for hosts in (1, 2)}, 32, round=1e-4)
    assert (two.serial, two.parallel) == pytest.approx((0.01, 0.1))
    waiting = cluster_simulator.fit_scaling({1: 0.03, 2: 0.04}, 13, round=1e-4)
    assert (waiting.serial, waiting.parallel) == (0, pytest.approx(0.03))
    assert waiting.round == pytest.approx((0.04 - 0.03 / 2) / 13), "two are slower than one: they wait for each other"
    assert law.amdahl(10**9) == pytest.approx(11) and law.speed_up(2) < law.amdahl(2)
    better_than_linear = cluster_simulator.fit_scaling({1: 1.0, 2: 0.4, 4: 0.2}, 32)
    assert min(better_than_linear.serial, better_than_linear.round) >= 0
    with pytest.raises(ValueError, match="3 are needed"):
        cluster_simulator.fit_scaling({1: 1.0, 2: 0.6}, 32)
    with pytest.raises(ValueError, match="2 are needed"):
        cluster_simulator.fit_scaling({1: 1.0}, 32, round=0.1)


def test_measured_points_are_paired_with_simulated_ones() -> None:
    one, two = cluster_simulator.compare_with_measured(TOY, Parallelism.TENSOR, {1: 0.1, 2: 0.132})
    assert one.error_factor == pytest.approx(1) and (two.hosts, two.error_factor) == (2, pytest.approx(2))
    assert cluster_simulator.compare_with_measured(TOY, Parallelism.TENSOR, {2: 0.033})[
        0
    ].error_factor == pytest.approx(2)
