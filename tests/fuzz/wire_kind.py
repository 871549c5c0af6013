"""The wire protocol: damaged frames, hostile leaders, and calls with hostile numbers on a worker."""

import os
import random
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tiny_models import write_tiny

import minillama as ml
from minillama.engine.backends.remote_worker import RemoteWorker
from minillama.errors import FormatError, MinillamaError
from minillama.parallel.workers.model_transfer import receive_model
from minillama.parallel.workers.secret import verify_leader
from minillama.parallel.workers.wire import Connection, Message, encode
from tests.fuzz.byte_mutations import mutate_bytes
from tests.fuzz.case_kind import Finding, Kind
from tests.fuzz.wire_mutations import mutate_message
from tests.fuzz.wire_sessions import CAPACITY, SESSIONS

MODES = ("calls", "calls", "calls", "calls", "frame", "frame", "handshake", "transfer")
SECRET = b"0123456789abcdef"


@dataclass(frozen=True)
class Stream:
    """The bytes that one side sends, by message, and the part of the program that reads them."""

    mode: str
    frames: tuple[bytes, ...]


class WireKind(Kind[Stream]):
    """Messages to a worker of this process, over a socket."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        path = write_tiny(folder / "m.gguf", "llama")
        types = {"cache_type_k": "f32", "cache_type_v": "f32"}
        self._llm = ml.load(path, ctx_size=CAPACITY, progress=False, **types)
        self._models = folder / "models"
        for session in SESSIONS:
            self.run(Stream("calls", tuple(map(encode, session()))))  # compile

    def make(self, rng: random.Random) -> Stream:
        mode = rng.choice(MODES)
        messages = {"handshake": _handshake, "transfer": _transfer}.get(mode, rng.choice(SESSIONS))()
        if mode in ("handshake", "transfer") or rng.random() < 0.97:
            place = rng.randrange(len(messages))
            messages[place] = mutate_message(rng, messages[place])
        frames = [_encoded(rng, message) for message in messages]
        if mode == "frame" or rng.random() < 0.1:
            place = rng.randrange(len(frames))
            frames[place] = mutate_bytes(rng, frames[place], tuple(frames))
        return Stream(mode, tuple(frames))

    def run(self, given: Stream) -> str:
        neighbours = set(os.listdir(self.folder.parent))
        left, right = socket.socketpair()
        connection = Connection(right, "the leader")
        try:
            left.setblocking(False)
            left.send(b"".join(given.frames))
            left.shutdown(socket.SHUT_WR)
            self._read(given.mode, connection, len(given.frames))
        finally:
            connection.close()
            left.close()
            shutil.rmtree(self._models, ignore_errors=True)
            if set(os.listdir(self.folder.parent)) != neighbours:
                raise Finding("a file outside of the folder of models")
        return given.mode

    def files(self, given: Stream) -> dict[str, bytes]:
        return {f"{given.mode}-{number:02}.frame": frame for number, frame in enumerate(given.frames)}

    def _read(self, mode: str, connection: Connection, count: int) -> None:
        if mode == "handshake":
            verify_leader(connection, SECRET, 1.0)
            raise Finding("a leader without the secret is accepted")
        if mode == "transfer":
            message = connection.receive(1.0)
            if message.op != "model":
                raise FormatError("not an offer of a model")
            receive_model(connection, message, self._models)
            return
        worker = RemoteWorker(self._llm.backend, None)
        for _ in range(count):
            message = connection.receive(1.0)
            if mode == "calls":
                worker.obey(message)


def _encoded(rng: random.Random, message: Message) -> bytes:
    try:
        return encode(message)
    except (MinillamaError, ValueError, OverflowError):  # an array or a text that cannot be sent
        return encode(Message("sent", {"value": rng.randrange(9)}))


def _handshake() -> list[Message]:
    return [Message("answer", {"protocol": 1, "nonce": "ab" * 32, "proof": "cd" * 32})]


def _transfer() -> list[Message]:
    content = np.arange(40, dtype=np.uint8)
    offer = {"path": "/nowhere/m.gguf", "size": 40, "mark": "ab" * 16}
    return [
        Message("model", {"files": [offer, offer | {"path": "/nowhere/n.gguf"}]}),
        Message("model-part", {}, (content,)),
        Message("model-end", {"digest": "00"}),
    ]


KIND = WireKind
