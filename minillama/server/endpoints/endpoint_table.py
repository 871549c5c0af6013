"""All endpoints of the server. A module of endpoints adds its table here."""

from minillama.server.endpoints import (
    completions,
    embedding_vectors,
    observation,
    page,
    refused,
    slot_files,
    status,
    text,
)
from minillama.server.endpoints.endpoint import Endpoint
from minillama.server.endpoints.protocols import messages, responses

TABLES: tuple[tuple[Endpoint, ...], ...] = (
    status.ENDPOINTS,
    text.ENDPOINTS,
    completions.ENDPOINTS,
    messages.ENDPOINTS,
    responses.ENDPOINTS,
    slot_files.ENDPOINTS,
    embedding_vectors.ENDPOINTS,
    refused.ENDPOINTS,
    page.ENDPOINTS,
    observation.ENDPOINTS,
    page.OTHER_FILES,  # last: it matches every path
)
