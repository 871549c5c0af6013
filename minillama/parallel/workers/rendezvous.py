"""Addresses and CPU cores of the processes of a worker group."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from minillama.errors import OptionError
from minillama.parallel.workers.addresses import Address, format_address
from minillama.parallel.workers.identity import Identity
from minillama.parallel.workers.secret import is_loopback
from minillama.parallel.workers.wire import Message


@dataclass(frozen=True)
class ProcessConfig:
    """Configuration of one process of a group.

    index: number of the process; 0 hosts the coordinator. count: processes in the group.
    coordinator: `host:port` of process 0. host: address at which the other processes reach this one.
    threads: cores that it uses. skip_cores: cores of its machine that earlier workers use.
    silence: seconds without a sign of life until the leader counts it as lost; 0 for no limit.
    """

    index: int
    count: int
    coordinator: str
    host: str
    threads: int
    skip_cores: int
    platform: str
    silence: float = 0.0

    def message(self) -> Message:
        return Message("join", asdict(self))


@dataclass(frozen=True)
class ReachedWorker:
    """A worker that the leader has connected to.

    peer: address of the worker on this connection. local: address of the leader on it.
    """

    address: Address
    identity: Identity
    peer: str
    local: str


def assign_processes(
    workers: Sequence[ReachedWorker],
    leader: Identity,
    *,
    threads: int = 0,
    platform: str = "",
    silence: float = 0.0,
) -> tuple[ProcessConfig, ...]:
    """Configure one process per worker, in their order; the first hosts the coordinator.

    threads, platform: defaults for workers that set none; with 0 threads the workers of a machine share its cores
    evenly.
    Raises OptionError if the other workers cannot reach a worker the way the leader does, such as through a tunnel.
    """
    hosts = _hosts(workers, leader)
    coordinator = format_address(hosts[0], workers[0].identity.port)
    taken: dict[str, int] = {}
    places = []
    for index, (worker, host) in enumerate(zip(workers, hosts, strict=True)):
        identity = worker.identity
        on_machine = sum(other.identity.machine == identity.machine for other in workers)
        own = identity.threads or threads or max(1, identity.cores // on_machine)
        skip = taken.get(identity.machine, 0)
        taken[identity.machine] = skip + own
        places.append(
            ProcessConfig(index, len(workers), coordinator, host, own, skip, identity.platform or platform, silence)
        )  # fmt: skip
    return tuple(places)


def _hosts(workers: Sequence[ReachedWorker], leader: Identity) -> list[str]:
    """Address of each process, as the other processes reach it."""
    if len({worker.identity.network for worker in workers}) == 1:
        return ["127.0.0.1"] * len(workers)
    ours = next((worker.local for worker in workers if not is_loopback(worker.local)), None)
    hosts = []
    for worker in workers:
        if not is_loopback(worker.peer):
            hosts.append(worker.peer)
        elif worker.identity.network == leader.network and ours is not None:
            hosts.append(ours)  # on the leader's machine: the address of the leader's other connections
        else:
            raise OptionError(
                f"worker {worker.address} is reached over loopback, where workers on other machines cannot "
                "connect to it; give its address in their network"
            )
    return hosts
