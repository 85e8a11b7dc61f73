"""Connections to PostgreSQL: address, TLS, settings of the server, and what its errors mean."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

import asyncpg

from engine import clock
from engine.config import PostgresConfig
from engine.errors import StoreError
from engine.knock import knock
from engine.stores.store import QueryRefused, QueryTimeout, StoreDown, StoreRefused, StoreStopped

PORT = 5_432
# How much longer than the server's own limit an answer may take.
PATIENCE_S = 2.0
# The server ends what a lost connection of ours left open after so long.
KEEPALIVE = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10",
             "tcp_keepalives_count": "3"}
# Statements of the writer find every row by an index, whatever the statistics say; the bounds of
# ids that they are given leave out partitions when they are planned.
WRITER_PLANS = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
                "plan_cache_mode": "force_custom_plan"}

# SSLRequest (PostgreSQL documentation, "Message Formats"): every server answers it with one byte.
_SSL_REQUEST = bytes.fromhex("00000008 04d2162f")

_WRONG_SETTINGS = "look at postgres.url and the keys of its TLS"


class Link:
    """Makes connections as the configuration says."""

    def __init__(self, config: PostgresConfig) -> None:
        self._config = config
        self.statement_s = config.statement_timeout_ms / 1000
        # Client and server measure time apart: the server's limit should be met first.
        self.patience_s = self.statement_s + PATIENCE_S
        # Whether the last attempt to connect failed: then the next one knocks first.
        self._doubtful = False

    @property
    def where(self) -> str:
        """The server's address without a password, for messages."""
        try:
            parts = _parts(self._config.url)
            host = parts.hostname or parse_qs(parts.query).get("host", ["?"])[-1]
            return f"{host}:{parts.port or PORT}{parts.path}"
        except ValueError:
            return "postgres.url"

    async def connect(self, name: str = "", plans: Mapping[str, str] | None = None) -> Any:
        """A connection of its own. Raises StoreDown, StoreStopped."""
        doubtful, self._doubtful = self._doubtful, True
        try:
            if doubtful:
                await self._knock()
            arguments = await self.arguments(name, plans)
            connection = await asyncpg.connect(**arguments)
            self._doubtful = False
            return connection
        except Exception as error:
            if isinstance(error, ValueError) and not isinstance(error, ssl.SSLError):
                raise StoreStopped(f"PostgreSQL: {_line(error)}", _WRONG_SETTINGS) from error
            raise self.meaning(error) from error

    async def _knock(self) -> None:
        """See that the one server of a plain URL answers; others are only tried. Raises OSError."""
        parts = _parts(self._config.url)
        # A knock at another door than the client's would keep it out for ever: only what is written
        # out counts. Without a port, the environment may have one; escaped, it is a socket's path.
        where = parts.netloc.rpartition("@")[2]
        if not parts.hostname or "," in where or "%" in where or "host" in parse_qs(parts.query) \
                or parts.port is None:
            return
        # Where TLS comes first, nothing is answered before it.
        ask = b"" if "sslnegotiation=direct" in parts.query else _SSL_REQUEST
        await knock([(parts.hostname, parts.port)], ask,
                    self._config.connect_timeout_ms / 1000)

    async def arguments(self, name: str = "", plans: Mapping[str, str] | None = None
                        ) -> dict[str, Any]:
        """What asyncpg is given for a connection or a pool. Raises StoreStopped, OSError."""
        config = self._config
        limit_ms = str(config.statement_timeout_ms)
        settings = {"application_name": f"{config.application_name}{name}"[:63],
                    "search_path": f'"{config.schema}"', "statement_timeout": limit_ms,
                    "idle_in_transaction_session_timeout": limit_ms, "jit": "off",
                    "timezone": "UTC", **KEEPALIVE, **(plans or {})}
        found = {"dsn": config.url, "timeout": config.connect_timeout_ms / 1000,
                 "command_timeout": self.patience_s, "server_settings": settings}
        _parts(config.url)
        # Files are read in a thread: the system's certificates alone take tens of milliseconds.
        found |= await asyncio.to_thread(self._secrets)
        return found

    def _secrets(self) -> dict[str, Any]:
        config = self._config
        found: dict[str, Any] = {}
        try:
            for key in ("ssl_root_cert_file", "ssl_cert_file", "ssl_key_file"):
                # TLS would not say which file it is that it can't read.
                if getattr(config, key):
                    Path(getattr(config, key)).read_bytes()
            if config.password_file:
                found["password"] = Path(config.password_file).read_text("utf-8").strip()
            context = _tls(config)
        except (OSError, ValueError) as error:
            raise StoreStopped(f"PostgreSQL: {error}", _WRONG_SETTINGS) from error
        if context is not None:
            found["ssl"] = context
        return found

    def meaning(self, error: BaseException, moment: str = "") -> StoreError:
        """Our error for one of asyncpg, of the system, or of time."""
        return meaning(error, self.where)


def _parts(url: str) -> SplitResult:
    """A URL taken apart. Raises ValueError, which shows nothing of it, for one whose password has
    a character in it that ends the part where users and hosts stand."""
    try:
        parts = urlsplit(url)
        astray = "@" not in parts.netloc and (
            "@" in parts.path + parts.fragment
            or ("@" in parts.query and not parts.netloc.rpartition(":")[2].isdecimal()
                and ":" in parts.netloc))
    except ValueError:
        astray = True
    if astray:
        raise ValueError("postgres.url cannot be read: special characters of user and password are "
                         "written as %XX")
    return parts


def _tls(config: PostgresConfig) -> ssl.SSLContext | str | bool | None:
    """What asyncpg takes as `ssl`; None leaves it to the URL."""
    files = config.ssl_root_cert_file or config.ssl_cert_file
    mode: str = config.ssl_mode
    if not mode and not files:
        return None
    if not mode:
        mode = parse_qs(urlsplit(config.url).query).get("sslmode", ["require"])[-1]
    if mode == "disable":
        return False
    if not files and mode in ("allow", "prefer"):
        return mode
    verify = mode.startswith("verify") or bool(config.ssl_root_cert_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = mode == "verify-full"
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    if config.ssl_root_cert_file:
        context.load_verify_locations(config.ssl_root_cert_file)
    elif verify:
        context.load_default_certs()
    if config.ssl_cert_file:
        context.load_cert_chain(config.ssl_cert_file, config.ssl_key_file or None)
    return context


# -- what errors mean ------------------------------------------------------------------------------

_SAID = {
    "28": ("refuses the login", "look at the user and the password of postgres.url, or at "
           "postgres.password_file"),
    "3D": ("has no such database", "make it, or look at postgres.url"),
    "53": ("has no room", "make room on its disk, or allow more connections"),
    "57": ("stopped what it did", ""),
    "25": ("takes no changes", "is it a replica, or is default_transaction_read_only set?"),
    "40": ("gave way to another transaction", ""),
    "55": ("could not get a lock", "somebody holds our tables"),
}
_MISSING = "restore it from a backup, or run `matchd store rebuild postgres`"


def meaning(error: BaseException, where: str) -> StoreError:
    """Our error for one of asyncpg, of the system, or of time: `StoreRefused` for content,
    `StoreStopped` for settings that can't work, else `StoreDown`."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, asyncpg.PostgresError):
        return _of_server(error, where)
    if isinstance(error, TimeoutError):
        return StoreDown(f"PostgreSQL at {where} did not answer in time")
    if isinstance(error, asyncpg.InterfaceError):
        if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
            return StoreStopped(f"PostgreSQL: {_line(error)}", _WRONG_SETTINGS)
        return StoreDown(f"the connection to PostgreSQL at {where} is lost: {_line(error)}")
    if isinstance(error, ssl.SSLError):
        return StoreDown(f"no TLS with PostgreSQL at {where}: {_line(error)}", _WRONG_SETTINGS)
    return StoreDown(f"PostgreSQL at {where} can't be reached: {_line(error)}")


def _of_server(error: asyncpg.PostgresError, where: str) -> StoreError:
    code = error.sqlstate or ""
    said = f"{_line(error)} (SQLSTATE {code})"
    # The only checks of ours are the ends of partitions.
    if code == "23514":
        return StoreDown(f"PostgreSQL at {where} has no partition for it: {said}", _MISSING)
    if code in ("42P01", "42703", "3F000"):
        return StoreDown(f"PostgreSQL at {where} misses a table: {said}", _MISSING)
    if code == "42501":
        return StoreDown(f"PostgreSQL at {where} does not allow it: {said}",
                         "docs/postgres.md has the rights that the store needs")
    if code[:2] in ("22", "23"):
        return StoreRefused(f"PostgreSQL at {where} refuses the data: {said}"
                            + (f": {error.detail}" if error.detail else ""))
    verb, hint = _SAID.get(code[:2], ("failed", ""))
    return StoreDown(f"PostgreSQL at {where} {verb}: {said}", hint)


def of_question(error: BaseException, where: str) -> StoreError:
    """The same for a question that somebody asked: what he did wrong is said to him."""
    if isinstance(error, asyncpg.QueryCanceledError | TimeoutError):
        return QueryTimeout("the query took too long")
    if isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "")[:2] in (
            "0A", "21", "22", "23", "25", "2B", "2D", "34", "42", "44", "54", "P0"):
        return QueryRefused(_line(error), error.hint or "")
    if isinstance(error, asyncpg.DataError | ValueError | asyncpg.InternalClientError) \
            or type(error) is asyncpg.InterfaceError and "server expects" in str(error):
        return QueryRefused(_line(error))
    return meaning(error, where)


def _line(error: BaseException) -> str:
    """An error in one line, without what asyncpg adds for programmers."""
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


def seconds_since(start_ns: int) -> float:
    """Seconds since a moment of the monotonic clock."""
    return (clock.monotonic_ns() - start_ns) / clock.NS_PER_S
