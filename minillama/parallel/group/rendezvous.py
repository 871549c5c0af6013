"""Where the processes of a group meet and which cores each takes, from what the workers say of themselves."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from minillama.errors import OptionError
from minillama.parallel.workers.addresses import Address, format_address
from minillama.parallel.workers.identity import Identity
from minillama.parallel.workers.secret import is_loopback
from minillama.parallel.workers.wire import Message


@dataclass(frozen=True)
class ProcessConfig:
    """One process of the group: its number, the coordinator's address, its own towards the others, and its cores.

    skip_cores: cores of its machine that workers before it take.
    """

    index: int
    count: int
    coordinator: str
    host: str
    threads: int
    skip_cores: int
    platform: str

    def message(self) -> Message:
        return Message("join", asdict(self))


@dataclass(frozen=True)
class ReachedWorker:
    """A worker as the leader has reached it: under which address of the worker, from which of its own."""

    address: Address
    identity: Identity
    peer: str
    local: str


def assign_processes(
    workers: Sequence[ReachedWorker], leader: Identity, *, threads: int = 0, platform: str = ""
) -> tuple[ProcessConfig, ...]:
    """Places in the order of the workers; the first hosts the coordinator.

    threads, platform: for workers that were started without; 0 shares a machine's cores out evenly.
    Raises OptionError where a worker is reached in a way that the others cannot go, such as a tunnel.
    """
    hosts = _hosts(workers, leader)
    coordinator = format_address(hosts[0], workers[0].identity.port)
    taken: dict[str, int] = {}
    places = []
    for index, (worker, host) in enumerate(zip(workers, hosts, strict=True)):
        identity = worker.identity
        neighbours = sum(other.identity.machine == identity.machine for other in workers)
        own = identity.threads or threads or max(1, identity.cores // neighbours)
        skip = taken.get(identity.machine, 0)
        taken[identity.machine] = skip + own
        places.append(
            ProcessConfig(index, len(workers), coordinator, host, own, skip, identity.platform or platform)
        )  # fmt: skip
    return tuple(places)


def _hosts(workers: Sequence[ReachedWorker], leader: Identity) -> list[str]:
    """Under which address each process is met by the others."""
    if len({worker.identity.network for worker in workers}) == 1:
        return ["127.0.0.1"] * len(workers)
    ours = next((worker.local for worker in workers if not is_loopback(worker.local)), None)
    hosts = []
    for worker in workers:
        if not is_loopback(worker.peer):
            hosts.append(worker.peer)
        elif worker.identity.network == leader.network and ours is not None:
            hosts.append(ours)  # a worker beside the leader is met where the leader comes from
        else:
            raise OptionError(
                f"worker {worker.address} is reached over loopback, where workers on other machines cannot find "
                "it; name the address that it has in their network"
            )
    return hosts
