"""Files of pages: read once, kept in memory, answered with an entity tag.

What is served is what stood in the folder at the start; nothing of a request ever becomes a name
of a file, so none outside the folder can be asked for.
"""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path

import msgspec

from engine.api.route import Access, ApiError, Call, Reply, Route

# Scripts are modules: they may load and connect to nothing but this venue.
POLICY = (b"content-security-policy",
           b"default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
           b"connect-src 'self' ws: wss:; frame-ancestors 'none'")
NO_SNIFF = (b"x-content-type-options", b"nosniff")
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".json": "application/json",
          ".map": "application/json", ".svg": "image/svg+xml", ".woff2": "font/woff2"}


class _File(msgspec.Struct, frozen=True):
    content: bytes
    content_type: bytes
    tag: bytes


class Folder:
    """Serves the files of a folder; `index` answers for the folder itself."""

    def __init__(self, folder: Path, index: str = "index.html") -> None:
        self._index = index
        self._paths = {path.relative_to(folder).as_posix(): path
                       for path in sorted(folder.rglob("*")) if path.is_file()}
        self._files: dict[str, _File] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._paths

    def routes(self, prefix: str) -> list[Route]:
        """Routes that serve the folder beneath `prefix` ("" for the root), one for each file."""
        routes = [_route(f"{prefix}/{name}", self, name) for name in self._paths]
        if self._index in self._paths:
            routes.append(_route(prefix or "/", self, self._index))
        return routes

    def reply(self, name: str, call: Call) -> Reply:
        """The file, or 304 when the caller has it. Raises ApiError 404."""
        file = self._files.get(name) or self._read(name)
        headers = ((b"etag", file.tag), (b"cache-control", b"no-cache"), POLICY, NO_SNIFF)
        for header, value in call.headers:
            if header == b"if-none-match" and file.tag in value:
                return Reply(304, b"", file.content_type, headers)
        return Reply(200, file.content, file.content_type, headers)

    def _read(self, name: str) -> _File:
        path = self._paths.get(name)
        if path is None:
            raise ApiError(404, "not_found", f"there is no file {name!r} here")
        content = path.read_bytes()
        kind = _TYPES.get(path.suffix) or mimetypes.guess_type(name)[0] \
            or "application/octet-stream"
        if kind.startswith("text/"):
            kind += "; charset=utf-8"
        tag = b'"%s"' % hashlib.sha256(content).hexdigest()[:24].encode()
        return self._files.setdefault(name, _File(content, kind.encode(), tag))


def _route(path: str, folder: Folder, name: str) -> Route:
    async def handler(call: Call) -> Reply:
        return folder.reply(name, call)

    return Route(method="GET", path=path, handler=handler, summary=f"The file {name}",
                 access=Access.PUBLIC, tag="Pages", hidden=True)
