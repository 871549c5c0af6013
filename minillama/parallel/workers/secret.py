"""Who may lead a worker: both sides prove that they know the same secret, which itself never travels.

The worker sends a random number, the leader answers with its own and a proof, the worker with its proof: HMAC-SHA256
over the role and both numbers, so that neither a recorded nor a reflected proof is of use (ISO/IEC 9798-4, mutual
authentication in three passes). What follows is neither encrypted nor signed.
"""

import hashlib
import hmac
import ipaddress
import secrets
import stat
from pathlib import Path

from minillama.errors import FormatError, OptionError, ResourceError
from minillama.parallel.workers.wire import Connection, Message

PROTOCOL = 1
SHORTEST = 8  # characters of a secret
_FILE_LIMIT = 4096
_NONCE = 32
_LIMITS = {"head_limit": 4096, "arrays_limit": 0}  # nothing larger is read from a stranger
_HINT = "give both sides the same one with --token-file or MINILLAMA_TOKEN"


def read_secret(file: Path | None, text: str | None) -> bytes | None:
    """The shared secret from a file, or as given; None where there is neither.

    Raises OptionError for an empty or short one, or a file that everybody may read; ResourceError for a missing file.
    """
    if file is not None:
        try:
            with file.open("rb") as opened:
                mode, found = stat.S_IMODE(file.stat().st_mode), opened.read(_FILE_LIMIT + 1)
        except OSError as error:
            raise ResourceError(f"cannot read the token file {file}: {error.strerror}") from error
        if mode & stat.S_IROTH:
            raise OptionError(f"everybody on this machine may read the token file {file}; run: chmod 600 {file}")
        secret, where = found.strip(), f"token file {file}"
    elif text is not None:
        secret, where = text.strip().encode(), "the token"
    else:
        return None
    if not SHORTEST <= len(secret) <= _FILE_LIMIT:
        raise OptionError(
            f"{where} holds {len(secret)} characters, not {SHORTEST} to {_FILE_LIMIT}; make one with: "
            "(umask 77; openssl rand -hex 32 > token)"
        )
    return secret


def is_loopback(host: str) -> bool:
    """Whether an address, or the name localhost, can only be reached from the same machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


def verify_leader(connection: Connection, secret: bytes | None, timeout: float) -> None:
    """The worker's side: let the leader prove that it knows the secret, and prove it to the leader.

    Raises ResourceError where the leader does not know it (the leader is told), FormatError for a stranger.
    """
    nonce = secrets.token_hex(_NONCE)
    connection.send(Message("challenge", {"protocol": PROTOCOL, "nonce": nonce, "secret": secret is not None}))
    answer = _expect(connection, "answer", timeout)
    if answer.values.get("protocol") != PROTOCOL:
        refuse(connection, f"the worker speaks protocol {PROTOCOL}, the leader {answer.values.get('protocol')!r:.20}")
    theirs = str(answer.values.get("nonce"))
    if secret is not None and not _matches(answer, secret, "leader", nonce, theirs):
        refuse(connection, f"the leader's secret is not the worker's; {_HINT}")
    connection.send(Message("welcome", {"proof": _proof(secret, "worker", nonce, theirs)}))


def verify_worker(connection: Connection, secret: bytes | None, timeout: float, *, loopback: bool) -> None:
    """The leader's side of `verify_leader`.

    loopback: whether the worker is reached over loopback, where the secret may be absent on both sides.
    Raises ResourceError where the worker does not know the secret or refuses, FormatError for another program.
    """
    challenge = _expect(connection, "challenge", timeout)
    if challenge.values.get("protocol") != PROTOCOL:
        theirs = f"{challenge.values.get('protocol')!r:.20}"
        raise ResourceError(
            f"{connection.name} speaks protocol {theirs}, the leader {PROTOCOL}; install the same minillama"
        )
    if challenge.values.get("secret") and secret is None:
        raise ResourceError(f"{connection.name} asks for its secret; {_HINT}")
    theirs, nonce = str(challenge.values.get("nonce")), secrets.token_hex(_NONCE)
    answer = {"protocol": PROTOCOL, "nonce": nonce, "proof": _proof(secret, "leader", theirs, nonce)}
    connection.send(Message("answer", answer))
    welcome = _expect(connection, "welcome", timeout)
    needed = secret is not None and (challenge.values.get("secret") or not loopback)
    if needed and not _matches(welcome, secret or b"", "worker", theirs, nonce):
        raise ResourceError(f"{connection.name} does not know the leader's secret; {_HINT}")


def refuse(connection: Connection, reason: str) -> None:
    """Tell the other side why, and raise the same as a ResourceError."""
    connection.send(Message("refused", {"reason": reason}))
    raise ResourceError(f"{connection.name} was refused: {reason}")


def _expect(connection: Connection, op: str, timeout: float) -> Message:
    message = connection.receive(timeout, **_LIMITS)
    if message.op == "refused":
        raise ResourceError(f"{connection.name}: {message.values.get('reason')!s:.300}")
    if message.op != op:
        raise FormatError(f"{connection.name} says {message.op[:20]!r} where {op!r} is due")
    return message


def _matches(message: Message, secret: bytes, role: str, worker_nonce: str, leader_nonce: str) -> bool:
    expected = _proof(secret, role, worker_nonce, leader_nonce)
    return hmac.compare_digest(expected.encode(), str(message.values.get("proof")).encode())


def _proof(secret: bytes | None, role: str, worker_nonce: str, leader_nonce: str) -> str:
    if secret is None:
        return ""
    said = "\0".join(("minillama", str(PROTOCOL), role, worker_nonce, leader_nonce))
    return hmac.new(secret, said.encode(errors="replace"), hashlib.sha256).hexdigest()
