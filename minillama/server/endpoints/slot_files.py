"""Slots on disk: `/slots/N?action=save`, `restore` and `erase`.

Files are in the folder of --slot-save-path; a request names a file in it, without a path.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from minillama.engine.batching.batch_errors import SlotBusyError
from minillama.engine.batching.device.slot_file import read_slot, write_slot
from minillama.server.endpoints.endpoint import Endpoint
from minillama.server.http_errors import invalid, json_response, not_supported
from minillama.server.model_host import ModelHost
from minillama.server.request_body import read_object

Result = TypeVar("Result")
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,127}")
POLL_SECONDS = 0.05  # between looks at a busy slot


async def post_slot_action(request: Request, host: ModelHost) -> Response:
    """Save, restore or erase a slot; waits until it is idle."""
    if host.settings.slot_save_path is None:
        raise not_supported("This server does not support slots action. Start it with `--slot-save-path`")
    number = _slot_number(request.path_params["id_slot"], host)
    match request.query_params.get("action"):
        case "save":
            path = _file(await read_object(request), host)
            return json_response(await _when_idle(host, lambda: save(host, number, path)))
        case "restore":
            path = _file(await read_object(request), host)
            return json_response(await _when_idle(host, lambda: restore(host, number, path)))
        case "erase":
            erased = await _when_idle(host, lambda: host.engine.erase_slot(number))
            return json_response({"id_slot": number, "n_erased": erased})
    raise invalid("Invalid action")


def save(host: ModelHost, number: int, path: Path) -> dict[str, object]:
    """Write the text of a slot to a file."""
    began = time.perf_counter()
    tokens, saved = host.engine.save_slot(number)
    if not tokens:
        raise invalid(f"slot {number} holds no text; send a prompt to it first")
    size = write_slot(path, tokens, host.model_fingerprint, saved.arrays)
    answer = {"id_slot": number, "filename": path.name, "n_saved": len(tokens), "n_written": size}
    return answer | {"timings": {"save_ms": 1000 * (time.perf_counter() - began)}}


def restore(host: ModelHost, number: int, path: Path) -> dict[str, object]:
    """Put the text of a file into a slot."""
    began, engine = time.perf_counter(), host.engine
    found = read_slot(path, host.model_fingerprint, lambda count: engine.slot_like(count).arrays, engine.ctx_size)
    if max(found.tokens) >= host.llm.tokenizer.size:
        raise invalid(f"{path.name} has tokens that the model does not have")
    engine.restore_slot(number, found.tokens, found.arrays)
    answer = {"id_slot": number, "filename": path.name, "n_restored": len(found.tokens), "n_read": found.nbytes}
    return answer | {"timings": {"restore_ms": 1000 * (time.perf_counter() - began)}}


async def _when_idle(host: ModelHost, action: Callable[[], Result]) -> Result:
    """The result of an action; tried again while the slot has a request."""
    while True:
        try:
            return await host.ask_engine(action)
        except SlotBusyError:
            await asyncio.sleep(POLL_SECONDS)


def _slot_number(text: str, host: ModelHost) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text) or int(text) >= host.engine.slots:
        raise invalid("Invalid slot ID")
    return int(text)


def _file(body: Mapping[str, object], host: ModelHost) -> Path:
    name = body.get("filename")
    if not isinstance(name, str) or not FILE_NAME.fullmatch(name) or name.endswith((" ", ".")):
        raise invalid("Invalid filename")
    return Path(str(host.settings.slot_save_path)) / name


ENDPOINTS = (Endpoint("POST", ("/slots/{id_slot}",), post_slot_action),)
