"""Who calls: signed requests, bearer tokens, and the demo account on loopback (PROTOCOLS 7).

A signature is the hex HMAC-SHA256 with the key's secret over
`TIMESTAMP\\nMETHOD\\nPATH?QUERY\\nBODY`; the timestamp is in milliseconds and must be near the
venue's clock. A signature may be used again within that window, so a client that sends orders
gives each a client_order_id: the second one is then answered, and not traded, again.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from engine import clock, log
from engine.accounts import Account, AccountTable, demo_accounts
from engine.api.keys import Key, KeyFile, secret_of, token_of
from engine.api.limits import FAILURES_PER_SECOND, Addresses, Client, too_many
from engine.api.route import Access, ApiError, Headers, Identity
from engine.config import ApiConfig, is_loopback
from engine.errors import EngineError

ACCESS = {"read-only": Access.READ, "trader": Access.TRADE, "admin": Access.ADMIN}
DEMO_KEY = "demo"
_CHALLENGE = ((b"www-authenticate", b'Bearer realm="matchd"'),)
_TIMESTAMP_DIGITS_MAX = 15
# `matchd key` tells a running daemon at once; this is for keys.json that came another way.
FOLLOW_S = 1.0


class Credentials(NamedTuple):
    """The headers that matter here; empty where they are missing."""

    authorization: bytes = b""
    key: bytes = b""
    timestamp: bytes = b""
    signature: bytes = b""
    host: bytes = b""
    origin: bytes = b""


class _Known:
    """A key with all that is derived from it."""

    __slots__ = ("client", "key", "secret", "token")

    def __init__(self, key: Key, master: bytes, client: Client) -> None:
        self.key, self.client = key, client
        self.secret = secret_of(master, key.id).encode()
        self.token = token_of(master, key.id).encode()


class Auth:
    """Tells who sent a request, by the keys of a data directory."""

    def __init__(self, config: ApiConfig, accounts: Iterable[Account], keys: KeyFile) -> None:
        self._limit = config.requests_per_second
        self._window_ms = config.recv_window_ms
        self._accounts = AccountTable.of(accounts).by_name
        self._file = keys
        self._stamp = (-1, 0, 0)
        self._known: dict[str, _Known] = {}
        self._failures = Addresses(FAILURES_PER_SECOND)
        self._demo: Client | None = None
        self._log = log.get("api")

    # -- the tables ----------------------------------------------------------------------------

    def act_as(self, username: str) -> None:
        """From now on a request without credentials acts as this account, "" is nobody. Only for
        loopback."""
        if not username:
            self._demo = None
            return
        account = self._accounts[username]
        access = min(ACCESS[account.role], Access.TRADE)
        self._log.warning("requests without credentials act as the demo account",
                          account=username)
        self._demo = Client(Identity(account.id, username, access, DEMO_KEY), self._limit)

    @property
    def demo(self) -> Identity | None:
        """Who acts without credentials, if anybody may."""
        return self._demo.identity if self._demo else None

    @property
    def key_count(self) -> int:
        """How many keys are known, those that are over included."""
        return len(self._known)

    async def follow(self) -> None:
        """Read the keys again whenever their file changes, for ever."""
        while True:
            await asyncio.sleep(FOLLOW_S)
            self.reload()

    def reload(self, force: bool = False) -> bool:
        """Read the keys again when their file has changed; returns whether it had. A file that
        cannot be read is an error in the log, and the keys stay as they were."""
        stamp = self._file.stamp()
        if stamp == self._stamp and not force:
            return False
        self._stamp = stamp
        try:
            keys = self._file.read()
            master = self._file.master() if keys else b""
        except EngineError as error:
            self._log.error("keys not read", error=str(error))
            return False
        self._known = {key.id: self._entry(key, master) for key in keys
                       if key.account in self._accounts}
        self._log.info("keys read", keys=len(keys), unknown_accounts=len(keys) - len(self._known))
        return True

    def _entry(self, key: Key, master: bytes) -> _Known:
        account = self._accounts[key.account]
        identity = Identity(account.id, account.username,
                            min(ACCESS[key.role], ACCESS[account.role]), key.id)
        before = self._known.get(key.id)
        client = Client(identity, self._limit)
        if before is not None:
            # A reload gives nobody a new allowance.
            client.window = before.client.window
        return _Known(key, master, client)

    # -- requests ------------------------------------------------------------------------------

    def identify(self, method: str, target: bytes, headers: Headers, body: bytes,
                 address: str) -> Client:
        """Who sent this; `target` is the path with its query as sent. Raises ApiError 401, 403,
        429."""
        found = _credentials(headers)
        try:
            if found.signature or found.key:
                return self._admitted(self._by_signature(found, method, target, body), address)
            if found.authorization:
                return self._admitted(self._by_token(found.authorization), address)
        except ApiError as error:
            self._failed(error, address)
            raise
        if self._demo is not None:
            problem = _foreign(found.host, found.origin)
            if problem:
                raise ApiError(403, "not_local", problem)
            return self._demo
        raise _refused("credentials_missing", "this needs an API key: sign the request or send "
                       "Authorization: Bearer TOKEN")

    def by_token(self, token: str, address: str) -> Identity:
        """Who holds this token: for the feed. Raises ApiError 401, 403, 429."""
        try:
            return self._admitted(self._by_token(b"Bearer " + token.encode()), address).identity
        except ApiError as error:
            self._failed(error, address)
            raise

    def _failed(self, error: ApiError, address: str) -> None:
        """Count and log wrong credentials. Raises ApiError 429 when there were too many."""
        if not self._failures.window(address).take(clock.now_ns()):
            raise too_many("too many requests with wrong credentials") from None
        self._log.info("credentials refused", code=error.code, address=address, key=address)

    def _admitted(self, client: Client, address: str) -> Client:
        """The same client. Raises ApiError 403 when its account may not come from this address."""
        account = self._accounts[client.identity.username]
        if account.addresses and not account.admits_host(address):
            raise ApiError(403, "address_refused", "the account may not be used from this address")
        return client

    def _by_token(self, authorization: bytes) -> Client:
        scheme, _, token = authorization.partition(b" ")
        token = token.strip()
        known = self._known.get(token.partition(b".")[0].decode("latin-1"))
        if scheme.lower() != b"bearer" or known is None \
                or not hmac.compare_digest(known.token, token):
            raise _refused("bad_token", "this is no token of a key of this venue")
        return _valid(known)

    def _by_signature(self, found: Credentials, method: str, target: bytes,
                      body: bytes) -> Client:
        known = self._known.get(found.key.decode("latin-1"))
        if known is None:
            raise _refused("unknown_key", "X-MATCHD-KEY names no key of this venue")
        if not found.timestamp.isdigit() or len(found.timestamp) > _TIMESTAMP_DIGITS_MAX:
            raise _refused("bad_timestamp", "X-MATCHD-TIMESTAMP is the time in milliseconds "
                           "since 1970 UTC, in digits")
        text = b"%b\n%b\n%b\n%b" % (found.timestamp, method.encode(), target, body)
        wanted = hmac.digest(known.secret, text, "sha256").hex().encode()
        if not hmac.compare_digest(wanted, found.signature.lower()):
            raise _refused("bad_signature", "X-MATCHD-SIGNATURE is not the hex HMAC-SHA256 with "
                           "the key's secret over TIMESTAMP\\nMETHOD\\nPATH?QUERY\\nBODY")
        now_ms = clock.now_ns() // clock.NS_PER_MS
        if abs(now_ms - int(found.timestamp)) > self._window_ms:
            raise _refused("timestamp_outside_window",
                           f"X-MATCHD-TIMESTAMP is more than {self._window_ms} ms from the "
                           f"venue's time", {"venue_time_ms": now_ms})
        return _valid(known)


def demo_account(config: ApiConfig, accounts: Iterable[Account]) -> str:
    """Who acts without credentials: the configured account, on loopback, as long as it has the
    demo password; "" for nobody. As slow as a login: call it in a thread."""
    named = [one for one in accounts if one.username == config.demo_account]
    if not is_loopback(config.host) or not demo_accounts(named):
        return ""
    return config.demo_account


def _credentials(headers: Headers) -> Credentials:
    authorization = key = timestamp = signature = host = origin = b""
    for name, value in headers:
        if name == b"authorization":
            authorization = value
        elif name == b"host":
            host = value
        elif name == b"origin":
            origin = value
        elif name == b"x-matchd-key":
            key = value
        elif name == b"x-matchd-timestamp":
            timestamp = value
        elif name == b"x-matchd-signature":
            signature = value
    return Credentials(authorization, key, timestamp, signature, host, origin)


def _valid(known: _Known) -> Client:
    state = known.key.state(clock.now_ns())
    if state != "valid":
        raise _refused(f"key_{state}", f"the key {known.key.id} is {state}")
    return known.client


@lru_cache(maxsize=256)
def _foreign(host: bytes, origin: bytes) -> str:
    """Why a request without credentials may not act as the demo account; "" when it may. A page
    of another site, open in a browser here, carries its origin or reaches us under its name."""
    own = host.decode("latin-1")
    if own and not is_loopback(_host_name(own)):
        return f"without credentials only under a name of this machine, not {own!r}"
    if origin and urlsplit(origin.decode("latin-1")).netloc != own:
        return "without credentials not from pages of other sites"
    return ""


def _host_name(netloc: str) -> str:
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def _refused(code: str, message: str, details: Mapping[str, object] | None = None) -> ApiError:
    return ApiError(401, code, message, details, _CHALLENGE)
