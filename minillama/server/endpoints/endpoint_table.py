"""All endpoints of the server. A module of endpoints adds its table here."""

from minillama.server.endpoints import completions, refused, status, text
from minillama.server.endpoints.endpoint import Endpoint

TABLES: tuple[tuple[Endpoint, ...], ...] = (
    status.ENDPOINTS,
    text.ENDPOINTS,
    completions.ENDPOINTS,
    refused.ENDPOINTS,
)
