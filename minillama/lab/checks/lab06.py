"""Graded items of lab 06: likelihood, perplexity, comparisons, latencies, diversity."""

from collections.abc import Callable, Sequence

import numpy as np

import minillama as ml
from minillama.lab.checks.items.lab06_verdict import verdict
from minillama.lab.experiments.quantised_storytellers import log_softmax, scored_logits
from minillama.lab.grading.check import (
    Answer,
    Mistake,
    NotYet,
    Score,
    as_array,
    call,
    expect_equal,
    graded,
)
from minillama.lab.grading.check import score as score_of
from minillama.lab.grading.course_seed import hidden_cases, hidden_random, whole
from minillama.lab.language import message, translate
from minillama.measure.quality.perplexity import perplexity as engines_perplexity

LAB = "06"

# No model was trained on it, and no notebook shows it.
HIDDEN = """The baker's cat slept in the window, between two loaves and a jar of plums. Nobody dared to move
her. When the mayor came for his rolls, he bowed to the cat before he spoke to the baker, because the cat was
older than his office. One winter the oven broke. The baker put on three coats and went to look for the smith,
but the smith was away, mending a bell in the next valley. So the whole street baked at home that week, and
every evening somebody brought a warm roll for the cat. She tasted each of them, slowly, and then she chose.
The woman whose roll she had chosen is the baker now.
"""


def _nll(logits: np.ndarray, ids: np.ndarray, *, shift: int = 1) -> np.ndarray:
    """Negative log-likelihood of each next token; with `shift` 0 of the token itself."""
    kept = log_softmax(logits)[: len(ids) - shift]
    return -kept[np.arange(len(kept)), ids[shift:]]


def _unstable(logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        weights = np.exp(logits)
        probs = weights / weights.sum(-1, keepdims=True)
        return -np.log(probs[np.arange(len(ids) - 1), ids[1:]])


@graded(LAB, "1. the likelihood of a text")
def nll(answer: Answer) -> str:
    """`nll(logits [T, V], ids [T]) -> [T - 1]`, also on a hidden text with the storyteller's own logits."""
    mistakes = (
        Mistake("logits[t] is about ids[t + 1], the token that follows; yours uses ids[t]",
                lambda x, ids: _nll(x, ids, shift=0)),
        Mistake("logits[t] is about ids[t + 1], the token that follows; yours uses ids[t]",
                lambda x, ids: _nll(x, ids, shift=0)[:-1]),
        Mistake("logits[t] is about ids[t + 1], the token that follows; yours uses ids[t]",
                lambda x, ids: _nll(x, ids, shift=0)[1:]),
        Mistake("the sign: the likelier the token, the smaller the nll; it is never below 0",
                lambda x, ids: -_nll(x, ids)),
        Mistake("these are probabilities: take -ln of them", lambda x, ids: np.exp(-_nll(x, ids))),
        Mistake("these are bits; perplexity is exp of *nats*: np.log, not np.log2",
                lambda x, ids: _nll(x, ids) / np.log(2)),
        Mistake("one number a token: the mean is the next exercise", lambda x, ids: _nll(x, ids).mean()),
        Mistake("one number a token: the mean is the next exercise", lambda x, ids: _nll(x, ids).sum()),
        Mistake("logits are not log-probabilities: subtract ln Σ exp of each row",
                lambda x, ids: -x[np.arange(len(ids) - 1), ids[1:]]),
        Mistake("exp of a large logit is infinity: subtract the largest of each row first", _unstable),
    )  # fmt: skip
    random = hidden_random(606)
    for size, scale in ((6, 2.0), (30, 5.0), (9, 400.0)):
        logits = random.normal(scale=scale, size=(size, 40)).astype(np.float32)
        ids = random.integers(40, size=size)
        label = translate("{size} tokens and logits of about {scale:g}", size=size, scale=scale)
        expect_equal(answer, (logits, ids), _nll, mistakes, tolerance=1e-4, case=label)
    llm = ml.load(progress=False)
    tokens = llm.tokenizer.encode(HIDDEN)
    found = [
        as_array(call(answer, *window, case=message("a hidden text"))) for window in scored_logits(llm, tokens, 64)
    ]
    got, want = float(np.exp(np.mean(np.concatenate(found)))), engines_perplexity(llm, HIDDEN, ctx_size=64).ppl
    if not abs(got - want) <= 0.01 * want:
        text = translate(
            "right for random logits, but the hidden text has perplexity {want:.4g}, and yours gives {got:.4g}",
            want=want,
            got=got,
        )
        raise NotYet(text)
    return "also for a hidden text, where its mean gives `minillama perplexity`'s number."


Number = Callable[[np.ndarray], float]


def _with_error(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    ppl = np.exp(values.mean())
    return np.array([ppl, ppl * values.std(ddof=1) / np.sqrt(len(values))])


@graded(LAB, "2. perplexity and its error bar")
def perplexity(answer: Answer) -> str:
    """`perplexity(nll) -> (ppl, error)`, llama-perplexity's two numbers."""

    def of(ppl: Number = lambda v: _with_error(v)[0], error: Number = lambda v: _with_error(v)[1]) -> Answer:
        """The right pair with a different first or second number."""
        return lambda v: np.array([ppl(v), error(v)])

    def spread(values: np.ndarray) -> float:
        return float(values.std(ddof=1))

    mistakes = (
        Mistake("exp of the *mean*, not the mean of exp: one very surprising token would decide alone",
                of(ppl=lambda v: np.exp(v).mean())),
        Mistake("exp of the *mean*, not the mean of exp: one very surprising token would decide alone",
                lambda v: np.array([np.exp(v).mean(), spread(np.exp(v)) / np.sqrt(len(v))])),
        Mistake("the nll are in nats: exp of their mean, not 2 to its power",
                lambda v: 2.0 ** v.mean() * np.array([1.0, spread(v) / np.sqrt(len(v))])),
        Mistake("the nll are in nats: exp of their mean, not 2 to its power", of(ppl=lambda v: 2.0 ** v.mean())),
        Mistake("that is the mean in nats; perplexity is exp of it",
                lambda v: np.array([v.mean(), spread(v) / np.sqrt(len(v))])),
        Mistake("the second is the error of the mean in nats; times the perplexity it becomes that of the perplexity",
                of(error=lambda v: spread(v) / np.sqrt(len(v)))),
        Mistake("that is how much single tokens differ; the error of their mean is smaller by √n",
                of(error=lambda v: np.exp(v.mean()) * spread(v))),
        Mistake("that is how much single tokens differ; the error of their mean is smaller by √n", of(error=spread)),
        Mistake("divide by √n, not by n", of(error=lambda v: np.exp(v.mean()) * spread(v) / len(v))),
        Mistake("with the estimated mean, n - 1 are free: ddof=1, or the variance by n - 1 (llama-perplexity does)",
                of(error=lambda v: np.exp(v.mean()) * v.std() / np.sqrt(len(v)))),
        Mistake("exp of the error is not the error of exp: (d/dx) exp x = exp x, so multiply by the perplexity",
                of(error=lambda v: np.exp(spread(v) / np.sqrt(len(v))))),
        Mistake("one standard error, as llama-perplexity prints it, not two",
                of(error=lambda v: 2 * _with_error(v)[1])),
        Mistake("the perplexity comes first, then its error", lambda v: _with_error(v)[::-1]),
    )  # fmt: skip
    random = hidden_random(616)
    for size in (5, 12, 400):
        values = random.gamma(1.5, 2.0, size)
        label = translate("{size} tokens", size=size)
        expect_equal(answer, (values,), _with_error, mistakes, tolerance=1e-6, case=label)
    return "llama-perplexity's two numbers."


Seconds = Sequence[Sequence[float]]


def _latencies(answers: Seconds, *, method: str = "linear", skip: int = 1, share: float = 99.0) -> np.ndarray:
    later = np.concatenate([np.asarray(answer[skip:]) for answer in answers])
    first = np.median([answer[0] for answer in answers])
    return np.array([first, *np.percentile(later, [50, share], method=method)])  # type: ignore[call-overload]


def _answer_by_answer(answers: Seconds) -> np.ndarray:
    each = np.array([_latencies([answer]) for answer in answers])
    return np.array([np.median(each[:, 0]), *each[:, 1:].mean(0)])


def _median_of_p99s(answers: Seconds) -> np.ndarray:
    return np.array([*_latencies(answers)[:2], np.median([_latencies([answer])[2] for answer in answers])])


def _shares(answers: Seconds) -> np.ndarray:
    later = np.concatenate([np.asarray(answer[1:]) for answer in answers])
    return np.array([_latencies(answers)[0], *np.percentile(later, [0.5, 0.99])])


def _means(answers: Seconds) -> np.ndarray:
    later = np.concatenate([np.asarray(answer[1:]) for answer in answers])
    return np.array([np.mean([answer[0] for answer in answers]), later.mean(), _latencies(answers)[2]])


@graded(LAB, "4. percentiles of latencies")
def latencies(answers: Answer) -> str:
    """`latencies(answers) -> (p50 of the first tokens, p50 and p99 of all later ones)` in seconds."""
    mistakes = (
        Mistake("the first tokens are among the later ones: they wait for the prompt, and are a number of their own",
                lambda a: _latencies(a, skip=0)),
        Mistake("a few slow tokens move the mean: p50 is the median", _means),
        Mistake("put the later tokens of all answers together first; the mean of each answer's p99 is no percentile",
                _answer_by_answer),
        Mistake("put the later tokens of all answers together first; the median of each answer's p99 is no percentile",
                _median_of_p99s),
        Mistake("99 of 100 tokens are faster than p99; yours is the slowest of all",
                lambda a: _latencies(a, share=100.0)),
        Mistake("the *slow* end: p99, not p1", lambda a: _latencies(a, share=1.0)),
        Mistake("np.percentile takes 99, not 0.99", lambda a: _latencies(a, share=0.99)),
        Mistake("np.percentile takes 50 and 99, not 0.5 and 0.99", _shares),
        Mistake("that is p90", lambda a: _latencies(a, share=90.0)),
        Mistake("that is p95", lambda a: _latencies(a, share=95.0)),
        Mistake("seconds in, seconds out", lambda a: 1e3 * _latencies(a)),
        Mistake("yours has no second p50: (p50 of first tokens, p50 of later ones, p99 of later ones)",
                lambda a: _latencies(a)[[0, 2]]),
        *(Mistake("right, except between two measured values: np.percentile interpolates linearly",
                  lambda a, method=method: _latencies(a, method=method))
          for method in ("lower", "higher", "nearest", "inverted_cdf")),
    )  # fmt: skip
    random = hidden_random(626)
    for sizes in ((40, 40, 40), (5, 90, 33, 12), (250,)):
        given = [[0.2 + random.random(), *(0.01 * random.lognormal(0, 0.5, size))] for size in sizes]
        label = translate("answers of {sizes} later tokens", sizes=sizes)
        expect_equal(answers, (given,), _latencies, mistakes, tolerance=1e-6, case=label)
    return "the first token apart, and the slow end by its p99."


Texts = Sequence[Sequence[str]]


def _runs(text: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(text[start : start + size]) for start in range(len(text) - size + 1)]


def _distinct(texts: Texts, size: int) -> float:
    found = [run for text in texts for run in _runs(text, size)]
    return len(set(found)) / len(found)


def _different(texts: Texts, size: int) -> int:
    return len({run for text in texts for run in _runs(text, size)})


def _per_text(texts: Texts, size: int) -> float:
    return float(np.mean([_distinct([text], size) for text in texts if len(text) >= size]))


@graded(LAB, "5. distinct-n")
def distinct(answer: Answer) -> str:
    """`distinct(texts, n) -> share`: different runs of n words in all texts, by all such runs."""
    mistakes = (
        Mistake("no run goes from one text into the next: cut each text by itself",
                lambda texts, n: _distinct([[word for text in texts for word in text]], n)),
        Mistake("all texts together: with a mean of each text's own share, copies of one text would look diverse",
                _per_text),
        Mistake("divide by the number of runs, which is n - 1 smaller per text than the number of words",
                lambda texts, n: _different(texts, n) / sum(map(len, texts))),
        Mistake("runs of n words, not single words", lambda texts, n: _distinct(texts, 1)),
        Mistake("the last run of each text is missing: a text of T words has T - n + 1",
                lambda texts, n: _distinct([text[:-1] for text in texts], n)),
        Mistake("that is the share of repeated runs: one minus it", lambda texts, n: 1 - _distinct(texts, n)),
        Mistake("that is a number of runs, not a share", _different),
        Mistake("percent: a share goes from 0 to 1", lambda texts, n: 100 * _distinct(texts, n)),
        Mistake("the order of the words counts: make tuples, not sets",
                lambda texts, n: len({frozenset(run) for text in texts for run in _runs(text, n)})
                / sum(len(_runs(text, n)) for text in texts)),
    )  # fmt: skip
    same = list("abcdabeabf")  # words of one letter
    swapped = list("bacdagegafhag")
    cases: tuple[tuple[Texts, int], ...] = (
        ((same, swapped, same), 2), ((same, same), 1), ((same, swapped), 3), ((swapped, ["a", "b"], same), 3),
    )  # fmt: skip
    hidden = hidden_cases(605, lambda random: [random.choice(list("abcd"), 9).tolist() for _ in range(3)], whole(1, 3))
    for texts, n in (*cases, *hidden):
        given = [list(text) for text in texts]
        label = translate("{count} texts and n={n}", count=len(texts), n=n)
        expect_equal(answer, (given, n), _distinct, mistakes, tolerance=1e-9, case=label)
    return "copies count against it, and no run crosses a text's end."


ITEMS = (nll, perplexity, verdict, latencies, distinct)


def score() -> Score:
    """Score of the lab."""
    return score_of(ITEMS)
