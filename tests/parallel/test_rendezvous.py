"""Addresses, and the configuration of the processes of a group."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.errors import FormatError, OptionError
from minillama.parallel.workers.addresses import Address, parse_addresses
from minillama.parallel.workers.identity import Identity, local_identity, parse_identity
from minillama.parallel.workers.rendezvous import ReachedWorker, assign_processes
from minillama.parallel.workers.wire import Message

HERE = Identity("1", "2", "3.11", "here", "here", cores=8, port=7000)
THERE = replace(HERE, machine="there", network="there", cores=4, port=7001)


def reached(identity: Identity, peer: str, local: str = "10.0.0.1") -> ReachedWorker:
    return ReachedWorker(Address(peer, 50052), identity, peer, local)


def test_addresses() -> None:
    assert parse_addresses("10.0.0.2:1, node3,[fd00::2]:70,::1") == (
        Address("10.0.0.2", 1),
        Address("node3", 50052),
        Address("fd00::2", 70),
        Address("::1", 50052),
    )
    assert str(Address("fd00::2", 70)) == "[fd00::2]:70"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "should be host:port"),
        ("a:", "should be host:port"),
        (":1", "should be host:port"),
        ("a:0", "should be host:port"),
        ("a:65536", "should be host:port"),
        ("a b", "should be host:port"),
        ("a:²", "should be host:port"),
        ("[::1", "should be host:port"),
        ("[::1]70", "should be host:port"),
        ("a,b,a:50052", "worker a:50052 is given twice"),
        (",".join(f"a:{port}" for port in range(1, 18)), "17 workers are given; at most 16"),
    ],
)
def test_wrong_addresses(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_addresses(text)


@given(st.text(max_size=20))
def test_any_text(text: str) -> None:
    try:
        found = parse_addresses(text)
    except OptionError:
        return
    assert parse_addresses(",".join(map(str, found))) == found


def test_one_machine_uses_loopback_and_distinct_cores() -> None:
    places = assign_processes(
        [reached(HERE, "127.0.0.1"), reached(replace(HERE, threads=2), "127.0.0.1")], HERE, threads=1
    )
    assert [place.coordinator for place in places] == ["127.0.0.1:7000"] * 2
    assert [(place.index, place.count, place.threads, place.skip_cores) for place in places] == [
        (0, 2, 1, 0),
        (1, 2, 2, 1),
    ]


def test_cores_are_shared_evenly_by_default() -> None:
    places = assign_processes([reached(HERE, "10.0.0.2"), reached(THERE, "10.0.0.3"), reached(HERE, "10.0.0.2")], THERE)
    assert [(place.threads, place.skip_cores) for place in places] == [(4, 0), (4, 0), (4, 4)]


def test_worker_on_the_leaders_machine() -> None:
    places = assign_processes([reached(HERE, "127.0.0.1", "127.0.0.1"), reached(THERE, "10.0.0.3")], HERE)
    assert [(place.host, place.coordinator) for place in places] == [
        ("10.0.0.1", "10.0.0.1:7000"),
        ("10.0.0.3", "10.0.0.1:7000"),
    ]


def test_tunnel() -> None:
    assert assign_processes([reached(THERE, "127.0.0.1", "127.0.0.1")], HERE)[0].host == "127.0.0.1"
    with pytest.raises(
        OptionError, match=r"worker 127\.0\.0\.1:50052 is reached over loopback, where workers on other"
    ):
        assign_processes([reached(THERE, "127.0.0.1", "127.0.0.1"), reached(HERE, "10.0.0.3")], HERE)


def test_worker_options_take_precedence() -> None:
    ours, theirs = assign_processes(
        [reached(HERE, "127.0.0.1"), reached(replace(HERE, platform="cpu"), "127.0.0.1")], HERE, platform="cuda"
    )
    assert (ours.platform, theirs.platform) == ("cuda", "cpu")


def test_identity_round_trip() -> None:
    ours = local_identity(threads=3, platform="cpu", port=5)
    assert parse_identity(ours.message(), "x") == ours
    assert ours.cores >= 1 and ours.network.startswith(ours.machine) and "jax" in ours.versions
    values = dict(ours.message().values)
    for wrong in (
        {},
        values | {"cores": "8"},
        values | {"jax": None},
        values | {"more": 1},
        values | {"jax": "x" * 999},
    ):
        with pytest.raises(FormatError, match=r"^x "):
            parse_identity(Message("hello", wrong), "x")
    with pytest.raises(FormatError):
        parse_identity(Message("goodbye", values), "x")
