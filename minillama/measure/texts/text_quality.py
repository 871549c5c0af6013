"""Text quality by sampling setting: diversity, relevance to a reference, and fluency."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, replace

from minillama.engine.llm import LLM
from minillama.engine.loading.model_files import data_file
from minillama.engine.session import Session
from minillama.errors import OptionError
from minillama.measure.sample_statistics import mean
from minillama.measure.texts.diversity import Diversity, diversity, mean_defined, words
from minillama.measure.texts.hidden_states import Continuation, continuation_logprobs
from minillama.measure.texts.relevance import Score, Scorer, hidden_scorer, mean_score, random_pairs, rescale
from minillama.sampling import Sampling, resolve_seed

BASELINE_PAIRS = 200

Advance = Callable[[], object]  # called after each sample


@dataclass(frozen=True)
class Prompt:
    """A prompt, and a reference text for its answers; None: the prompt itself."""

    text: str
    reference: str | None = None

    @property
    def target(self) -> str:
        return self.text if self.reference is None else self.reference


@dataclass(frozen=True)
class Fluency:
    """Likelihood of texts after their prompts, under a judge model."""

    log_likelihood: float  # nats, mean over tokens; nan without tokens
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(-log_likelihood)."""
        return math.exp(-self.log_likelihood)


@dataclass(frozen=True)
class Sample:
    """One generated text. `relevance` is rescaled."""

    prompt: Prompt
    seed: int
    text: str
    relevance: Score
    fluency: Fluency


@dataclass(frozen=True)
class QualityRow:
    """Measurements of one sampling setting.

    `diversity` is computed over the texts of one prompt and averaged over prompts. `relevance` is the mean over all
    texts, `fluency` the mean over all tokens.
    """

    model: str
    judge: str  # model that gives `fluency`
    scorer: str
    baseline: Score  # of random pairs, before rescaling
    setting: Sampling
    diversity: Diversity
    relevance: Score
    fluency: Fluency
    samples: tuple[Sample, ...]

    def as_dict(self) -> dict[str, object]:
        """Plain values for `json.dumps`; nan becomes None."""
        fluency = {**asdict(self.fluency), "perplexity": self.fluency.perplexity}
        return _plain({**asdict(self), "fluency": fluency})  # type: ignore[return-value]


def measure_quality(
    llm: LLM,
    prompts: Sequence[Prompt | str],
    settings: Sequence[Sampling],
    *,
    samples: int = 8,
    n: int = 64,
    seed: int = -1,
    chat: bool | None = None,
    judge: LLM | None = None,
    scorer: Scorer | None = None,
    corpus: Sequence[str] | None = None,
    advance: Advance = lambda: None,
) -> Iterator[QualityRow]:
    """Generate and measure texts for all prompts; yields a row per sampling setting.

    settings: as made by `llm.sampling(temp=0.2)`; their seeds are ignored.
    samples, n: texts per prompt and setting, and most tokens per text.
    seed: of the first sample of each prompt; the next samples have seed + 1 and so on, in every setting. -1: random.
    chat: pass prompts as messages through the chat template; None: if the model has one.
    judge: model for likelihoods and hidden states; None for the generating model.
    scorer: measures relevance; None for the judge's hidden states.
    corpus: unrelated texts for idf weights and the baseline, the mean score of random pairs of them, truncated to the
    lengths of answers and references. None for the held-out stories of minillama.
    advance: called after each text.
    Raises OptionError for invalid values and for texts that do not fit in a context.
    """
    for name, value in (("samples", samples), ("n", n), ("prompts", len(prompts)), ("settings", len(settings))):
        if value < 1:
            raise OptionError(f"{name} is {value}; expected at least 1")
    chat = llm.template is not None if chat is None else chat
    given = [Prompt(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
    corpus = heldout_texts() if corpus is None else corpus
    if len(corpus) < 2:
        raise OptionError(f"the corpus has {len(corpus)} texts; the baseline needs pairs of different ones")
    scorer = scorer or hidden_scorer(judge or llm, [*corpus, *(prompt.target for prompt in given)])
    writer = _TextGenerator(llm, judge, chat, samples, n, resolve_seed(seed), advance)
    return _rows(writer, given, settings, scorer, corpus)


def heldout_texts() -> list[str]:
    """The held-out stories of minillama, which are in no training set."""
    return [line for line in data_file("heldout.txt").read_text(encoding="utf-8").splitlines() if line]


def baseline(scorer: Scorer, candidates: Sequence[str], references: Sequence[str]) -> Score:
    """Mean score of random pairs of a candidate and the reference of another candidate."""
    pairs = random_pairs(BASELINE_PAIRS, len(candidates))
    return mean_score(scorer([candidates[one] for one, _ in pairs], [references[other] for _, other in pairs]))


def prompt_prefix(llm: LLM, prompt: str, chat: bool) -> str:
    """The text before an answer: the prompt, rendered by the chat template if `chat`."""
    return llm.render([{"role": "user", "content": prompt}]) if chat else prompt


def tokenise_continuation(llm: LLM, before: str, text: str) -> Continuation:
    """Token ids of two joined texts.

    The second text begins at the first token that differs from the tokens of the first text alone, because one token
    may span the boundary.
    """

    def ids(of: str) -> list[int]:
        bos = llm.tokenizer.bos if llm.tokenizer.add_bos else None
        marked = (
            of if bos is None else of.removeprefix(llm.tokenizer.tokens[bos])
        )  # the template may already contain BOS
        return ([] if bos is None else [bos]) + llm.tokenizer.encode(marked, add_special=False)

    alone, together = ids(before), ids(before + text)
    start = 0
    while start < min(len(alone), len(together)) and alone[start] == together[start]:
        start += 1
    return Continuation(tuple(together), max(1, start))


@dataclass(frozen=True, eq=False)
class _TextGenerator:
    """Generates samples and measures their likelihood."""

    llm: LLM
    judge: LLM | None
    chat: bool
    samples: int
    n: int
    seed: int
    advance: Advance

    def write(self, session: Session, prompt: Prompt, setting: Sampling) -> list[tuple[str, Fluency]]:
        """The samples of one prompt: texts, and likelihoods without the end token."""
        ids = self.llm.encode_chat([{"role": "user", "content": prompt.text}]) if self.chat else prompt.text
        written = []
        for number in range(self.samples):
            options = asdict(replace(setting, seed=self.seed_of(number)))
            stream = self.llm.stream(ids, session=session, n=self.n, **options)  # type: ignore[arg-type]
            for _ in stream:
                pass
            done, eog = stream.completion, self.llm.tokenizer.eog
            logprobs = [chance for token, chance in zip(done.tokens, done.logprobs, strict=True) if token not in eog]
            written.append((done.text, _fluency(logprobs)))
            self.advance()
        if self.judge is None:
            return written
        before = prompt_prefix(self.judge, prompt.text, self.chat and self.judge.template is not None)
        texts = [text for text, _ in written]
        judged = continuation_logprobs(self.judge, [tokenise_continuation(self.judge, before, text) for text in texts])
        return [(text, _fluency(logprobs.tolist())) for text, logprobs in zip(texts, judged, strict=True)]

    def seed_of(self, number: int) -> int:
        return (self.seed + number) % 2**32


def _rows(
    writer: _TextGenerator,
    prompts: Sequence[Prompt],
    settings: Sequence[Sampling],
    scorer: Scorer,
    corpus: Sequence[str],
) -> Iterator[QualityRow]:
    llm = writer.llm
    size = round(mean([len(llm.tokenizer.encode(prompt.target, add_special=False)) for prompt in prompts]))
    base = baseline(scorer, _truncated(llm, corpus, writer.n), _truncated(llm, corpus, max(1, size)))
    session = llm.session()
    for setting in settings:
        of_prompts = [_samples(writer, session, prompt, setting, scorer, base) for prompt in prompts]
        measured = [diversity([words(sample.text) for sample in samples]) for samples in of_prompts]
        samples = tuple(sample for of_prompt in of_prompts for sample in of_prompt)
        yield QualityRow(
            model=llm.path.name,
            judge=(writer.judge or llm).path.name,
            scorer=scorer.name,
            baseline=base,
            setting=replace(setting, seed=writer.seed),
            diversity=Diversity(*map(mean_defined, zip(*map(astuple, measured), strict=True))),
            relevance=mean_score([sample.relevance for sample in samples]),
            fluency=_pooled([sample.fluency for sample in samples]),
            samples=samples,
        )


def _samples(
    writer: _TextGenerator, session: Session, prompt: Prompt, setting: Sampling, scorer: Scorer, base: Score
) -> list[Sample]:
    """The measured samples of one prompt."""
    written = writer.write(session, prompt, setting)
    scores = scorer([text for text, _ in written], [prompt.target] * len(written))
    return [
        Sample(prompt, writer.seed_of(number), text, rescale(score, base), fluency)
        for number, ((text, fluency), score) in enumerate(zip(written, scores, strict=True))
    ]


def _truncated(llm: LLM, texts: Sequence[str], size: int) -> list[str]:
    """The first `size` tokens of each text, as text."""
    return [llm.tokenizer.decode(llm.tokenizer.encode(text, add_special=False)[:size]) for text in texts]


def _fluency(logprobs: Sequence[float]) -> Fluency:
    return Fluency(mean(logprobs) if logprobs else math.nan, len(logprobs))


def _pooled(parts: Sequence[Fluency]) -> Fluency:
    total = sum(part.tokens for part in parts)
    nats = math.fsum(part.log_likelihood * part.tokens for part in parts if part.tokens)
    return Fluency(nats / total if total else math.nan, total)


def _plain(value: object) -> object:
    match value:
        case dict():
            return {name: _plain(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case float() if not math.isfinite(value):
            return None
    return value
