"""The JSON body of a request, of bounded size."""

import json
from collections.abc import Mapping

from anyio import to_thread
from starlette.requests import ClientDisconnect, Request

from minillama.server.http_errors import ErrorKind, RequestError

MOST_BYTES = 16 << 20
QUICK_BYTES = 1 << 16  # parsed on the event loop


async def read_json(request: Request) -> object:
    """The JSON value of a body.

    Raises RequestError for a body of more than `MOST_BYTES` (413) and for malformed JSON (500, as llama-server).
    """
    text = await _read_bytes(request)
    return parse_json(text) if len(text) < QUICK_BYTES else await to_thread.run_sync(parse_json, text)


async def read_object(request: Request) -> Mapping[str, object]:
    """The JSON object of a body; raises RequestError for another value."""
    found = await read_json(request)
    if not isinstance(found, dict):
        raise RequestError(ErrorKind.INVALID_REQUEST, f"the body is a JSON {_type_name(found)}; expected an object")
    return found


def parse_json(text: bytes) -> object:
    """A JSON value; raises RequestError (500) for anything else, NaN and Infinity included."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:  # also bytes that are not UTF-8, and numbers of thousands of digits
        reason = str(error)
    raise RequestError(ErrorKind.SERVER, f"the body is not valid JSON: {reason[:200]}")


async def _read_bytes(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MOST_BYTES:
        raise _too_large()
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > MOST_BYTES:
                raise _too_large()
            parts.append(part)
    except ClientDisconnect:
        raise RequestError(ErrorKind.INVALID_REQUEST, "the connection was closed before the end of the body") from None
    return b"".join(parts)


def _too_large() -> RequestError:
    return RequestError(ErrorKind.TOO_LARGE, f"the body has more than {MOST_BYTES} bytes; send a shorter one")


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a number of JSON")


def _type_name(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
