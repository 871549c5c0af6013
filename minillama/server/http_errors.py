"""Errors of requests as JSON objects, in llama-server's form."""

import json
from dataclasses import dataclass
from enum import Enum

from starlette.responses import Response

from minillama.engine.batching.batch_errors import ContextSizeError, QueueFullError
from minillama.errors import MinillamaError, OptionError, UnsupportedError

JSON_TYPE = "application/json; charset=utf-8"


class ErrorKind(Enum):
    """The `type` of an error, and its HTTP status."""

    INVALID_REQUEST = ("invalid_request_error", 400)
    AUTHENTICATION = ("authentication_error", 401)
    PERMISSION = ("permission_error", 403)
    NOT_FOUND = ("not_found_error", 404)
    TOO_LARGE = ("invalid_request_error", 413)
    SERVER = ("server_error", 500)
    NOT_SUPPORTED = ("not_supported_error", 501)
    UNAVAILABLE = ("unavailable_error", 503)
    EXCEED_CONTEXT_SIZE = ("exceed_context_size_error", 400)

    def __init__(self, label: str, status: int) -> None:
        self.label, self.status = label, status


@dataclass
class RequestError(Exception):
    """A request that the server refuses; `more` are further keys of the error."""

    kind: ErrorKind
    message: str
    more: dict[str, object] | None = None

    def __str__(self) -> str:
        return self.message

    @property
    def body(self) -> dict[str, object]:
        """The value of `error` in the answer."""
        return {"code": self.kind.status, "message": self.message, "type": self.kind.label, **(self.more or {})}


def invalid(message: str) -> RequestError:
    """A request with a wrong value."""
    return RequestError(ErrorKind.INVALID_REQUEST, message)


def not_supported(message: str) -> RequestError:
    """A request for a feature that this server does not have."""
    return RequestError(ErrorKind.NOT_SUPPORTED, message)


def as_request_error(error: BaseException) -> RequestError:
    """The error of a request for any exception of its handler."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, ContextSizeError):
        message = (
            f"request ({error.count} tokens) exceeds the available context size ({error.ctx_size} tokens), "
            "try increasing it"
        )
        numbers = {"n_prompt_tokens": error.prompt_tokens, "n_ctx": error.ctx_size}
        return RequestError(ErrorKind.EXCEED_CONTEXT_SIZE, message, numbers)
    if isinstance(error, QueueFullError):
        return RequestError(ErrorKind.UNAVAILABLE, str(error))
    if isinstance(error, OptionError | UnsupportedError):
        return invalid(str(error))
    message = str(error) if isinstance(error, MinillamaError) else f"internal error: {type(error).__name__}"
    return RequestError(ErrorKind.SERVER, message)


def json_response(value: object, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(encode_json(value), status, media_type=JSON_TYPE)


def error_response(error: BaseException) -> Response:
    """The JSON answer of an exception."""
    found = as_request_error(error)
    return json_response({"error": found.body}, found.kind.status)


def encode_json(value: object) -> bytes:
    """Compact UTF-8 JSON; characters that are no text become U+FFFD."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
