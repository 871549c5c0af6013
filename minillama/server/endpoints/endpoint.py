"""One row of the table of endpoints."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import ASGIApp

from minillama.server.model_host import ModelHost

Handler = Callable[[Request, ModelHost], Awaitable[ASGIApp]]  # the answer is a Response or another ASGI application


@dataclass(frozen=True)
class Endpoint:
    """A handler and its paths; `{name}` in a path is a parameter.

    is_public: it needs no API key. is_early: it answers before the model is loaded. wakes: it uses the model, which is
    loaded again if it sleeps.
    """

    method: str
    paths: tuple[str, ...]
    handler: Handler
    is_public: bool = False
    is_early: bool = False
    wakes: bool = True
