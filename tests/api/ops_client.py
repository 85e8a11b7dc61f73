"""Requests to a running daemon for the tests of the operator's routes."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from typing import Any

from tests.support.daemon import Daemon


class Operator:
    """Speaks HTTP as an operator does; `token` is an admin's."""

    def __init__(self, daemon: Daemon, token: str = "") -> None:
        self._base = f"http://127.0.0.1:{daemon.api_port}"
        self._token = token

    def on(self, port: int) -> None:
        """Ask another port from now on."""
        self._base = f"http://127.0.0.1:{port}"

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, body."""
        data = body if isinstance(body, bytes) else (
            None if body is None else json.dumps(body).encode())
        request = urllib.request.Request(self._base + path, data=data, method=method)
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, _lower(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, _lower(error.headers), error.read()

    def get(self, path: str, status: int = 200) -> Any:
        """The JSON of a GET."""
        return self._json("GET", path, None, status)

    def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        """The JSON of a POST."""
        return self._json("POST", path, body, status)

    def _json(self, method: str, path: str, body: Any, status: int) -> Any:
        found, headers, text = self.ask(method, path, body)
        assert found == status, (found, text)
        assert headers["content-type"] == "application/json"
        return json.loads(text)


def _lower(headers: Any) -> dict[str, str]:
    return {key.lower(): value for key, value in headers.items()}


def make_token(daemon: Daemon, account: str, role: str) -> str:
    """A key's bearer token; the running daemon knows it when this returns."""
    made = daemon.run("key", "make", account, "--role", role, "--json")
    assert made.returncode == 0, made.stderr
    token = json.loads(made.stdout)["token"]
    assert re.fullmatch(r"\S{20,}", token)
    return str(token)
