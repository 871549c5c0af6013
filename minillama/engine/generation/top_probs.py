"""The likeliest tokens in the place of a sampled one.

They are read from the device only where they are wanted.
"""

from dataclasses import dataclass

import numpy as np

from minillama.engine.result import TokenProb
from minillama.sampling.stages.top_tokens import TopTokens


@dataclass(frozen=True)
class ReportedTop:
    """The report of one token of a draft.

    top: of the whole draft, [B, T, n]; None without a report.
    """

    top: TopTokens | None
    row: int
    place: int = 0

    def likeliest(self, count: int) -> tuple[TokenProb, ...]:
        """The `count` likeliest tokens, likeliest first; without those of probability 0."""
        if not count or self.top is None:
            return ()
        ids = np.asarray(self.top.ids)[self.row, self.place, :count]
        logprobs = np.asarray(self.top.logprobs)[self.row, self.place, :count]
        return tuple(
            TokenProb(int(token), float(logprob))
            for token, logprob in zip(ids, logprobs, strict=True)
            if logprob > -np.inf
        )

    @property
    def chosen(self) -> float | None:
        """The log-probability of the sampled token in the report."""
        return None if self.top is None else float(np.asarray(self.top.chosen)[self.row, self.place])
