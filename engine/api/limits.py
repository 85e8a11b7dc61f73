"""Requests per second, of a key or of an address, and the headers that tell about them."""

from __future__ import annotations

from engine import clock
from engine.addresses import network_of
from engine.api.route import ApiError, Headers, Identity

# Addresses are forgotten together beyond so many, so that a scan cannot grow this.
ADDRESSES_MAX = 10_000
# Failed logins of one address in a second before it is told to wait.
FAILURES_PER_SECOND = 20


class Window:
    """Windows of one second: each begins with the first request after the last one ended."""

    __slots__ = ("_limit_text", "_reset_text", "limit", "spent", "started_ns")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.spent = 0
        self.started_ns = 0
        self._limit_text = b"%d" % limit
        self._reset_text = b"0"

    def take(self, now_ns: int) -> bool:
        """Count a request; False when it is one too many."""
        if now_ns - self.started_ns >= clock.NS_PER_S or now_ns < self.started_ns:
            self.started_ns, self.spent = now_ns, 0
            self._reset_text = b"%d" % (now_ns // clock.NS_PER_S + 1)
        self.spent += 1
        return self.spent <= self.limit

    def headers(self) -> Headers:
        """How much is left in this window; Reset is the second (since 1970 UTC) it is over."""
        left = self.limit - self.spent
        return ((b"x-ratelimit-limit", self._limit_text),
                (b"x-ratelimit-remaining", b"%d" % left if left > 0 else b"0"),
                (b"x-ratelimit-reset", self._reset_text))


class Client:
    """Somebody who calls: who it is, and how often."""

    __slots__ = ("identity", "window")

    def __init__(self, identity: Identity, requests_per_second: int) -> None:
        self.identity = identity
        self.window = Window(requests_per_second)

    def admit(self, now_ns: int) -> None:
        """Count a request. Raises ApiError 429 when it is one too many."""
        if not self.window.take(now_ns):
            raise too_many(f"more than {self.window.limit} requests in a second",
                           self.window.headers())


class Addresses:
    """Windows by address."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._windows: dict[bytes, Window] = {}

    def window(self, address: str) -> Window:
        """The window of one address (of IPv6 the network of 64 bits), made at the first call."""
        network = network_of(address)
        found = self._windows.get(network)
        if found is None:
            if len(self._windows) >= ADDRESSES_MAX:
                self._windows.clear()
            found = self._windows[network] = Window(self._limit)
        return found


def too_many(message: str, headers: Headers = ()) -> ApiError:
    """The answer to what came too often."""
    return ApiError(429, "rate_limited", message, headers=(*headers, (b"retry-after", b"1")))
