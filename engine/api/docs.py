"""`GET /openapi.json` and `GET /docs`: the description of the gateway, and a page to read and try
it. The page's scripts are the package's own (`make build` brings them), so it works offline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from engine.api.files import NO_SNIFF, POLICY
from engine.api.openapi import document
from engine.api.route import Access, Call, Handler, Reply, Route

VENDOR = Path(__file__).parent / "vendor" / "swagger-ui"

PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>matchd: HTTP interface</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/vendor/swagger-ui/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<noscript>This page needs scripts; the document itself is <a href="/openapi.json">openapi.json</a>.
</noscript>
<script src="/vendor/swagger-ui/swagger-ui-bundle.js"></script>
<script src="/docs/page.js"></script>
</body>
</html>
"""
SCRIPT = b"""window.page = SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#page", deepLinking: true, validatorUrl: null,
  docExpansion: "list", defaultModelsExpandDepth: 0, tryItOutEnabled: true,
});
"""
WITHOUT = b"""<!doctype html>
<title>matchd: HTTP interface</title>
<p>Swagger UI was not brought when this was built (<code>make build</code> brings it). The document
itself is <a href="/openapi.json">openapi.json</a>.
"""


class DocsDesk:
    """Answers with the document of the routes it is given. `demo` says whether requests without
    credentials act as an account now."""

    def __init__(self, routes: Callable[[], list[Route]], demo: Callable[[], bool]) -> None:
        self._routes, self._demo = routes, demo
        self._made: dict[bool, bytes] = {}

    def routes(self) -> list[Route]:
        """For the gateway's table."""
        return [
            _route("/openapi.json", self.document, "This document", dict),
            _route("/docs", self.page, "A page to read and try it", None, hidden=True),
            _route("/docs/page.js", self.script, "The page's script", None, hidden=True),
        ]

    async def document(self, call: Call) -> Reply:
        """`GET /openapi.json`."""
        demo = self._demo()
        if demo not in self._made:
            self._made[demo] = msgspec.json.encode(document(self._routes(), demo))
        return Reply(200, self._made[demo], headers=((b"access-control-allow-origin", b"*"),))

    async def page(self, call: Call) -> Reply:
        """`GET /docs`."""
        page = PAGE if (VENDOR / "swagger-ui-bundle.js").is_file() else WITHOUT
        return Reply(200, page, b"text/html; charset=utf-8", (POLICY, NO_SNIFF))

    async def script(self, call: Call) -> Reply:
        """`GET /docs/page.js`."""
        return Reply(200, SCRIPT, b"text/javascript; charset=utf-8", (POLICY, NO_SNIFF))


def _route(path: str, handler: Handler, summary: str, answer: object,
           hidden: bool = False) -> Route:
    return Route(method="GET", path=path, handler=handler, summary=summary, answer=answer,
                 access=Access.PUBLIC, tag="Operations", hidden=hidden)
