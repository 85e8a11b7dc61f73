"""The OpenAPI 3.1 document, made from the table of routes and its types.

The types that check what comes in are the ones described here, so the two cannot differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from engine import __version__
from engine.api.examples import EXAMPLES, PARAMETERS
from engine.api.route import Access, Route
from engine.api.types import Error

Json = dict[str, Any]

_NAME = re.compile(r"\{(\w+)(?::path)?\}")
_REF = "#/components/schemas/{name}"
_JSON = "application/json"

ABOUT = """Orders, market data and operation of a matchd venue.

Prices and quantities are decimal texts, exact; times are nanoseconds since 1970 UTC; ids that may
pass 2^53 are texts. Every error has the same shape: a code for programs, a sentence for people.
`X-RateLimit-Limit`, `-Remaining` and `-Reset` (seconds since 1970) stand in every answer."""

ROLES = {Access.READ: "read-only", Access.TRADE: "trader", Access.ADMIN: "admin"}

STATUSES = {
    200: "Done.", 201: "Made, and durable.", 202: "Begun.",
    400: "The request is malformed.", 401: "Who calls is not known.",
    403: "The key's role does not allow it.", 404: "There is no such thing.",
    409: "It contradicts what is there already.", 413: "The body is too large.",
    422: "A rule of the venue rejects it.", 429: "Too many requests.",
    503: "The venue cannot answer this now; try again.",
}

SCHEMES: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The token of a key."},
    "key": {"type": "apiKey", "in": "header", "name": "X-MATCHD-KEY",
            "description": "Signed requests: the key's id."},
    "timestamp": {"type": "apiKey", "in": "header", "name": "X-MATCHD-TIMESTAMP",
                  "description": "Signed requests: milliseconds since 1970 UTC."},
    "signature": {"type": "apiKey", "in": "header", "name": "X-MATCHD-SIGNATURE",
                  "description": "Signed requests: hex HMAC-SHA256 with the key's secret over "
                  "TIMESTAMP\\nMETHOD\\nPATH?QUERY\\nBODY."},
}


def document(routes: Iterable[Route], demo: bool = False) -> Json:
    """The document. `demo`: requests without credentials act as an account here."""
    shown = sorted((route for route in routes if not route.hidden),
                   key=lambda route: (route.tag, route.path))
    kinds = _kinds(shown)
    schemas = _Schemas(kinds)
    paths: dict[str, Json] = {}
    for route in shown:
        path = _NAME.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schemas, demo)
    return {
        "openapi": "3.1.0",
        "info": {"title": "matchd", "version": __version__, "description": ABOUT,
                 "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in shown)],
        "paths": paths,
        "components": {"schemas": schemas.components, "securitySchemes": SCHEMES,
                       "responses": _error_responses(schemas), "headers": _rate_headers()},
    }


def _kinds(routes: list[Route]) -> list[Any]:
    kinds: list[Any] = [Error]
    for route in routes:
        kinds += [kind for kind in (route.body, route.query, route.answer) if kind is not None]
    return kinds


class _Schemas:
    """The schemas of all types, once each; queries become parameters and are taken out."""

    def __init__(self, kinds: list[Any]) -> None:
        unique = list({id(kind): kind for kind in kinds}.values())
        found, components = msgspec.json.schema_components(unique, ref_template=_REF)
        self._by_kind = {id(kind): schema for kind, schema in zip(unique, found, strict=True)}
        self._all = {name: _tidy(schema) for name, schema in components.items()}
        for name, example in EXAMPLES.items():
            if name in self._all:
                self._all[name]["examples"] = [example]
        self._queries: set[str] = set()

    def of(self, kind: Any) -> Json:
        """The schema of a type: a reference for a structure."""
        schema: Json = self._by_kind[id(kind)]
        return schema

    def query(self, kind: Any) -> Json:
        """The whole schema of a query's type."""
        name = self.of(kind)["$ref"].rpartition("/")[2]
        self._queries.add(name)
        return self._all[name]

    @property
    def components(self) -> dict[str, Json]:
        """Those that something refers to, by name."""
        return {name: schema for name, schema in sorted(self._all.items())
                if name not in self._queries}


def _tidy(schema: Json) -> Json:
    """Docstrings as text that flows."""
    tidy = {key: _tidied(value) for key, value in schema.items()}
    if isinstance(tidy.get("description"), str):
        tidy["description"] = " ".join(tidy["description"].split())
    return tidy


def _tidied(value: Any) -> Any:
    if isinstance(value, dict):
        return _tidy(value)
    return [_tidied(one) for one in value] if isinstance(value, list) else value


def _operation(route: Route, schemas: _Schemas, demo: bool) -> Json:
    role = ROLES.get(route.access)
    needs = f"Needs a key with at least the role {role}." if role else "Needs no key."
    operation: Json = {
        "operationId": _operation_id(route), "tags": [route.tag], "summary": route.summary,
        "description": f"{route.description}\n\n{needs}".strip(),
        "responses": _responses(route, schemas), "security": _security(route, demo)}
    parameters = [*_path_parameters(route), *_query_parameters(route, schemas)]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        schema = schemas.of(route.body)
        operation["requestBody"] = {"required": bool(_required(schema, schemas)),
                                    "content": {_JSON: {"schema": schema}}}
    return operation


def _required(schema: Json, schemas: _Schemas) -> list[str]:
    name = schema.get("$ref", "").rpartition("/")[2]
    required: list[str] = schemas.components.get(name, schema).get("required", [])
    return required


def _operation_id(route: Route) -> str:
    words = re.findall(r"\w+", _NAME.sub(r"\1", route.path))
    return "_".join([route.method.lower(), *words])


def _security(route: Route, demo: bool) -> list[Json]:
    if route.access is Access.PUBLIC:
        return []
    signed: Json = {"key": [], "timestamp": [], "signature": []}
    anybody: list[Json] = [{}] if demo and route.access is not Access.ADMIN else []
    return [{"bearer": []}, signed, *anybody]


def _path_parameters(route: Route) -> list[Json]:
    return [{"name": name, "in": "path", "required": True,
             **PARAMETERS.get(name, {"schema": {"type": "string", "minLength": 1}})}
            for name in _NAME.findall(route.path)]


def _query_parameters(route: Route, schemas: _Schemas) -> list[Json]:
    if route.query is None:
        return []
    whole = schemas.query(route.query)
    required = whole.get("required", [])
    return [{"name": name, "in": "query", "required": name in required,
             "schema": _without_null(schema)} for name, schema in whole["properties"].items()]


def _without_null(schema: Json) -> Json:
    """What a query can say: a parameter is absent, never null."""
    choices = [choice for choice in schema.get("anyOf", []) if choice != {"type": "null"}]
    kept = {key: value for key, value in schema.items()
            if key != "anyOf" and not (key == "default" and value is None)}
    if len(choices) == 1:
        return {**choices[0], **kept}
    return {**kept, "anyOf": choices} if choices else kept


def _responses(route: Route, schemas: _Schemas) -> Json:
    schema = {"type": "string"} if route.answer is None else schemas.of(route.answer)
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in _rate_headers()}
    content: Json = {route.content_type: {"schema": schema}}
    for other in route.content_types:
        content[other] = {"schema": {"type": "string"} if other.startswith("text/") else {}}
    found: Json = {str(status): {"description": text, "headers": headers, "content": content}
                   for status, text in ((route.status, STATUSES[route.status]), *route.also)}
    for status in sorted(_errors(route)):
        found.setdefault(str(status), {"$ref": f"#/components/responses/Error{status}"})
    return found


def _error_responses(schemas: _Schemas) -> Json:
    content = {_JSON: {"schema": schemas.of(Error)}}
    return {f"Error{status}": {"description": text, "content": content}
            for status, text in STATUSES.items() if status >= 400}


def _errors(route: Route) -> set[int]:
    """The errors that the gateway itself may answer, and the route's own."""
    found = {400, 429, 503, *route.errors}
    if route.access is not Access.PUBLIC:
        found |= {401, 403}
    if route.body is not None:
        found.add(413)
    return found


def _rate_headers() -> Json:
    return {
        "X-RateLimit-Limit": {"description": "Requests in a second.",
                              "schema": {"type": "integer"}},
        "X-RateLimit-Remaining": {"description": "How many are left in this second.",
                                  "schema": {"type": "integer"}},
        "X-RateLimit-Reset": {"description": "When this second is over, seconds since 1970 UTC.",
                              "schema": {"type": "integer"}},
    }
