"""Sessions of a model with recurrent layers: whatever was run before, a text gets what a fresh pass computes."""

from pathlib import Path

import numpy as np
import pytest
from draft_oracle import use_oracle

import minillama as ml
from minillama.engine.session import Session
from minillama.measure.quality.perplexity import perplexity

IDS = np.random.default_rng(1).integers(3, 352, 80).tolist()
EXACT = {"progress": False, "cache_type_k": "f32", "cache_type_v": "f32", "ctx_size": 256}
GREEDY = {"temp": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def path(reference: Path) -> Path:
    return reference / "families" / "qwen35.gguf"


@pytest.fixture(scope="module")
def llm(path: Path) -> ml.LLM:
    return ml.load(path, **EXACT)


@pytest.fixture(scope="module")
def expected(llm: ml.LLM) -> np.ndarray:
    return llm.logits(IDS)


@pytest.fixture
def session(llm: ml.LLM) -> Session:
    """Sixty tokens: forty as a prompt, of which a checkpoint stays, and twenty one by one."""
    session = llm.session()
    list(session.prefill(IDS[:40]))
    for token in IDS[40:60]:
        session.decode(token)
    return session


def test_padded_chunks_and_single_tokens(session: Session, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.asarray(session.decode(IDS[60]))[0], expected[60], atol=2e-4)


@pytest.mark.parametrize(("count", "reused"), [(60, 60), (50, 40), (40, 40), (39, 0), (5, 0)])
def test_a_text_goes_on_from_the_newest_checkpoint(llm: ml.LLM, session: Session, count: int, reused: int) -> None:
    other = [*IDS[:count], 7, 8]
    assert session.reuse(other) == reused
    (*_, logits) = session.prefill(other[reused:])
    np.testing.assert_allclose(np.asarray(logits)[0], llm.logits(other)[-1], atol=2e-4)


@pytest.mark.slow
def test_cut_where_no_checkpoint_is(session: Session, expected: np.ndarray) -> None:
    session.truncate(50)
    assert session.tokens == IDS[:50]
    np.testing.assert_allclose(np.asarray(session.decode(IDS[50]))[0], expected[50], atol=2e-4)
    session.clear()
    (logits,) = session.prefill(IDS[:10])
    np.testing.assert_allclose(np.asarray(logits)[0], expected[9], atol=2e-4)


@pytest.mark.slow
def test_a_step_under_way_is_kept_where_the_next_text_holds_its_token(llm: ml.LLM) -> None:
    kept = llm.session()
    with llm.stream(IDS[:40], session=kept, n=30, **GREEDY) as stream:
        written = [piece.token for _, piece in zip(range(5), stream, strict=False)]
    longer = IDS[:40] + written + [40, 41]
    again = llm.generate(longer, n=8, session=kept, **GREEDY)
    assert again.timings.prompt_tokens == 2
    assert again.tokens == llm.generate(longer, n=8, **GREEDY).tokens
    other = IDS[:40] + written[:-1] + [40, 41, 42]
    assert llm.generate(other, n=8, session=kept, **GREEDY).tokens == llm.generate(other, n=8, **GREEDY).tokens


@pytest.mark.slow
def test_drafts_run_their_right_part_again(llm: ml.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    text = llm.generate(IDS[:40], n=40, **GREEDY)
    use_oracle(monkeypatch, IDS[:40] + list(text.tokens), wrong=0.5)
    drafted = llm.generate(IDS[:40], n=40, lookup=True, **GREEDY)
    assert drafted.tokens == text.tokens
    assert 0 < drafted.timings.accepted_tokens < drafted.timings.drafted_tokens


@pytest.mark.slow
def test_perplexity_begins_each_window_anew(llm: ml.LLM, path: Path) -> None:
    """One window a pass, in a cache that was used before, against all windows in one pass."""
    text = llm.tokenizer.decode(IDS * 4)
    together = perplexity(llm, text, ctx_size=64)
    one_by_one = perplexity(ml.load(path, ubatch_size=64, batch_size=64, **EXACT), text, ctx_size=64)
    assert together.count == one_by_one.count > 64
    assert one_by_one.ppl == pytest.approx(together.ppl, rel=1e-5)
