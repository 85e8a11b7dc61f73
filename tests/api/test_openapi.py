"""The OpenAPI document: valid, whole, and true to the routes; the page that shows it."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from msgspec import Meta
from openapi_spec_validator import validate

from engine.api.openapi import document
from engine.api.route import Access, Call, Reply, Route
from tests.api.ops_client import Operator
from tests.support.daemon import Daemon


class Filter(msgspec.Struct, forbid_unknown_fields=True):
    symbol: Annotated[str, Meta(min_length=1)]
    limit: Annotated[int, Meta(ge=1, le=10)] = 5
    before: int | None = None


class Thing(msgspec.Struct):
    """A thing
    on two lines."""

    name: str
    parts: list[Part] = []


class Part(msgspec.Struct):
    size: int


class Optional(msgspec.Struct):
    size: int = 0


async def nothing(call: Call) -> Reply:
    return Reply()


def route(method: str, path: str, **more: Any) -> Route:
    return Route(method=method, path=path, handler=nothing, summary="Do it", **more)


def test_a_route_is_described_by_its_types() -> None:
    found = document([
        route("GET", "/things/{id}", query=Filter, answer=Thing, errors=(404,)),
        route("POST", "/things", body=Thing, answer=Thing, status=201, access=Access.ADMIN),
        route("PUT", "/things", body=Optional, access=Access.PUBLIC),
        route("GET", "/page", hidden=True)])
    validate(found)
    assert set(found["paths"]) == {"/things/{id}", "/things"}
    get = found["paths"]["/things/{id}"]["get"]
    assert [(one["name"], one["in"], one["required"]) for one in get["parameters"]] == [
        ("id", "path", True), ("symbol", "query", True), ("limit", "query", False),
        ("before", "query", False)]
    assert get["parameters"][2]["schema"] == {"type": "integer", "minimum": 1, "maximum": 10,
                                              "default": 5}
    assert get["parameters"][3]["schema"] == {"type": "integer"}
    assert set(get["responses"]) == {"200", "400", "401", "403", "404", "429", "503"}
    post = found["paths"]["/things"]["post"]
    assert post["requestBody"]["required"] is True
    assert "201" in post["responses"] and "413" in post["responses"]
    assert "role admin" in post["description"]
    put = found["paths"]["/things"]["put"]
    assert put["requestBody"]["required"] is False and put["security"] == []
    schemas = found["components"]["schemas"]
    assert set(schemas) == {"Error", "Optional", "Part", "Thing"}
    assert schemas["Thing"]["description"] == "A thing on two lines."


def test_the_demo_account_is_a_way_in_but_not_for_admins() -> None:
    routes = [route("GET", "/a", access=Access.READ), route("GET", "/b", access=Access.ADMIN)]
    paths = document(routes, demo=True)["paths"]
    assert {} in paths["/a"]["get"]["security"]
    assert {} not in paths["/b"]["get"]["security"]
    assert {} not in document(routes)["paths"]["/a"]["get"]["security"]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Any:
    daemon = Daemon(tmp_path_factory.mktemp("openapi"))
    yield daemon.start()
    daemon.kill()


@pytest.fixture(scope="module")
def found(daemon: Daemon) -> Any:
    return Operator(daemon).get("/openapi.json")


def test_the_daemons_document_is_valid(found: Any) -> None:
    validate(found)
    assert found["openapi"] == "3.1.0"


def test_every_example_is_what_its_schema_says(found: Any) -> None:
    examples = 0
    for name, schema in found["components"]["schemas"].items():
        whole = {**schema, "components": found["components"]}
        for example in schema.get("examples", []):
            Draft202012Validator(whole).validate(example)
            examples += 1
            if "properties" in schema:
                assert set(example) <= set(schema["properties"]), name
    assert examples >= 3


def test_every_operation_says_what_it_does_and_has_a_name_of_its_own(found: Any) -> None:
    operations = [operation for path in found["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert all(operation["summary"] and operation["tags"] for operation in operations)
    for path in ("/health", "/stats", "/clients", "/metrics", "/v1/account", "/openapi.json",
                 "/api/v1/performance/status", "/api/v1/performance/benchmark"):
        assert path in found["paths"]


def test_no_schema_is_left_over(found: Any) -> None:
    text = msgspec.json.encode(found).decode()
    for name in found["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text, name


def test_the_page_takes_everything_from_the_daemon(daemon: Daemon) -> None:
    operator = Operator(daemon)
    status, headers, page = operator.ask("GET", "/docs")
    assert status == 200 and headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'self'" in headers["content-security-policy"]
    named = re.findall(r'(?:src|href)="([^"]+)"', page.decode())
    assert not [name for name in named if not name.startswith(("/", "data:"))]
    for name in named:
        if name.startswith("/"):
            assert operator.ask("GET", name)[0] == 200, name
