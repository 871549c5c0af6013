"""One test of llama-bench: a prompt, generated tokens, and the context before them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Trial:
    """A prompt of random tokens, then generated tokens, both after `n_depth` tokens of context."""

    n_prompt: int
    n_gen: int
    n_depth: int = 0

    @property
    def name(self) -> str:
        """The name in llama-bench: `pp512`, `tg128`, `pp512+tg128`, `tg128 @ d2048`."""
        parts = [f"{kind}{count}" for kind, count in (("pp", self.n_prompt), ("tg", self.n_gen)) if count]
        return "+".join(parts) + (f" @ d{self.n_depth}" if self.n_depth else "")

    @property
    def positions(self) -> int:
        """Tokens of context in all."""
        return self.n_prompt + self.n_gen + self.n_depth
