"""Connections to Redis as [redis] of the configuration describes them: one server, a master behind
sentinels, or a cluster; with TLS, a password, an ACL user.

Nothing is sent twice behind our back: a command whose answer was lost may have been done, so
whoever sent it looks before it sends it again. The client's own retries are off for that.

This file imports redis: it is imported only where Redis is used, so that other starts stay quick.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from engine.config import RedisConfig
from engine.errors import ConfigError
from engine.knock import Address, knock

try:
    from redis.driver_info import DriverInfo

    # Who we are, made once: otherwise the client reads its version from disk at every connection,
    # for milliseconds in which the loop does nothing else, also while no server answers.
    _WHO: dict[str, Any] = {"driver_info": DriverInfo()}
except ImportError:
    # An older client has its version at hand.
    _WHO = {}

PORT = 6_379
SENTINEL_PORT = 26_379
# As clients write it: proxies in front of servers need not understand the inline form.
_PING = b"*1\r\n$4\r\nPING\r\n"
_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster",
            "rediss+cluster")


class Place(NamedTuple):
    """A URL, taken apart. `name` is what sentinels call the master, or a socket's path."""

    scheme: str
    hosts: list[tuple[str, int]]
    name: str
    database: int
    username: str
    password: str

    @property
    def tls(self) -> bool:
        """Whether the server's side is encrypted."""
        return self.scheme.startswith("rediss")

    @property
    def kind(self) -> str:
        """"sentinel", "cluster", "unix", or "" for one server."""
        return "unix" if self.scheme == "unix" else self.scheme.partition("+")[2]

    @property
    def where(self) -> str:
        """The servers' addresses or the socket's path, for messages."""
        return ",".join(f"{host}:{port}" for host, port in self.hosts) or self.name

    def __str__(self) -> str:
        """For log lines: without the password."""
        if self.kind == "sentinel":
            return f"{self.scheme}://{self.where}/{self.name}"
        return f"{self.scheme}://{self.where}"


def parse(url: str) -> Place:
    """Take a URL apart. Raises ConfigError, which shows no password."""
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
        raise ConfigError(f"redis.url: expected one of {known}")
    try:
        return _place(parts.scheme, parts.netloc, parts.path, dict(parse_qsl(parts.query)))
    except ValueError:
        raise ConfigError("redis.url: expected SCHEME://[USER:PASSWORD@]HOST[:PORT][/DATABASE]; of "
                          "sentinels HOST:PORT[,HOST:PORT]/NAME[/DATABASE]") from None


def _place(scheme: str, netloc: str, path: str, query: dict[str, str]) -> Place:
    user_info, _, hosts_text = netloc.rpartition("@")
    username, _, password = user_info.partition(":")
    words = [unquote(word) for word in path.split("/") if word]
    kind = scheme.partition("+")[2]
    name = ""
    if scheme == "unix":
        name, words = unquote(path), []
        if not name:
            raise ValueError
    elif kind == "sentinel":
        # Without a name there is no master to ask for.
        name = words.pop(0) if words else ""
        if not name:
            raise ValueError
    port = SENTINEL_PORT if kind == "sentinel" else PORT
    hosts = [] if scheme == "unix" else [_host(text, port) for text in hosts_text.split(",")]
    database = int(words[0]) if words else int(query.get("db", 0))
    return Place(scheme, hosts, name, database, unquote(username), unquote(password))


def _host(text: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "localhost", parts.port or port


class RedisLink:
    """Connections to one Redis, whatever its shape. Nothing is sent before `open`.

    Answers are bytes, in RESP2. `wait_s` is how long commands may block in the server, on top of
    the time-out of an answer; `doubtful` says that the last link failed. Everything that goes wrong
    later is an OSError or a redis.RedisError; after one of a cluster's (MOVED, a node that is gone)
    `refresh` reads anew who holds what. Raises ConfigError for a URL or files that cannot be used.
    """

    def __init__(self, config: RedisConfig, wait_s: float = 0.0, doubtful: bool = False) -> None:
        self.place = parse(config.url)
        # Whether the last attempt to connect failed: then the next one knocks first.
        self.doubtful = doubtful
        self._config = config
        self._options = _options(config, self.place, wait_s)
        self._nodes: dict[tuple[str, int], Redis] = {}
        self._cluster: RedisCluster | None = None
        self._one: Redis | None = None

    async def open(self) -> None:
        """Connect, and see that the server answers."""
        await self.close()
        doubtful, self.doubtful = self.doubtful, True
        if doubtful:
            await self._knock()
        if self.place.kind == "cluster":
            await self.refresh()
        else:
            self._one = self._single()
            await self._one.ping()
        self.doubtful = False

    async def _knock(self) -> None:
        """See that a server answers at all, before a client is built. Raises OSError."""
        place = self.place
        addresses: list[Address] = list(place.hosts) or [place.name]
        # Where TLS comes first, nothing is answered before it.
        await knock(addresses, b"" if place.tls else _PING, self._config.connect_timeout_s)

    def node(self, key: str) -> Redis:
        """The client of the server that holds this key: transactions of keys with the same hash
        tag go through one of these."""
        if self._cluster is None:
            if self._one is None:
                raise ConnectionError("not open")
            return self._one
        try:
            owner = self._cluster.get_node_from_key(key)
        except RedisClusterException as error:
            raise ConnectionError(str(error)) from error
        if owner is None:
            raise ConnectionError(f"no node of the cluster holds {key}")
        address = (str(owner.host), int(owner.port))
        if address not in self._nodes:
            self._nodes[address] = Redis(host=address[0], port=address[1],
                                         max_connections=self._config.max_connections,
                                         **self._options)
        return self._nodes[address]

    async def refresh(self) -> None:
        """Read anew which node of a cluster holds what; nothing without a cluster."""
        if self.place.kind != "cluster":
            return
        before, self._cluster = self._cluster, None
        if before is not None:
            await before.aclose()
        self._cluster = RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in self.place.hosts],
            **self._options)
        try:
            await self._cluster.initialize()
        except RedisClusterException as error:
            # The client's only error that is not one of its RedisError.
            raise ConnectionError(str(error)) from error

    async def close(self) -> None:
        """Close every connection. Never raises."""
        clients = [self._one, self._cluster, *self._nodes.values()]
        self._one = self._cluster = None
        self._nodes.clear()
        for client in clients:
            if client is not None:
                with contextlib.suppress(OSError, RedisError):
                    await client.aclose()

    def _single(self) -> Redis:
        place = self.place
        options = self._options | {"db": place.database,
                                   "max_connections": self._config.max_connections}
        if place.kind == "sentinel":
            return _behind_sentinels(self._config, place, options)
        if place.kind == "unix":
            del options["socket_keepalive"]
            return Redis(unix_socket_path=place.name, **options)
        host, port = place.hosts[0]
        return Redis(host=host, port=port, **options)


def _options(config: RedisConfig, place: Place, wait_s: float) -> dict[str, Any]:
    options: dict[str, Any] = {
        "username": config.username or place.username or None,
        "password": password_of(config) or place.password or None,
        "socket_timeout": config.socket_timeout_s + wait_s,
        "socket_connect_timeout": config.connect_timeout_s,
        "socket_keepalive": True,
        "health_check_interval": config.health_check_interval_s,
        "client_name": "matchd", "protocol": 2, "retry": Retry(NoBackoff(), 0), **_WHO}
    return options | _tls(config, place)


def _tls(config: RedisConfig, place: Place) -> dict[str, Any]:
    if not place.tls:
        return {}
    return {"ssl": True, "ssl_ca_certs": config.ssl_root_cert_file or None,
            "ssl_certfile": config.ssl_cert_file or None,
            "ssl_keyfile": config.ssl_key_file or None}


def _behind_sentinels(config: RedisConfig, place: Place, options: dict[str, Any]) -> Redis:
    asking = {"socket_timeout": config.socket_timeout_s,
              "socket_connect_timeout": config.connect_timeout_s, "protocol": 2,
              "retry": options["retry"]} | _tls(config, place)
    watch: Any = Sentinel
    found: Redis = watch(place.hosts, sentinel_kwargs=asking, **options).master_for(place.name)
    return found


def password_of(config: RedisConfig) -> str:
    """What `redis.password_file` holds; "" without one. Raises ConfigError."""
    if not config.password_file:
        return ""
    try:
        return Path(config.password_file).read_text("utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"redis.password_file cannot be read: {error}") from error
