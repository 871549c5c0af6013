"""Tokens that the device is sampling for the rows of a step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minillama.engine.backends.programs.verified_draft import VerifiedDraft
from minillama.engine.batching.executor import SampledToken
from minillama.engine.generation.top_probs import ReportedTop

Part = tuple[VerifiedDraft, dict[int, int]]  # tokens of one call, and the place of each row of the step among them


@dataclass(frozen=True)
class Draw:
    """The tokens of all calls of a step.

    chosen: for each row of the step, the call that has sampled it, and its place there.
    """

    drafts: tuple[VerifiedDraft, ...]
    chosen: tuple[tuple[int, int], ...]

    def read(self) -> list[tuple[SampledToken, ...]]:
        """Wait for the tokens of each row: several where a draft was right.

        The log-probability is NaN where a logit is.
        """
        arrays = [tuple(map(np.asarray, (draft.tokens, draft.logprobs))) for draft in self.drafts]
        counts = [None if draft.count is None else np.asarray(draft.count) for draft in self.drafts]
        found = []
        for part, place in self.chosen:
            (tokens, logprobs), count, top = arrays[part], counts[part], self.drafts[part].top
            found.append(
                tuple(
                    SampledToken(int(tokens[place, i]), float(logprobs[place, i]), ReportedTop(top, place, i))
                    for i in range(1 if count is None else count[place])
                )
            )
        return found


def joined(parts: Sequence[Part], count: int) -> Draw:
    """The first `count` rows of a step, each from its part."""
    chosen = {row: (part, place) for part, (_, places) in enumerate(parts) for row, place in places.items()}
    return Draw(tuple(draft for draft, _ in parts), tuple(chosen[row] for row in range(count)))
