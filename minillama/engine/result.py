"""The results of generation: pieces while it runs, a completion with timings at the end."""

from dataclasses import dataclass
from enum import Enum


class Reason(Enum):
    """Why generation ended."""

    STOP = "stop"  # the model sampled an end token
    WORD = "word"  # a stop string appeared
    LIMIT = "limit"  # `n` tokens were written
    LENGTH = "length"  # the context is full
    INTERRUPTED = "interrupted"  # the caller stopped it


class State(Enum):
    """The current activity of a stream."""

    WAITING = "waiting for a slot"
    PROMPT = "reading the prompt"
    COMPILING = "compiling"
    GENERATING = "generating"
    DONE = "done"


@dataclass(frozen=True)
class TokenProb:
    """A token and its log-probability (natural)."""

    token: int
    logprob: float


@dataclass(frozen=True)
class Piece:
    """One generated token.

    `text` is empty while a character, a possible stop string or a possible marker of thoughts is incomplete.
    """

    text: str
    token: int
    logprob: float  # natural logarithm of the token's probability before any sampling filter
    seconds: float  # since the previous token, compilation not counted; tokens of one verification share its time
    reasoning_content: str = ""  # of a chat: thoughts, which are not part of `text`
    top: tuple[TokenProb, ...] = ()  # the n_probs likeliest tokens in its place
    post_logprob: float | None = None  # the token's log-probability after the sampler chain, with post_sampling_probs


@dataclass(frozen=True)
class Timings:
    """Seconds of one call.

    Compilation is reported separately: it is part of `compile` and `total` only.
    """

    load: float  # opening the model, once
    compile: float
    prompt: float  # evaluating the prompt
    first_token: float  # from the call to the first token, without compilation
    total: float
    prompt_tokens: int  # evaluated, not counting those that a session had in its cache
    generated_tokens: int
    token_seconds: tuple[float, ...]  # of each token after the first
    drafted_tokens: int = 0  # guessed by prompt lookup or a draft model
    accepted_tokens: int = 0  # of these, written: the model chose the same

    @property
    def prompt_per_second(self) -> float:
        """Prompt tokens per second; 0 where none was evaluated."""
        return self.prompt_tokens / self.prompt if self.prompt > 0 else 0.0

    @property
    def generated_per_second(self) -> float:
        """Tokens per second after the first, which the prompt's evaluation pays for.

        0 for a single token.
        """
        seconds = sum(self.token_seconds)
        return len(self.token_seconds) / seconds if seconds > 0 else 0.0

    @property
    def accept_rate(self) -> float:
        """Share of the drafted tokens that were right; 0 where none was drafted."""
        return self.accepted_tokens / self.drafted_tokens if self.drafted_tokens else 0.0


@dataclass(frozen=True)
class Completion:
    """A finished generation; `str()` of it is its text, without the prompt and without thoughts."""

    text: str
    tokens: tuple[int, ...]  # an end token included
    logprobs: tuple[float, ...]
    reason: Reason
    prompt_tokens: int
    seed: int  # the actual one, also where a random one was wanted
    timings: Timings
    reasoning_content: str = ""  # the thoughts before the answer of a chat
    top: tuple[tuple[TokenProb, ...], ...] = ()  # of each token, with n_probs

    @property
    def message(self) -> dict[str, str]:
        """The answer as a message of the conversation.

        The thoughts have the two names that templates know; the template decides whether the model sees them again.
        """
        message = {"role": "assistant", "content": self.text}
        if self.reasoning_content:
            message |= {"reasoning_content": self.reasoning_content, "thinking": self.reasoning_content}
        return message

    def __str__(self) -> str:
        return self.text
