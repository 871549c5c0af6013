"""A model that computes NaN or infinite numbers is refused by everything that uses its numbers."""

from pathlib import Path

import numpy as np
import pytest
from choice_tasks import HELLASWAG
from tiny_models import VOCAB, overwrite, write_tiny

import minillama as ml
from minillama.cli import main
from minillama.measure.quality.kl_divergence import record_base, running_divergence
from minillama.measure.quality.kld_base_file import open_base
from minillama.measure.quality.multiple_choice import running_choices
from minillama.measure.quality.perplexity import running_perplexity
from minillama.measure.quality.task_files import read_hellaswag
from minillama.measure.quality.text_windows import chunked

PROMPT = "the ant sat on the north end "
EXACT = {"cache_type_k": "f32", "cache_type_v": "f32"}
IDS = np.random.default_rng(0).integers(3, VOCAB, 200).tolist()
NAN = pytest.raises(ml.NonFiniteError, match="model computes NaN or infinite logits; the file is broken, or")


def broken(folder: Path, tensor: str = "output.weight", value: float = np.nan, row: int | None = 7) -> ml.LLM:
    """A model whose logits, by default only that of token 7, are NaN."""
    return ml.load(overwrite(write_tiny(folder / "m.gguf", "llama"), tensor, value, row), progress=False, **EXACT)


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> ml.LLM:
    return broken(tmp_path_factory.mktemp("broken"))


@pytest.mark.parametrize(
    "options",
    [
        {"temp": 0}, {"seed": 1}, {"seed": 1, "n": 1}, {"temp": 0, "logit_bias": ((9, 1000.0),)},
        pytest.param({"temp": 0, "lookup": True}, marks=pytest.mark.slow),
        pytest.param({"mirostat": 1}, marks=pytest.mark.slow), pytest.param({"mirostat": 2}, marks=pytest.mark.slow),
        pytest.param({"top_k": 0, "top_p": 1.0, "min_p": 0.0}, marks=pytest.mark.slow),
        pytest.param({"typical": 0.5, "top_nsigma": 1.0}, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_generation(llm: ml.LLM, options: dict) -> None:
    with NAN:
        llm.generate(PROMPT, **{"n": 3, **options})


@pytest.mark.parametrize(
    ("tensor", "value", "row"),
    [("output_norm.weight", np.nan, None), ("output_norm.weight", np.inf, None), ("blk.1.ffn_down.weight", np.nan, 0),
     ("blk.0.attn_v.weight", np.inf, 0), ("token_embd.weight", np.nan, 5), ("output.weight", -np.inf, 7)],
)  # fmt: skip
def test_broken_tensors(tmp_path: Path, tensor: str, value: float, row: int | None) -> None:
    llm = broken(tmp_path, tensor, value, row)
    for call in (llm.generate, llm.logits):
        with NAN:
            call([1, 5, 9])


def test_text_before_the_first_nan(llm: ml.LLM, tmp_path: Path) -> None:
    """A NaN that only one token causes: the stream keeps what was written before."""
    good = ml.load(write_tiny(tmp_path / "good.gguf", "llama"), progress=False, **EXACT)
    third = good.generate(PROMPT, n=3, temp=0, ignore_eos=True).tokens[2]
    later = broken(tmp_path, "token_embd.weight", np.nan, third)
    stream = later.stream(PROMPT, n=9, temp=0, ignore_eos=True)
    with NAN:
        list(stream)
    assert len(stream.completion.tokens) == 3 and stream.completion.tokens[2] == third


def test_logits_and_trace(llm: ml.LLM) -> None:
    with NAN:
        llm.logits(PROMPT)
    found = llm.trace(PROMPT)  # shows where they begin
    assert np.isfinite(found["result_norm"]).all() and np.isnan(found["result_output"][:, 7]).all()


def test_perplexity(llm: ml.LLM, tmp_path: Path) -> None:
    with NAN:
        next(running_perplexity(llm, IDS, ctx_size=32))
    with NAN:
        next(record_base(llm, chunked(llm, IDS, 32), tmp_path / "base.kld"))
    assert not list(tmp_path.iterdir())


def test_perplexity_larger_than_any_float(tmp_path: Path) -> None:
    """exp of the mean overflows; it is infinite, not a traceback."""
    llm = broken(tmp_path, "output_norm.weight", 1e5, None)
    assert next(running_perplexity(llm, IDS, ctx_size=32)).ppl == np.inf


def test_divergence(llm: ml.LLM, tmp_path: Path) -> None:
    good = ml.load(write_tiny(tmp_path / "good.gguf", "llama"), progress=False, **EXACT)
    path = tmp_path / "base.kld"
    list(record_base(good, chunked(good, IDS, 32), path))
    with NAN:
        next(running_divergence(llm, open_base(path)))
    scale = 20 + 4 * 6 * 32  # of the first record
    content = bytearray(path.read_bytes())
    content[scale : scale + 4] = np.array(np.nan, "<f4").tobytes()
    path.write_bytes(content)
    with pytest.raises(ml.FormatError, match=r"base\.kld holds NaN or infinite log-probabilities; record it again"):
        next(running_divergence(good, open_base(path)))


def test_multiple_choice(llm: ml.LLM) -> None:
    with NAN:
        next(running_choices(llm, read_hellaswag(HELLASWAG)))


@pytest.mark.slow
def test_imatrix(tmp_path: Path) -> None:
    from minillama.measure.quality.imatrix import split_chunks, sums_of_squares

    llm = broken(tmp_path, "blk.1.attn_norm.weight", np.nan, None)
    with pytest.raises(ml.NonFiniteError, match="NaN or infinite attn_norm-1 activations"):
        sums_of_squares(llm, split_chunks(llm, IDS, 32))


@pytest.mark.slow
def test_texts(llm: ml.LLM, tmp_path: Path) -> None:
    from minillama.measure.texts.hidden_states import Continuation, continuation_logprobs, hidden_states

    with NAN:
        continuation_logprobs(llm, [Continuation((1, 5, 9), 1)])
    with pytest.raises(ml.NonFiniteError, match="NaN or infinite hidden states"):
        hidden_states(broken(tmp_path, "blk.0.attn_norm.weight", np.nan, None), [[1, 5, 9]])


F32 = ("-ctk", "f32", "-ctv", "f32")
COMMANDS = {
    "run": ["-no-cnv", "-p", "the ant", "-n", "2", *F32],
    "perplexity": ["-f", "TEXT", "-c", "32", *F32],
    "simple": ["-n", "2", "the ant"],
    "quality": ["-p", "the ant", "-n", "2", "--samples", "1"],
    "latency": ["-p", "4", "-n", "2", "-r", "1"],
    "imatrix": ["-f", "TEXT", "-c", "32", "-o", "TEXT.imatrix"],
}


@pytest.mark.parametrize(
    "name", ["run", *(pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS if name != "run")]
)
def test_commands(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, text = write_tiny(tmp_path / "m.gguf", "llama"), tmp_path / "text.txt"
    overwrite(path, "output_norm.weight", np.nan)
    text.write_text(PROMPT * 20)
    words = [word.replace("TEXT", str(text)) for word in COMMANDS[name]]
    assert main([name, "-m", str(path), *words]) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("minillama: error: ") and "the model computes NaN or infinite" in error and len(error) < 500
