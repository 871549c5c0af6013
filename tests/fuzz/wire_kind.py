"""The wire protocol: damaged frames, hostile leaders, and calls with hostile numbers on a worker."""

import os
import random
import shutil
import socket
from collections.abc import Sequence
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
from minillama.sampling.mersenne_twister import seed_words
from tests.fuzz.byte_mutations import mutate_bytes
from tests.fuzz.case_kind import Finding, Kind
from tests.fuzz.wire_mutations import mutate_message

CAPACITY, PADDED = 512, 32  # as in the tests of workers, so that both compile the same programs
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
        self.run(Stream("calls", tuple(map(encode, _session()))))  # compile

    def make(self, rng: random.Random) -> Stream:
        mode = rng.choice(MODES)
        messages = {"calls": _session, "frame": _session, "handshake": _handshake, "transfer": _transfer}[mode]()
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


def _row(numbers: Sequence[int]) -> np.ndarray:
    return np.array([numbers], np.int32)


def _session() -> list[Message]:
    """Every call of the worker's table, in an order that works."""
    new = {"types": ["f32", "f32"], "batch": 1}
    padded, seeds, window = _row(range(PADDED)), seed_words(1)[None], np.zeros((1, 64), np.int32)
    twelve = np.array([12], np.int32)

    def call(op: str, number: int, *args: object) -> Message:
        named = ["array" if isinstance(arg, np.ndarray) else arg for arg in args]
        return Message(op, {"number": number, "args": named}, tuple(arg for arg in args if isinstance(arg, np.ndarray)))

    return [
        Message("new_cache", {"number": 1, "capacity": CAPACITY, **new}),
        Message("new_cache", {"number": 2, "capacity": PADDED, **new}),
        Message("chain", {"number": 3, "sampling": {"logit_bias": [[5, 1.0], [7, None]], "temp": 0.0, "seed": 1}}),
        call("prefill", 4, 1, padded, twelve),  # logits 4, cache 5
        call("start", 7, 3, seeds, window, twelve),  # state 7
        call("generate", 8, 5, 3, 7, np.array([[5]], np.int32), None, None),  # draft 8, state 9, cache 10
        call("hidden", 11, 2, padded, None),  # states 11, cache 12
        call("logits", 13, 11),
        call("nll", 14, 11, _row(range(PADDED)), 0),
        call("truncate", 15, 10, np.array([4], np.int32)),
        call("gather_rows", 16, 15, np.array([0], np.int32)),
        call("resize", 17, 16, CAPACITY),
        Message("fetch", {"number": 18, "value": 13, "forget": [13, 14]}),
        Message("ready", {"number": 19, "value": 8}),
    ]


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
