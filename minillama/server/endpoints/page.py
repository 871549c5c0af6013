"""The page at `/`: its files, or those of a folder (`--path`)."""

from pathlib import Path

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from minillama.server.endpoints.endpoint import Endpoint
from minillama.server.http_errors import ErrorKind, RequestError
from minillama.server.model_host import ModelHost

FOLDER = Path(__file__).resolve().parents[1] / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
FILES = tuple(sorted(path.name for path in FOLDER.iterdir() if path.suffix in TYPES))
# The page loads its own files only, runs no inline script, and is shown in no other page.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


async def get_page(request: Request, host: ModelHost) -> Response:
    """The page itself."""
    if host.settings.static_path is not None:
        return await _file_of(host.settings.static_path, "index.html")
    return await _own_file("index.html", host)


async def get_page_file(request: Request, host: ModelHost) -> Response:
    """A script or the styles of the page."""
    return await _own_file(request.url.path.rpartition("/")[2], host)


async def get_other_file(request: Request, host: ModelHost) -> Response:
    """A file of `--path`; 404 without that option."""
    if host.settings.static_path is None:
        raise RequestError(ErrorKind.NOT_FOUND, "File Not Found")
    return await _file_of(host.settings.static_path, request.path_params["file"])


async def _own_file(name: str, host: ModelHost) -> Response:
    if not host.settings.has_page or host.settings.static_path is not None:
        raise RequestError(ErrorKind.NOT_FOUND, "File Not Found")
    content = await to_thread.run_sync((FOLDER / name).read_bytes)
    return Response(content, headers=HEADERS, media_type=f"{TYPES[Path(name).suffix]}; charset=utf-8")


async def _file_of(folder: str, name: str) -> Response:
    """A regular file inside of a folder; links out of it are not followed."""
    base = Path(folder).resolve()
    path = (base / name).resolve()
    if not path.is_relative_to(base) or not path.is_file():
        raise RequestError(ErrorKind.NOT_FOUND, "File Not Found")
    return FileResponse(path)


_PATHS = tuple(f"/page/{name}" for name in FILES if name != "index.html")
ENDPOINTS = (
    Endpoint("GET", ("/", "/index.html"), get_page, is_public=True, is_early=True),
    Endpoint("GET", _PATHS, get_page_file, is_public=True, is_early=True),
)
OTHER_FILES = (
    Endpoint("GET", ("/{file:path}",), get_other_file, wakes=False),
)  # after all others: it matches every path
