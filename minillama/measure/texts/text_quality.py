"""What sampling settings do to a model's texts: how diverse, how near to a reference and how likely they are."""

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
    """A prompt, and a text that answers to it should be near to; None for the prompt itself."""

    text: str
    reference: str | None = None

    @property
    def target(self) -> str:
        return self.text if self.reference is None else self.reference


@dataclass(frozen=True)
class Fluency:
    """How likely a judge finds texts behind their prompts."""

    log_likelihood: float  # nats, the mean of all tokens; nan for none
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(-log_likelihood)."""
        return math.exp(-self.log_likelihood)


@dataclass(frozen=True)
class Sample:
    """One text of a model. `relevance` is rescaled."""

    prompt: Prompt
    seed: int
    text: str
    relevance: Score
    fluency: Fluency


@dataclass(frozen=True)
class QualityRow:
    """What was measured under one setting.

    `diversity` is of the texts of one prompt, as the mean over the prompts; `relevance` and `fluency` are of all texts,
    fluency with each token counting the same.
    """

    model: str
    judge: str  # whose likelihoods `fluency` has
    scorer: str
    baseline: Score  # of `relevance` before it was rescaled
    setting: Sampling
    diversity: Diversity
    relevance: Score
    fluency: Fluency
    samples: tuple[Sample, ...]

    def as_dict(self) -> dict[str, object]:
        """The same as plain values, ready for `json.dumps`; None for what is nan."""
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
    """Let a model write `samples` texts of up to n tokens for every prompt under every setting; a row a setting.

    settings: as `llm.sampling(temp=0.2)` makes them; of their seeds nothing is taken.
    seed: of each prompt's first sample, seed + 1 of its second and so on, the same under every setting; -1: random.
    chat: whether prompts are messages for the chat template; None: where the model has one.
    judge: the model whose likelihoods and hidden states count; None for the one that writes.
    scorer: what relevance is measured with; None for the judge's hidden states.
    corpus: unrelated texts, for idf weights and the baseline: what pairs of them, cut to the sizes of answers and of
    references, score at random. None for the held-out stories that come with minillama.
    Raises OptionError for impossible values and for what does not fit in a context.
    """
    for name, value in (("samples", samples), ("n", n), ("prompts", len(prompts)), ("settings", len(settings))):
        if value < 1:
            raise OptionError(f"{name} is {value}; expected at least 1")
    chat = llm.template is not None if chat is None else chat
    asked = [Prompt(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
    corpus = heldout_texts() if corpus is None else corpus
    if len(corpus) < 2:
        raise OptionError(f"the corpus has {len(corpus)} texts; the baseline needs pairs of different ones")
    scorer = scorer or hidden_scorer(judge or llm, [*corpus, *(prompt.target for prompt in asked)])
    writer = _TextGenerator(llm, judge, chat, samples, n, resolve_seed(seed), advance)
    return _rows(writer, asked, settings, scorer, corpus)


def heldout_texts() -> list[str]:
    """The stories that come with minillama and that no model was trained on."""
    return [line for line in data_file("heldout.txt").read_text(encoding="utf-8").splitlines() if line]


def baseline(scorer: Scorer, candidates: Sequence[str], references: Sequence[str]) -> Score:
    """The mean score of random pairs of a candidate and another one's reference; the texts stand side by side."""
    pairs = random_pairs(BASELINE_PAIRS, len(candidates))
    return mean_score(scorer([candidates[one] for one, _ in pairs], [references[other] for _, other in pairs]))


def prompt_prefix(llm: LLM, prompt: str, chat: bool) -> str:
    """The text that stands before an answer: the prompt, or what the chat template makes of it as a message."""
    return llm.render([{"role": "user", "content": prompt}]) if chat else prompt


def tokenise_continuation(llm: LLM, before: str, text: str) -> Continuation:
    """Token ids of two texts as one, the second beginning where the tokens differ from those of the first alone (they
    may meet in one token)."""

    def ids(of: str) -> list[int]:
        bos = llm.tokenizer.bos if llm.tokenizer.add_bos else None
        marked = of if bos is None else of.removeprefix(llm.tokenizer.tokens[bos])  # a template may have written it
        return ([] if bos is None else [bos]) + llm.tokenizer.encode(marked, add_special=False)

    alone, together = ids(before), ids(before + text)
    start = 0
    while start < min(len(alone), len(together)) and alone[start] == together[start]:
        start += 1
    return Continuation(tuple(together), max(1, start))


@dataclass(frozen=True, eq=False)
class _TextGenerator:
    """Writes samples and says how likely they are."""

    llm: LLM
    judge: LLM | None
    chat: bool
    samples: int
    n: int
    seed: int
    advance: Advance

    def write(self, session: Session, prompt: Prompt, setting: Sampling) -> list[tuple[str, Fluency]]:
        """The samples of one prompt: their texts, and their likelihoods without the end token's."""
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
    """The measured texts of one prompt."""
    written = writer.write(session, prompt, setting)
    scores = scorer([text for text, _ in written], [prompt.target] * len(written))
    return [
        Sample(prompt, writer.seed_of(number), text, rescale(score, base), fluency)
        for number, ((text, fluency), score) in enumerate(zip(written, scores, strict=True))
    ]


def _truncated(llm: LLM, texts: Sequence[str], size: int) -> list[str]:
    """The first `size` tokens of each text."""
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
