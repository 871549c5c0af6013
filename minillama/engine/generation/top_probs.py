"""The likeliest tokens in the place of a sampled one, read from the device where they are wanted."""

from dataclasses import dataclass

import numpy as np

from minillama.engine.backends.programs import VerifiedDraft
from minillama.engine.result import TokenProb


@dataclass(frozen=True)
class ReportedTop:
    """The report of one token of a draft."""

    draft: VerifiedDraft
    row: int
    place: int = 0

    def likeliest(self, count: int) -> tuple[TokenProb, ...]:
        """The `count` likeliest tokens, likeliest first; without those of probability 0."""
        if not count or self.draft.top is None:
            return ()
        ids = np.asarray(self.draft.top.ids)[self.row, self.place, :count]
        logprobs = np.asarray(self.draft.top.logprobs)[self.row, self.place, :count]
        return tuple(
            TokenProb(int(token), float(logprob))
            for token, logprob in zip(ids, logprobs, strict=True)
            if logprob > -np.inf
        )

    @property
    def chosen(self) -> float | None:
        """The log-probability of the sampled token in the report."""
        top = self.draft.top
        return None if top is None else float(np.asarray(top.chosen)[self.row, self.place])
