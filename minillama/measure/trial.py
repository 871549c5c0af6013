"""One test of llama-bench: a prompt, generated tokens, and the context before them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Trial:
    """One test: a prompt of random tokens, then tokens generated one by one, behind `n_depth` tokens of context."""

    n_prompt: int
    n_gen: int
    n_depth: int = 0

    @property
    def name(self) -> str:
        """As llama-bench calls it: `pp512`, `tg128`, `pp512+tg128`, `tg128 @ d2048`."""
        parts = [f"{kind}{count}" for kind, count in (("pp", self.n_prompt), ("tg", self.n_gen)) if count]
        return "+".join(parts) + (f" @ d{self.n_depth}" if self.n_depth else "")

    @property
    def positions(self) -> int:
        """Tokens of context that it takes."""
        return self.n_prompt + self.n_gen + self.n_depth
