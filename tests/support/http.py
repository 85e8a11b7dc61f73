"""HTTP for tests, by the standard library: nothing of the venue's own client is in here."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple


class Got(NamedTuple):
    """An answer. Names of headers are in lower case; `json` is None for an empty body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body) if self.body else None

    @property
    def code(self) -> str:
        """The code of an error, "" for an answer that is none."""
        return str(self.json.get("code", ""))


class Caller:
    """Sends requests to one port, with or without a key, over a connection of its own."""

    def __init__(self, port: int, key: Mapping[str, str] | None = None) -> None:
        self.port = port
        self._key = key
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def __call__(self, method: str, target: str, body: Any = None,
                 headers: Mapping[str, str] | None = None) -> Got:
        """One request; `body` is JSON, or bytes as they are."""
        data = body if isinstance(body, bytes) else b"" if body is None \
            else json.dumps(body).encode()
        sent = dict(headers or {})
        if self._key is not None:
            sent = signed(self._key, method, target, data) | sent
        self._connection.request(method, target, data, sent)
        answer = self._connection.getresponse()
        return Got(answer.status, {name.lower(): value for name, value in answer.getheaders()},
                   answer.read())

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def signed(key: Mapping[str, str], method: str, target: str, body: bytes,
           at_ms: int | None = None) -> dict[str, str]:
    """The three headers of a signed request, as PROTOCOLS 7 says it."""
    stamp = str(time.time_ns() // 1_000_000 if at_ms is None else at_ms)
    text = "\n".join([stamp, method, target, ""]).encode() + body
    signature = hmac.new(key["secret"].encode(), text, hashlib.sha256).hexdigest()
    return {"X-MATCHD-KEY": key["key"], "X-MATCHD-TIMESTAMP": stamp,
            "X-MATCHD-SIGNATURE": signature}
