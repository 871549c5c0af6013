"""Mutual authentication of leader and worker by a shared secret that is never sent.

The worker sends a nonce. The leader answers with its own nonce and a proof, and the worker replies with its proof. A
proof is HMAC-SHA256 over the role and both nonces, which defeats replay and reflection (ISO/IEC 9798-4, three-pass
mutual authentication). Later messages are neither encrypted nor signed.
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
MIN_LENGTH = 8  # characters of a secret
_FILE_LIMIT = 4096
_NONCE = 32
_LIMITS = {"head_limit": 4096, "arrays_limit": 0}  # bytes read from an unauthenticated peer
_HINT = "give both sides the same one with --token-file or MINILLAMA_TOKEN"


def read_secret(file: Path | None, text: str | None) -> bytes | None:
    """Read the shared secret from a file or from text; None if there is neither.

    Raises OptionError for a secret that is too short and for a world-readable file, ResourceError for a missing file.
    """
    if file is not None:
        try:
            with file.open("rb") as opened:
                mode, found = stat.S_IMODE(file.stat().st_mode), opened.read(_FILE_LIMIT + 1)
        except OSError as error:
            raise ResourceError(f"cannot read the token file {file}: {error.strerror}") from error
        if mode & stat.S_IROTH:
            raise OptionError(f"the token file {file} is readable by all users; run: chmod 600 {file}")
        secret, where = found.strip(), f"token file {file}"
    elif text is not None:
        secret, where = text.strip().encode(), "the token"
    else:
        return None
    if not MIN_LENGTH <= len(secret) <= _FILE_LIMIT:
        raise OptionError(
            f"{where} holds {len(secret)} characters, not {MIN_LENGTH} to {_FILE_LIMIT}; make one with: "
            "(umask 77; openssl rand -hex 32 > token)"
        )
    return secret


def is_loopback(host: str) -> bool:
    """Return True for localhost and loopback addresses, which other machines cannot reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


def verify_leader(connection: Connection, secret: bytes | None, timeout: float) -> None:
    """Verify on the worker that the leader has the secret; prove it in return.

    secret: None accepts every leader.
    Raises ResourceError after refusing a leader without the secret, FormatError if the peer is another program.
    """
    nonce = secrets.token_hex(_NONCE)
    connection.send(Message("challenge", {"protocol": PROTOCOL, "nonce": nonce, "secret": secret is not None}))
    answer = _expect(connection, "answer", timeout)
    if answer.values.get("protocol") != PROTOCOL:
        refuse(connection, f"the worker uses protocol {PROTOCOL}, the leader {answer.values.get('protocol')!r:.20}")
    theirs = str(answer.values.get("nonce"))
    if secret is not None and not _matches(answer, secret, "leader", nonce, theirs):
        refuse(connection, f"the secrets of leader and worker differ; {_HINT}")
    connection.send(Message("welcome", {"proof": _proof(secret, "worker", nonce, theirs)}))


def verify_worker(connection: Connection, secret: bytes | None, timeout: float, *, loopback: bool) -> None:
    """Verify on the leader that the worker has the secret: the other side of `verify_leader`.

    loopback: True if the worker is reached over loopback, where both sides may have no secret.
    Raises ResourceError if the worker lacks the secret or refuses, FormatError if the peer is another program.
    """
    challenge = _expect(connection, "challenge", timeout)
    if challenge.values.get("protocol") != PROTOCOL:
        theirs = f"{challenge.values.get('protocol')!r:.20}"
        raise ResourceError(
            f"{connection.name} uses protocol {theirs}, the leader {PROTOCOL}; install the same version of minillama"
        )
    if challenge.values.get("secret") and secret is None:
        raise ResourceError(f"{connection.name} requires a secret; {_HINT}")
    theirs, nonce = str(challenge.values.get("nonce")), secrets.token_hex(_NONCE)
    answer = {"protocol": PROTOCOL, "nonce": nonce, "proof": _proof(secret, "leader", theirs, nonce)}
    connection.send(Message("answer", answer))
    welcome = _expect(connection, "welcome", timeout)
    needed = secret is not None and (challenge.values.get("secret") or not loopback)
    if needed and not _matches(welcome, secret or b"", "worker", theirs, nonce):
        raise ResourceError(f"{connection.name} does not have the leader's secret; {_HINT}")


def refuse(connection: Connection, reason: str) -> None:
    """Send the reason for a refusal to the peer, and raise it as a ResourceError."""
    connection.send(Message("refused", {"reason": reason}))
    raise ResourceError(f"{connection.name} was refused: {reason}")


def _expect(connection: Connection, op: str, timeout: float) -> Message:
    message = connection.receive(timeout, **_LIMITS)
    if message.op == "refused":
        raise ResourceError(f"{connection.name}: {message.values.get('reason')!s:.300}")
    if message.op != op:
        raise FormatError(f"{connection.name} has sent {message.op[:20]!r}, expected {op!r}")
    return message


def _matches(message: Message, secret: bytes, role: str, worker_nonce: str, leader_nonce: str) -> bool:
    expected = _proof(secret, role, worker_nonce, leader_nonce)
    return hmac.compare_digest(expected.encode(), str(message.values.get("proof")).encode())


def _proof(secret: bytes | None, role: str, worker_nonce: str, leader_nonce: str) -> str:
    if secret is None:
        return ""
    signed = "\0".join(("minillama", str(PROTOCOL), role, worker_nonce, leader_nonce))
    return hmac.new(secret, signed.encode(errors="replace"), hashlib.sha256).hexdigest()
