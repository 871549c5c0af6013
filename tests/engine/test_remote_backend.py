"""A leader and those that follow it: the same numbers as in one process, and an orderly end whatever happens."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from tiny_models import write_tiny

import minillama as ml
from minillama.engine.backends.remote import RemoteBackend
from minillama.engine.backends.remote_worker import CALLS, RemoteWorker
from minillama.engine.result import Reason, State
from minillama.errors import FormatError, MinillamaError, OptionError, ResourceError
from minillama.measure.quality.multiple_choice import running_choices
from minillama.measure.quality.perplexity import running_perplexity
from minillama.measure.quality.task_files import Task
from minillama.parallel.workers.wire import Connection, Message
from minillama.parallel.workers.worker_group import WorkerGroup
from minillama.random_models.model_writer import write_random_model
from minillama.sampling.mersenne_twister import seed_words

ROOT = Path(__file__).resolve().parents[2]
EXACT = {"cache_type_k": "f32", "cache_type_v": "f32"}
PROMPT = [1, *range(20, 32), *range(20, 32)]
SAMPLERS = {
    "greedy": {"temp": 0.0},
    "plain": {"temp": 0.9, "seed": 1},
    "penalties": {"temp": 0.7, "seed": 2, "repeat_penalty": 1.2, "logit_bias": ((5, 2.0), (7, -float("inf")))},
    "dry": {"temp": 0.7, "seed": 3, "dry_multiplier": 0.8, "dry_allowed_length": 1},
    "mirostat": {"seed": 6, "mirostat": 2},
}


class Pair(WorkerGroup):
    """A group of one worker, which is a thread of this process."""

    def __init__(self, backend: object) -> None:
        left, right = socket.socketpair()
        super().__init__([Connection(left, "worker x")])
        self.other_side = Connection(right, "the leader")
        self.worker = RemoteWorker(backend, self.other_side)
        self.interrupt_after = -1  # messages until Ctrl-C is pressed
        threading.Thread(target=self._follow, daemon=True).start()

    def receive(self, worker: int = 0, timeout: float | None = None) -> Message:
        self.interrupt_after -= 1
        if self.interrupt_after == 0:
            raise KeyboardInterrupt
        return super().receive(worker, timeout)

    def _follow(self) -> None:
        with suppress(ResourceError):
            for message in self.other_side:
                self.worker.obey(message)
        self.other_side.close()


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> ml.LLM:
    path = write_tiny(tmp_path_factory.mktemp("tiny") / "m.gguf", "llama")
    return ml.load(path, ctx_size=512, progress=False, **EXACT)


@pytest.fixture
def pair(llm: ml.LLM) -> Iterator[Pair]:
    found = Pair(llm.backend)
    yield found
    found.close()


@pytest.fixture
def led(llm: ml.LLM, pair: Pair) -> ml.LLM:
    """The same model, computed by a worker."""
    return replace(llm, backend=RemoteBackend(pair, llm.config))


class TestSameNumbers:
    @pytest.mark.parametrize("name", SAMPLERS)
    def test_of_every_sampler(self, llm: ml.LLM, led: ml.LLM, name: str) -> None:
        options = {"n": 30, "ignore_eos": True, **SAMPLERS[name]}
        expected, found = (model.generate(PROMPT, **options) for model in (llm, led))
        assert (found.tokens, found.text, found.reason) == (expected.tokens, expected.text, expected.reason)
        np.testing.assert_array_equal(found.logprobs, expected.logprobs)
        assert led.generate(PROMPT, lookup=True, **options).tokens == expected.tokens

    def test_of_logits_perplexity_and_choices(self, llm: ml.LLM, led: ml.LLM) -> None:
        np.testing.assert_array_equal(led.logits(PROMPT), llm.logits(PROMPT))
        ids = np.random.default_rng(0).integers(3, 300, 140).tolist()
        found, expected = ([e.ppl for e in running_perplexity(model, ids, ctx_size=32)] for model in (led, llm))
        assert found == expected and len(found) == 4
        task = Task(("the hen sat on the", "the hen ran"), frozenset({1}))
        assert list(running_choices(led, [task])) == list(running_choices(llm, [task]))

    def test_of_sessions_that_grow(self, llm: ml.LLM, led: ml.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("minillama.engine.text_cache.FIRST_CAPACITY", 32)
        kept, here = led.session(), llm.session()
        first = led.generate(PROMPT, n=40, temp=0, ignore_eos=True, session=kept)
        assert first.tokens == llm.generate(PROMPT, n=40, temp=0, ignore_eos=True, session=here).tokens
        assert kept.capacity == here.capacity > 32
        assert kept.nbytes == here.nbytes - 4  # its length
        longer = [*PROMPT, *first.tokens, 9, 10]
        again = led.generate(longer, n=5, temp=0, ignore_eos=True, session=kept)
        assert again.timings.prompt_tokens == 3
        assert again.tokens == llm.generate(longer, n=5, temp=0, ignore_eos=True).tokens


def test_nothing_piles_up(led: ml.LLM, pair: Pair) -> None:
    """On neither side, however long the text."""
    remote, sizes = led.backend, []
    assert isinstance(remote, RemoteBackend)
    kept = led.session()
    for number, _ in enumerate(led.stream(PROMPT, n=200, temp=0, ignore_eos=True, session=kept)):
        if number in (20, 190):
            sizes.append((len(pair.worker._values), len(remote._answers), len(remote._awaited)))
    assert sizes[1][0] <= sizes[0][0] + 3 <= 20
    assert sizes[1][1] <= sizes[0][1] + 1 and sizes[1][2] <= 2
    for _ in range(20):
        led.generate(PROMPT, n=2, temp=0, session=kept)
    assert len(pair.worker._values) <= 20 and len(remote._answers) <= 8


@pytest.mark.parametrize("lookup", [False, True])
@pytest.mark.parametrize("after", [1, 2, 9])
def test_an_interrupt_leaves_the_session_usable(llm: ml.LLM, led: ml.LLM, pair: Pair, after: int, lookup: bool) -> None:
    expected = llm.generate(PROMPT, n=20, temp=0, ignore_eos=True)
    kept = led.session()
    pair.interrupt_after = after
    done = led.generate(PROMPT, n=20, temp=0, ignore_eos=True, session=kept, lookup=lookup)
    assert done.reason is Reason.INTERRUPTED and len(done.tokens) < 20
    assert done.tokens == expected.tokens[: len(done.tokens)]
    for _ in range(2):
        again = led.generate(PROMPT, n=20, temp=0, ignore_eos=True, session=kept, lookup=lookup)
        assert again.tokens == expected.tokens


class Untouched:
    """A backend that must not be called."""

    def __getattr__(self, name: str) -> Callable[..., object]:
        def call(*_: object, **__: object) -> object:
            raise AssertionError(f"{name} was called")

        return call


def call(op: str, *args: object, arrays: tuple[np.ndarray, ...] = (), **values: object) -> Message:
    return Message(op, {"number": 9, "args": list(args), **values}, arrays)


IDS, COUNT = np.zeros((1, 4), np.int32), np.full(1, 4, np.int32)
HOSTILE = [
    Message("eval", {"number": 9}),
    Message("__class__", {"number": 9}),
    Message("close", {"number": 9}),  # a backend's method, but no call
    Message("obey", {"number": 9}),
    Message("", {"number": 9}),
    Message("x" * 1000, {"number": 9}),
    *(Message(op) for op in CALLS),
    *(Message(op, {"number": "9"}, (IDS,)) for op in CALLS),
    *(Message(op, {"number": True}, (IDS,)) for op in CALLS),
    *(Message(op, {"number": 9}, (IDS,)) for op in CALLS),
    *(Message(op, {"number": 9, "args": 5}, (IDS,)) for op in CALLS),
    call("prefill", 1, "array", "array"),
    call("prefill", 1, "array", "array", arrays=(IDS,)),
    call("prefill", 1, "array", "array", arrays=(IDS, IDS)),
    call("prefill", 1, "array", "array", arrays=(IDS, COUNT, COUNT)),
    call("prefill", 1, "array", "array", arrays=(IDS.astype(np.int64), COUNT)),
    call("prefill", 1, "array", "array", arrays=(IDS, COUNT.astype(np.float32))),
    call("prefill", 1, "array", 4.0, arrays=(IDS,)),
    call("prefill", 1, "array", "4", arrays=(IDS,)),
    call("prefill", 1, "array", arrays=(IDS,)),
    call("prefill", 77, "array", "array", arrays=(IDS, COUNT)),
    call("prefill", [1], "array", "array", arrays=(IDS, COUNT)),
    call("prefill", -1, "array", "array", arrays=(IDS, COUNT)),
    call("prefill", 1, "array", "array", arrays=(IDS, COUNT)),  # 1 is no cache
    call("resize", 1, [64]),
    call("nll", 1, "array", "0", arrays=(IDS,)),
    call("new_cache", types=["f16"], capacity=64, batch=1),
    call("new_cache", types=5, capacity=64, batch=1),
    call("new_cache", types=[5, 6], capacity=64, batch=1),
    call("new_cache", types=["f16", "f16"], capacity="64", batch=1),
    call("generate", 1, 1, 1, 1.5, None, None),
    call("generate", 1, 1, 1, 1, None, None),  # 1 is no draft
    call("chain", sampling=5),
    call("chain", sampling={}),
    call("chain", sampling={"logit_bias": 5}),
    call("chain", sampling={"logit_bias": [[1]]}),
    call("chain", sampling={"logit_bias": [], "no_such": 1}),
]


@pytest.mark.parametrize("message", HOSTILE, ids=lambda message: f"{message.op[:12]}-{len(message.values)}")
def test_what_is_no_call_executes_nothing(message: Message) -> None:
    worker = RemoteWorker(Untouched(), None)
    worker._values = {1: object()}
    with pytest.raises(MinillamaError) as caught:
        worker.obey(message)
    assert isinstance(caught.value, FormatError | OptionError) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
    assert list(worker._values) == [1]


@pytest.mark.parametrize("options", [{"top_k": "x"}, {"temp": [1]}, {"seed": -5}, {"samplers": 5}])
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    message = Message("chain", {"number": 9, "sampling": {"logit_bias": [], **options}})
    with pytest.raises(OptionError, match=next(iter(options))):
        RemoteWorker(Untouched(), None).obey(message)


def test_a_worker_checks_its_file_when_a_generation_begins() -> None:
    def changed() -> None:
        raise ResourceError("m.gguf has become shorter")

    sampling = {"number": 9, "sampling": {"logit_bias": []}}
    cache = {"number": 9, "types": ["f16", "f16"], "capacity": 64, "batch": 1}
    for message in (Message("chain", sampling), Message("new_cache", cache)):
        with pytest.raises(ResourceError, match="shorter"):
            RemoteWorker(Untouched(), None, changed).obey(message)


@pytest.mark.parametrize("forget", [5, [[1]], [{}], None])
def test_what_cannot_be_forgotten(llm: ml.LLM, forget: object) -> None:
    message = Message("new_cache", {
        "number": 9, "types": ["f16", "f16"], "capacity": 64, "batch": 1, "forget": forget,
    })  # fmt: skip
    with pytest.raises(FormatError, match="the leader's new_cache cannot be understood"):
        RemoteWorker(llm.backend, None).obey(message)


def test_values_of_another_kind_are_refused(llm: ml.LLM) -> None:
    """A cache where a chain is due: the error is one line, not a traceback."""
    worker = RemoteWorker(llm.backend, None)
    kinds = {"number": 1, "types": ["f16", "f16"], "capacity": 64, "batch": 1}
    worker.obey(Message("new_cache", kinds))
    seeds, recent = seed_words(1)[None], np.zeros((1, 64), np.int32)
    for message in (
        call("start", 1, "array", "array", "array", 1, None, arrays=(seeds, recent, COUNT)),
        call("generate", 1, 1, 1, 1, None, None),
        call("generate", 1, 1, 1, "array", None, None, arrays=(IDS[:, :1],)),
    ):
        with pytest.raises(FormatError, match=f"the leader's {message.op} cannot be understood"):
            worker.obey(message)


def test_a_worker_that_tells_what_nobody_asked(llm: ml.LLM) -> None:
    left, right = socket.socketpair()
    worker, group = Connection(right, "the leader"), WorkerGroup([Connection(left, "worker x")])
    remote = RemoteBackend(group, llm.config)
    for message in (
        Message("told", {"number": 5}),
        Message("told", {"number": "0"}),
        Message("told", {}),
        Message("opened", {"number": 0}),
    ):
        remote._awaited = {0: 0}
        worker.send(message)
        with pytest.raises(FormatError, match="which is not expected"):
            remote.answer(0)
    worker.close()
    group.close()


def test_the_text_so_far_outlives_the_worker(llm: ml.LLM, led: ml.LLM, pair: Pair) -> None:
    expected = llm.generate(PROMPT, n=40, temp=0, ignore_eos=True)
    stream = led.stream(PROMPT, n=40, temp=0, ignore_eos=True)
    with pytest.raises(ResourceError):
        for number, _ in enumerate(stream):
            if number == 9:
                pair.other_side.close()
    done = stream.completion
    assert done.reason is Reason.INTERRUPTED and stream.state is State.DONE
    assert 10 <= len(done.tokens) < 40 and done.tokens == expected.tokens[: len(done.tokens)]
    assert done.text and expected.text.startswith(done.text)


@dataclass
class WorkerProcess:
    """`minillama worker`, what it says, and where it listens."""

    process: subprocess.Popen[str]
    address: str
    lines: list[str]
    reader: threading.Thread

    def says(self, text: str, seconds: float = 15.0) -> None:
        until = time.monotonic() + seconds
        while not any(text in line for line in self.lines):
            assert time.monotonic() < until, f"{text!r} is not in {self.lines}"
            time.sleep(0.02)

    def follower(self) -> psutil.Process:
        """The process that follows a leader now."""
        (child,) = psutil.Process(self.process.pid).children()
        return child


Start = Callable[..., WorkerProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start workers; each ends with the test, and leaves no process behind."""
    running: list[WorkerProcess] = []

    def begin(port: int = 0) -> WorkerProcess:
        process = subprocess.Popen(
            [sys.executable, "-m", "minillama", "worker", "--port", str(port), "-t", "1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        lines: list[str] = []
        assert process.stderr is not None
        reader = threading.Thread(target=lambda: lines.extend(iter(process.stderr.readline, "")), daemon=True)
        reader.start()
        found = WorkerProcess(process, "", lines, reader)
        running.append(found)
        found.says("waiting for leaders on ", 60.0)
        address = re.search(r"waiting for leaders on (\S+);", lines[0])
        assert address is not None
        found.address = address[1]
        return found

    yield begin
    children = [child for one in running if one.process.poll() is None for child in _children(one.process.pid)]
    for one in running:
        one.process.terminate()
        one.process.wait(15.0)
        one.reader.join(10.0)
        assert one.process.stderr is not None
        one.process.stderr.close()
    _, alive = psutil.wait_procs(children, 10.0)
    assert not alive


def _children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@contextmanager
def leading(path: Path, *workers: WorkerProcess, ctx_size: int = 512) -> Iterator[ml.LLM]:
    addresses = ",".join(worker.address for worker in workers)
    llm = ml.load(path, workers=addresses, threads=1, ctx_size=ctx_size, progress=False, **EXACT)
    try:
        yield llm
    finally:
        llm.close()


@pytest.mark.slow
def test_two_processes_compute_the_same(start: Start, llm: ml.LLM) -> None:
    one, two = start(), start()
    with leading(llm.path, one, two) as led:
        logits = llm.logits(PROMPT)
        assert np.abs(led.logits(PROMPT) - logits).max() < 1e-3 * logits.std()
        expected = llm.generate(PROMPT, n=40, temp=0, ignore_eos=True)
        assert led.generate(PROMPT, n=40, temp=0, ignore_eos=True).tokens == expected.tokens
        assert led.generate(PROMPT, n=40, temp=0, ignore_eos=True, lookup=True).tokens == expected.tokens
        kept = led.session()
        with led.stream(PROMPT, n=40, temp=0, ignore_eos=True, session=kept) as stream:
            for _ in zip(range(5), stream, strict=False):
                pass
        assert led.generate(PROMPT, n=40, temp=0, ignore_eos=True, session=kept).tokens == expected.tokens
    one.says("has left; ready again")
    two.says("has left; ready again")


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("whole", [False, True], ids=["its process", "the command"])
def test_a_worker_that_is_killed_while_it_computes(start: Start, llm: ml.LLM, victim: int, whole: bool) -> None:
    workers = [start(), start()]
    expected = llm.generate(PROMPT, n=400, temp=0, ignore_eos=True)
    with leading(llm.path, *workers) as led:
        stream = led.stream(PROMPT, n=400, temp=0, ignore_eos=True)
        with pytest.raises(ResourceError) as caught:
            for number, _ in enumerate(stream):
                if number == 20:
                    lost = workers[victim]
                    os.kill(lost.process.pid if whole else lost.follower().pid, signal.SIGKILL)
                    killed = time.monotonic()
        assert time.monotonic() - killed < 8.0
        line = str(caught.value)
        assert line.startswith(f"worker {workers[victim].address} ") and "\n" not in line
        done = stream.completion
        assert done.reason is Reason.INTERRUPTED and len(done.tokens) > 20
        assert done.tokens == expected.tokens[: len(done.tokens)]
        with pytest.raises(ResourceError):
            led.generate(PROMPT, n=2)
    workers[1 - victim].says("; ready again")
    if whole:
        workers[victim] = start(int(workers[victim].address.rsplit(":", 1)[1]))
    else:
        workers[victim].says("; ready again")
    with leading(llm.path, *workers) as led:
        assert led.generate(PROMPT, n=10, temp=0, ignore_eos=True).tokens == expected.tokens[:10]


@pytest.mark.slow
def test_a_leader_that_is_killed_while_it_leads(start: Start, llm: ml.LLM) -> None:
    one, two = start(), start()
    program = (
        "import sys, minillama as ml\n"
        f"llm = ml.load({str(llm.path)!r}, workers='{one.address},{two.address}', threads=1, progress=False)\n"
        f"for number, piece in enumerate(llm.stream({PROMPT}, n=-1, temp=0, ignore_eos=True, context_shift=True)):\n"
        "    if number == 20: print('leading', flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"leading\n"
        process.kill()
    one.says("; ready again")
    two.says("; ready again")
    with leading(llm.path, one, two) as led:
        expected = llm.generate(PROMPT, n=10, temp=0, ignore_eos=True)
        assert led.generate(PROMPT, n=10, temp=0, ignore_eos=True).tokens == expected.tokens


@pytest.mark.slow
def test_each_process_holds_its_share(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_random_model(path, "tinyllama-1.1b", "Q4_0")
    size = path.stat().st_size
    one, two = start(), start()
    with leading(path, one, two) as led:
        led.generate([1, *range(20, 60)], n=4, temp=0, ignore_eos=True)
        for worker in (one, two):
            assert worker.follower().memory_info().rss < size / 2 + 600e6  # a process with all of it needs 510 MB more
        assert psutil.Process(one.process.pid).memory_info().rss < 200e6
