"""The fields of a request about guesses of a draft model: speculative.n_max, n_min and p_min."""

from collections.abc import Mapping

from minillama.engine.generate_options import LARGEST_DRAFT
from minillama.server.requests.fields import Field, Kind, read_fields
from minillama.server.settings import DraftSettings

MOST = Field(("speculative.n_max",), Kind.INT, 0, LARGEST_DRAFT)
LEAST = Field(("speculative.n_min",), Kind.INT, 0, LARGEST_DRAFT)
P_MIN = Field(("speculative.p_min",), low=0.0, high=1.0)


def read_draft(body: Mapping[str, object], defaults: DraftSettings) -> DraftSettings:
    """The settings of a request, else those of the command."""
    given = read_fields(body, (MOST, LEAST, P_MIN))
    most = given.get(MOST.name, defaults.most)
    return DraftSettings(
        most if most is None else int(most),
        int(given.get(LEAST.name, defaults.least)),
        float(given.get(P_MIN.name, defaults.p_min)),
    )
