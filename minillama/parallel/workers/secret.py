"""Mutual authentication of leader and worker by a shared secret that is never sent.

The worker sends a nonce. The leader answers with its own nonce and a proof, and the worker replies with its proof. A
proof is HMAC-SHA256 over the role and both nonces, which defeats replay and reflection (ISO/IEC 9798-4, three-pass
mutual authentication). Later messages are neither encrypted nor signed.

Where none is given, the secret is the user's own: a file that the first start makes, and that only the user can read.
So on loopback a user's leader and workers need no option, and other users of the machine are refused.
"""

import hashlib
import hmac
import ipaddress
import os
import secrets
import stat
from pathlib import Path

from minillama import env
from minillama.atomic_file import atomic_write
from minillama.errors import FormatError, OptionError, ResourceError
from minillama.parallel.workers.wire import Connection, Message
from minillama.printable_text import printable_line
from minillama.private_files import ensure_private

PROTOCOL = 2
MIN_LENGTH = 8  # characters of a secret
_FILE_LIMIT = 4096
_NONCE = 32
_TEXT_LIMIT = 256  # characters of a nonce or a proof
GIVEN, OWN = "given", "own"  # the kinds of a worker's secret
_LIMITS = {"head_limit": 4096, "arrays_limit": 0}  # bytes read from an unauthenticated peer
_HINT = "give both sides the same one with --token-file or MINILLAMA_TOKEN"
_DIFFER = {
    GIVEN: f"the secrets of leader and worker differ; {_HINT}",
    OWN: f"leader and worker belong to different users or machines, and have no common secret; {_HINT}",
}


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


def own_secret() -> bytes:
    """This user's own secret; the first call makes its file, and every call reads it.

    Raises ResourceError where the file cannot be made or read, OptionError where another user could read or change it.
    """
    file = env.own_secret_file()
    try:
        ensure_private(file.parent)
        if not file.exists():
            _make_own(file)
        found = _read_own(file)
    except (OSError, ResourceError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ResourceError(f"no secret of your own for workers, {file}: {reason}; {_HINT}") from error
    if len(found) < MIN_LENGTH:
        raise ResourceError(f"{file} holds no secret; delete it, and start leader and workers again")
    return found


def _make_own(file: Path) -> None:
    """Write a new secret; of several starts at once, one does."""
    import fcntl  # not on Windows

    folder = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not file.exists():
            with atomic_write(file, 0o600) as new:
                new.write(secrets.token_hex(_NONCE).encode())
    finally:
        os.close(folder)


def _read_own(file: Path) -> bytes:
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise OptionError(
                f"{file} must be a file of your own that no other user can read; delete it, and start leader and "
                "workers again"
            )
        return opened.read(_FILE_LIMIT).strip()


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

    secret: None for the user's own.
    Raises ResourceError after refusing a leader without the secret, FormatError if the peer is another program.
    """
    nonce, kind = secrets.token_hex(_NONCE), OWN if secret is None else GIVEN
    key = own_secret() if secret is None else secret
    connection.send(Message("challenge", {"protocol": PROTOCOL, "nonce": nonce, "secret": kind}))
    answer = _expect(connection, "answer", timeout)
    if answer.values.get("protocol") != PROTOCOL:
        refuse(connection, f"the worker uses protocol {PROTOCOL}, the leader {answer.values.get('protocol')!r:.20}")
    theirs = _text(answer, "nonce")
    if not _matches(answer, key, "leader", nonce, theirs):
        refuse(connection, _DIFFER[kind])
    connection.send(Message("welcome", {"proof": _proof(key, "worker", nonce, theirs)}))


def verify_worker(connection: Connection, secret: bytes | None, timeout: float, *, loopback: bool) -> None:
    """Verify on the leader that the worker has the secret: the other side of `verify_leader`.

    loopback: True if the worker is reached over loopback, where both sides may use the user's own secret.
    Raises ResourceError if the worker lacks the secret or refuses, FormatError if the peer is another program.
    """
    challenge = _expect(connection, "challenge", timeout)
    if challenge.values.get("protocol") != PROTOCOL:
        theirs = f"{challenge.values.get('protocol')!r:.20}"
        raise ResourceError(
            f"{connection.name} uses protocol {theirs}, the leader {PROTOCOL}; install the same version of minillama"
        )
    is_own = loopback and challenge.values.get("secret") == OWN
    key = own_secret() if is_own else secret
    if key is None:
        raise ResourceError(f"{connection.name} requires a secret; {_HINT}")
    theirs, nonce = _text(challenge, "nonce"), secrets.token_hex(_NONCE)
    answer = {"protocol": PROTOCOL, "nonce": nonce, "proof": _proof(key, "leader", theirs, nonce)}
    connection.send(Message("answer", answer))
    welcome = _expect(connection, "welcome", timeout)
    if not _matches(welcome, key, "worker", theirs, nonce):
        raise ResourceError(f"{connection.name} does not have the leader's secret; {_HINT}")


def refuse(connection: Connection, reason: str) -> None:
    """Send the reason for a refusal to the peer, and raise it as a ResourceError."""
    connection.send(Message("refused", {"reason": reason}))
    raise ResourceError(f"{connection.name} was refused: {reason}")


def _expect(connection: Connection, op: str, timeout: float) -> Message:
    message = connection.receive(timeout, **_LIMITS)
    if message.op == "refused":
        raise ResourceError(f"{connection.name}: {printable_line(str(message.values.get('reason')), 300)}")
    if message.op != op:
        raise FormatError(f"{connection.name} has sent {message.op[:20]!r}, expected {op!r}")
    return message


def _text(message: Message, name: str) -> str:
    """A short ASCII text of a message; empty for anything else, such as surrogates."""
    value = message.values.get(name)
    return value if isinstance(value, str) and value.isascii() and len(value) <= _TEXT_LIMIT else ""


def _matches(message: Message, secret: bytes, role: str, worker_nonce: str, leader_nonce: str) -> bool:
    return hmac.compare_digest(_proof(secret, role, worker_nonce, leader_nonce), _text(message, "proof"))


def _proof(secret: bytes, role: str, worker_nonce: str, leader_nonce: str) -> str:
    signed = "\0".join(("minillama", str(PROTOCOL), role, worker_nonce, leader_nonce))
    return hmac.new(secret, signed.encode(), hashlib.sha256).hexdigest()
