"""The configuration: matchd.toml, the environment, and the two tables beside it.

Every key has its default here and, with a comment, in config/matchd.toml; a test holds the two
together. `MATCHD_<SECTION>__<KEY>` in the environment overrides a key. All mistakes in all files
are reported at once. This is the only file that looks at the environment.
"""

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

from engine import accounts as account_table
from engine import instruments as instrument_table
from engine.accounts import Account
from engine.instruments import Instrument
from engine.tables import SECRET_KEYS, Problems, check_table, expected, read_toml, show

DEFAULTS_DIR = Path(__file__).parent / "defaults"
LOCAL_FILE = Path("config/matchd.toml")
# Addresses that may hold a password. What else is secret stands in files that keys name.
SECRET_ADDRESSES = (("postgres", "url"), ("redis", "url"), ("telemetry", "otlp_url"))
SERVICE_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS",
                     "LISTEN_FDNAMES")

Port = Annotated[int, Meta(ge=0, le=65_535)]
Positive = Annotated[int, Meta(ge=1, le=2**40)]
Count = Annotated[int, Meta(ge=0, le=2**40)]
Milliseconds = Annotated[int, Meta(ge=1, le=86_400_000)]
Name = Annotated[str, Meta(min_length=1, max_length=255)]


class VenueConfig(msgspec.Struct, frozen=True):
    """Who we are and where our files are. Relative table names start at matchd.toml's folder."""

    name: Name = "matchd"
    data_dir: Name = "./data"
    instruments: Name = "instruments.toml"
    accounts: Name = "accounts.toml"
    drain_timeout_ms: Milliseconds = 30_000


class OrderEntryConfig(msgspec.Struct, frozen=True):
    """Order entry over TCP and UDP."""

    host: Name = "127.0.0.1"
    tcp_port: Port = 9001
    second_login: Literal["takeover", "refuse"] = "takeover"
    session_roll_at: Annotated[
        str, Meta(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?)?$",
                  description='"HH:MM", "HH:MM:SS" or ""')] = ""
    connections_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 2_000
    login_timeout_ms: Milliseconds = 30_000
    heartbeat_ms: Milliseconds = 1_000
    timeout_ms: Milliseconds = 30_000
    unsent_max_bytes: Positive = 16 * 2**20
    receive_buffer_bytes: Annotated[int, Meta(ge=4_096, le=2**26)] = 2**16
    replay_slice_bytes: Annotated[int, Meta(ge=4_096, le=2**26)] = 2**18
    tls: bool = False
    udp_enabled: bool = True
    udp_port: Port = 9002
    udp_window: Annotated[int, Meta(ge=0, le=1_024)] = 1_024
    udp_datagram_bytes: Annotated[int, Meta(ge=512, le=8_192)] = 1_400
    udp_receive_buffer_bytes: Annotated[int, Meta(ge=4_096, le=2**30)] = 4 * 2**20
    udp_memory_bytes: Annotated[int, Meta(ge=4_096, le=2**30)] = 2**20


class TlsConfig(msgspec.Struct, frozen=True):
    """The certificate of the doors that speak TLS."""

    certificate_file: str = ""
    key_file: str = ""
    client_ca_file: str = ""
    client_certificates: Literal["off", "optional", "required"] = "off"
    trust_file: str = ""
    identity_file: str = ""
    identity_key_file: str = ""


class JournalConfig(msgspec.Struct, frozen=True):
    """The event log on disk."""

    sync: Literal["commit", "interval", "off"] = "commit"
    interval_ms: Milliseconds = 10
    segment_bytes: Annotated[int, Meta(ge=2**16, le=2**36)] = 256 * 2**20
    first_segment_bytes: Annotated[int, Meta(ge=2**16, le=2**36)] = 16 * 2**20
    group_max_bytes: Annotated[int, Meta(ge=2**12, le=2**30)] = 4 * 2**20
    snapshot_events: Count = 5_000_000
    snapshots_kept: Annotated[int, Meta(ge=1, le=1_000)] = 2
    retain_segments: Count = 0
    memory_max_bytes: Positive = 256 * 2**20


class FeedConfig(msgspec.Struct, frozen=True):
    """Public market data and private order events over WebSocket."""

    host: Name = "127.0.0.1"
    port: Port = 8001
    tls: bool = False
    batch_interval_ms: Annotated[int, Meta(ge=0, le=60_000)] = 50
    max_batch_size: Annotated[int, Meta(ge=1, le=1_000_000)] = 100
    resume_window_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 30_000
    compress_above_bytes: Count = 512
    slow_client_threshold: Annotated[int, Meta(ge=1, le=1_000_000)] = 10
    unsent_max_bytes: Positive = 4 * 2**20
    send_buffer_bytes: Annotated[int, Meta(ge=4_096, le=2**26)] = 2**17
    pong_timeout_ms: Milliseconds = 30_000
    clients_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 5_000
    subscriptions_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_000
    message_max_bytes: Annotated[int, Meta(ge=128, le=2**26)] = 16_384
    requests_per_second: Annotated[int, Meta(ge=1, le=1_000_000)] = 50
    origins: tuple[str, ...] = ()
    require_login: bool = False
    login_timeout_ms: Milliseconds = 10_000
    candles_kept: Annotated[int, Meta(ge=1_441, le=1_000_000)] = 1_500
    trades_kept: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_000
    books_idle_ms: Milliseconds = 60_000
    warm_events_max: Count = 20_000_000


class ApiConfig(msgspec.Struct, frozen=True):
    """Orders, market data, health and administration over HTTP."""

    host: Name = "127.0.0.1"
    port: Port = 8000
    tls: bool = False
    connections_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 2_000
    demo_account: Name = "MAKER1"
    recv_window_ms: Milliseconds = 5_000
    requests_per_second: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    body_max_bytes: Annotated[int, Meta(ge=1_024, le=2**26)] = 262_144
    master_secret_file: str = ""
    orders_kept: Annotated[int, Meta(ge=1, le=100_000_000)] = 100_000
    client_id_window_s: Annotated[int, Meta(ge=0, le=2**31)] = 86_400
    client_ids_kept_min: Count = 100_000
    client_ids_max: Count = 10_000_000


Share = Annotated[float, Meta(gt=0, le=1)]
Seconds = Annotated[float, Meta(gt=0, le=3_600)]


class StoresConfig(msgspec.Struct, frozen=True):
    """What all stores share: Redis, PostgreSQL, SQLite."""

    cpu_share: Share = 0.5
    breaker_failures: Annotated[int, Meta(ge=1, le=1_000)] = 5
    retry_min_ms: Milliseconds = 100
    retry_max_ms: Milliseconds = 10_000
    report_interval_s: Annotated[int, Meta(ge=1, le=86_400)] = 30
    drain_ms: Milliseconds = 5_000


class PostgresConfig(msgspec.Struct, frozen=True):
    """The PostgreSQL store; off without a URL."""

    url: str = ""
    schema: Annotated[
        str, Meta(pattern=r"^[a-z_][a-z0-9_]{0,62}$",
                  description="a name of small letters, digits and _")] = "public"
    pool_min_size: Annotated[int, Meta(ge=1, le=1_000)] = 5
    pool_max_size: Annotated[int, Meta(ge=1, le=1_000)] = 25
    batch_interval_ms: Milliseconds = 50
    max_batch_size: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    statement_timeout_ms: Milliseconds = 30_000
    connect_timeout_ms: Milliseconds = 5_000
    application_name: Annotated[str, Meta(max_length=63)] = "matchd"
    password_file: str = ""
    ssl_mode: Literal["", "disable", "prefer", "require", "verify-ca", "verify-full"] = ""
    ssl_root_cert_file: str = ""
    ssl_cert_file: str = ""
    ssl_key_file: str = ""
    migrate: bool = True
    query_role: str = ""


class RedisConfig(msgspec.Struct, frozen=True):
    """The Redis store; off without a URL."""

    url: str = ""
    prefix: Annotated[str, Meta(max_length=255)] = "matchd:"
    batch_interval_ms: Milliseconds = 100
    max_batch_size: Annotated[int, Meta(ge=1, le=100_000)] = 50
    min_change: Annotated[float, Meta(ge=0, le=1)] = 0.0001
    max_age_ms: Milliseconds = 1_000
    markets: tuple[str, ...] = ("*",)
    depth: Annotated[int, Meta(ge=1, le=10_000)] = 10
    depths: tuple[str, ...] = ()
    expire_s: Count = 0
    encoding: Literal["msgpack", "json"] = "msgpack"
    compress_above_bytes: Count = 0
    stream_entries_max: Positive = 10_000
    backfill_events: Count = 1_000_000
    max_connections: Annotated[int, Meta(ge=1, le=100_000)] = 50
    socket_timeout_s: Seconds = 1.0
    connect_timeout_s: Seconds = 1.0
    health_check_interval_s: Annotated[int, Meta(ge=0, le=3_600)] = 15
    username: str = ""
    password_file: str = ""
    ssl_root_cert_file: str = ""
    ssl_cert_file: str = ""
    ssl_key_file: str = ""
    order_queue: str = ""
    order_queue_group: Name = "matchd"
    order_replies: str = ""
    order_accounts: tuple[str, ...] = ()


class SqliteConfig(msgspec.Struct, frozen=True):
    """The SQLite store; its file is in the data directory."""

    enabled: bool = True
    file: Name = "history.sqlite"
    batch_interval_ms: Milliseconds = 100
    max_batch_size: Annotated[int, Meta(ge=1, le=100_000)] = 1_000
    retain_days: Count = 0
    retain_max_bytes: Count = 0


class HistoryConfig(msgspec.Struct, frozen=True):
    """Questions about the past over HTTP, answered by a store."""

    rows_max: Annotated[int, Meta(ge=1, le=100_000)] = 1_000
    query_timeout_ms: Milliseconds = 5_000
    query_rows_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    cache_entries_max: Count = 1_000
    cache_max_bytes: Count = 64 * 2**20
    cache_ttl_s: Annotated[int, Meta(ge=1, le=86_400)] = 60


class PeersConfig(msgspec.Struct, frozen=True):
    """Other instances of the venue that are asked for their figures."""

    urls: tuple[str, ...] = ()
    token_file: str = ""
    timeout_ms: Milliseconds = 2_000
    connections_max: Annotated[int, Meta(ge=1, le=10_000)] = 100
    connections_per_host: Annotated[int, Meta(ge=1, le=1_000)] = 20
    failures_max: Annotated[int, Meta(ge=1, le=1_000)] = 3
    retry_min_ms: Milliseconds = 500
    retry_max_ms: Milliseconds = 30_000
    cache_ms: Annotated[int, Meta(ge=0, le=600_000)] = 500
    cache_entries_max: Annotated[int, Meta(ge=1, le=100_000)] = 256
    answer_max_bytes: Positive = 4 * 2**20


class LogConfig(msgspec.Struct, frozen=True):
    """Log lines on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"


class TelemetryConfig(msgspec.Struct, frozen=True):
    """Metrics for OpenTelemetry, over OTLP/HTTP; off without an address."""

    otlp_url: str = ""
    interval_ms: Milliseconds = 10_000
    timeout_ms: Milliseconds = 5_000
    headers_file: str = ""


class QueuesConfig(msgspec.Struct, frozen=True):
    """Bounds of the queues between the stages, in 64-byte units (an order is one to four)."""

    commands_units: Positive = 65_536
    events_units: Positive = 262_144
    reports_units: Positive = 262_144
    market_units: Positive = 262_144
    stores_units: Positive = 262_144


class Config(msgspec.Struct, frozen=True):
    """Every section of matchd.toml."""

    venue: VenueConfig = VenueConfig()
    order_entry: OrderEntryConfig = OrderEntryConfig()
    tls: TlsConfig = TlsConfig()
    journal: JournalConfig = JournalConfig()
    feed: FeedConfig = FeedConfig()
    api: ApiConfig = ApiConfig()
    stores: StoresConfig = StoresConfig()
    sqlite: SqliteConfig = SqliteConfig()
    postgres: PostgresConfig = PostgresConfig()
    redis: RedisConfig = RedisConfig()
    history: HistoryConfig = HistoryConfig()
    peers: PeersConfig = PeersConfig()
    log: LogConfig = LogConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    queues: QueuesConfig = QueuesConfig()

    @property
    def data_dir(self) -> Path:
        """The folder of journal, snapshots and lock; a relative one starts where we were called."""
        return Path(self.venue.data_dir)

    @property
    def session_roll_second(self) -> int | None:
        """The second of the UTC day at which sessions roll, None for never."""
        at = self.order_entry.session_roll_at
        if not at:
            return None
        return int(at[:2]) * 3600 + int(at[3:5]) * 60 + int(at[6:] or 0)


class Settings(msgspec.Struct, frozen=True):
    """The configuration with its tables, all checked. `paths` are matchd.toml, instruments.toml
    and accounts.toml as they were found."""

    config: Config
    instruments: list[Instrument]
    accounts: list[Account]
    paths: tuple[Path, Path, Path]
    warnings: list[str]
    # The environment that was read, None for the process's.
    env: Mapping[str, str] | None = None


def load(path: Path | None = None, env: Mapping[str, str] | None = None,
         data_dir: Path | None = None) -> tuple[Config, list[str]]:
    """The configuration of one file and the environment, and warnings of one line each.

    Without `path` it is ./config/matchd.toml if there is one, else the package's defaults. `env`
    is the process's environment unless given. Raises ConfigError with every mistake.
    """
    problems = Problems()
    config, warnings = _load(path or default_path(), env, data_dir, problems)
    problems.raise_all()
    return config, warnings


def load_settings(path: Path | None = None, env: Mapping[str, str] | None = None,
                  data_dir: Path | None = None) -> Settings:
    """The configuration with instruments and accounts. Raises ConfigError with every mistake in
    the three files."""
    problems = Problems()
    path = path or default_path()
    config, warnings = _load(path, env, data_dir, problems)
    instruments_path = _table_path(path, config.venue.instruments, VenueConfig().instruments)
    accounts_path = _table_path(path, config.venue.accounts, VenueConfig().accounts)
    instruments = instrument_table.load(instruments_path, problems)
    accounts = account_table.load(accounts_path, problems)
    _check_order_queue(config, accounts, path, problems)
    problems.raise_all()
    return Settings(config, instruments, accounts, (path, instruments_path, accounts_path),
                    warnings, env)


def load_again(settings: Settings, handed: Sequence[str] = ()) -> Settings:
    """The same files as they are now. Raises ConfigError with every mistake, also for what
    `require_safe` refuses, and for a table that is gone or empty: while it is written anew it may
    be, and nobody takes everything from a venue that trades."""
    again = load_settings(settings.paths[0], settings.env, settings.config.data_dir)
    problems = Problems()
    tables = (("instrument", again.instruments), ("account", again.accounts))
    for (name, rows), before, now in zip(tables, settings.paths[1:], again.paths[1:], strict=True):
        if now != before and now.parent == DEFAULTS_DIR:
            problems.note(before, "", "a readable file", "none any more")
        elif not rows:
            problems.note(now, "", f"at least one [[{name}]]", "none")
    problems.raise_all()
    require_safe(again, handed)
    return again


def changed_keys(before: Config, after: Config) -> list[str]:
    """The keys of matchd.toml and the environment that differ, as "section.key"."""
    found = []
    for section in before.__struct_fields__:
        old, new = getattr(before, section), getattr(after, section)
        found += [f"{section}.{key}" for key in old.__struct_fields__
                  if getattr(old, key) != getattr(new, key)]
    return found


def without_secrets(config: Config) -> Config:
    """The same to be shown: addresses without users, passwords and parameters."""
    hidden = {section: msgspec.structs.replace(getattr(config, section), **{
        key: _without_secrets(getattr(getattr(config, section), key))})
        for section, key in SECRET_ADDRESSES}
    return msgspec.structs.replace(config, **hidden)


def _without_secrets(url: str) -> str:
    plain, mark, _ = re.sub(r"//.*@", "//***@", url, count=1, flags=re.DOTALL).partition("?")
    return f"{plain}?***" if mark else plain


def peer_urls(config: PeersConfig) -> dict[str, str]:
    """The addresses of the peers by their names, without a slash at the end."""
    pairs = (text.partition("=") for text in config.urls)
    return {name: url.rstrip("/") for name, _, url in pairs}


def require_safe(settings: Settings, handed: Sequence[str] = ()) -> None:
    """Raise ConfigError when a venue would open a door with TLS and no certificate (commands that
    only go to one need none), or one beyond loopback while an account still has the demo password.
    `handed` are the addresses of sockets that a service manager opened."""
    config, problems = settings.config, Problems()
    for name in ("order_entry", "feed", "api"):
        if getattr(config, name).tls and not config.tls.certificate_file:
            problems.note(settings.paths[0], f"{name}.tls", "false without a tls.certificate_file",
                          "true")
    hosts = {"order_entry.host": config.order_entry.host, "feed.host": config.feed.host,
             "api.host": config.api.host}
    hosts |= {f"a socket handed over ({host})": host for host in handed}
    beyond = {key: host for key, host in hosts.items() if not is_loopback(host)}
    demo = beyond and [account.username
                       for account in account_table.demo_accounts(settings.accounts)]
    for key, host in beyond.items() if demo else ():
        problems.note(settings.paths[0], key, "a loopback address while a demo password is in use",
                      f"{show(host)} with the password \"demo\" for {', '.join(demo)}")
    problems.raise_all()


def take_service_variables() -> dict[str, str]:
    """What a service manager put into the environment for this process (sd_notify(3),
    sd_listen_fds(3)), taken out of it: it is not meant for processes that we start."""
    return {name: os.environ.pop(name) for name in SERVICE_VARIABLES if name in os.environ}


def is_loopback(host: str) -> bool:
    """Whether an address reaches this machine only. Names other than localhost count as beyond."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def default_path() -> Path:
    """The file that is read when none is named."""
    return LOCAL_FILE if LOCAL_FILE.is_file() else DEFAULTS_DIR / "matchd.toml"


def _table_path(path: Path, name: str, default: str) -> Path:
    """Where a table is: beside matchd.toml; the package's own when no other was asked for."""
    beside = path.parent / name
    return DEFAULTS_DIR / name if name == default and not beside.exists() else beside


def _load(path: Path, env: Mapping[str, str] | None, data_dir: Path | None,
          problems: Problems) -> tuple[Config, list[str]]:
    sections: dict[str, type[msgspec.Struct]] = get_type_hints(Config)
    top = read_toml(path, problems)
    for name in top:
        if name not in sections:
            problems.note(path, name, f"one of the sections {', '.join(sections)}",
                          "an unknown section")
    override = {} if data_dir is None else {("venue", "data_dir"): str(data_dir)}
    from_env, warnings = _overrides(sections, os.environ if env is None else env, problems)
    values: dict[str, Any] = {}
    for name, kind in sections.items():
        section = check_table(kind, top.get(name, {}), path, name, problems)
        changed = {key: value for (where, key), value in (from_env | override).items()
                   if where == name}
        values[name] = msgspec.structs.replace(section or kind(), **changed)
    config = Config(**values)
    _check_relations(config, path, problems)
    return config, warnings


def _check_order_queue(config: Config, accounts: list[Account], path: Path,
                       problems: Problems) -> None:
    """The queue of orders in Redis: where it is, and whom it trades for."""
    redis = config.redis
    if redis.order_queue and not redis.url:
        problems.note(path, "redis.order_queue", '"" without a redis.url',
                      show(redis.order_queue))
    if redis.order_queue and redis.max_connections < QUEUE_CONNECTIONS:
        # One waits in the server for entries while another brings the answers.
        problems.note(path, "redis.max_connections", f"at least {QUEUE_CONNECTIONS} with a "
                      "redis.order_queue", show(redis.max_connections))
    known = {account.username for account in accounts}
    for name in redis.order_accounts:
        if known and account_table.fold_username(name) not in known:
            problems.note(path, "redis.order_accounts", "usernames of accounts.toml", show(name))


QUEUE_CONNECTIONS = 2
REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster",
                 "rediss+cluster")
_PEER = re.compile(r"[A-Za-z0-9_.-]{1,64}=https?://[^/?#@\s]+/?")
_VARIABLE = re.compile(r"MATCHD_([A-Z0-9_]+?)__([A-Z0-9_]+)")
# Names without our prefix that some keys answer to as well; the prefixed name goes first.
ALIASES = {
    "BATCH_INTERVAL_MS": ("feed", "batch_interval_ms"),
    "MAX_BATCH_SIZE": ("feed", "max_batch_size"),
    "SLOW_CLIENT_THRESHOLD": ("feed", "slow_client_threshold"),
    "DATABASE_POOL_MIN_SIZE": ("postgres", "pool_min_size"),
    "DATABASE_POOL_MAX_SIZE": ("postgres", "pool_max_size"),
    "REDIS_MAX_CONNECTIONS": ("redis", "max_connections"),
    "REDIS_SOCKET_TIMEOUT": ("redis", "socket_timeout_s"),
    "REDIS_CONNECT_TIMEOUT": ("redis", "connect_timeout_s"),
}


def _overrides(sections: Mapping[str, type[msgspec.Struct]], env: Mapping[str, str],
               problems: Problems) -> tuple[dict[tuple[str, str], Any], list[str]]:
    """The keys that the environment sets, and a warning for each variable that names none."""
    found: dict[tuple[str, str], Any] = {}
    warnings = []
    # Aliases come first, so that the prefixed name has the last word.
    for variable, text in sorted(env.items(), key=lambda item: item[0] not in ALIASES):
        match = _VARIABLE.fullmatch(variable)
        if match is None and variable not in ALIASES:
            continue
        section, key = ((match[1].lower(), match[2].lower()) if match else ALIASES[variable])
        hints = get_type_hints(sections[section], include_extras=True) \
            if section in sections else {}
        if key not in hints:
            warnings.append(f"{variable} in the environment names no configuration key")
            continue
        try:
            found[section, key] = _from_text(text, hints[key])
        except msgspec.ValidationError:
            problems.note("environment", variable, expected(hints[key]),
                          "another value" if key in SECRET_KEYS else show(text))
    return found, warnings


def _from_text(text: str, hint: Any) -> Any:
    """A variable's text as a key's value; a list is separated by commas, or as in TOML."""
    value: Any = text
    if isinstance(msgspec.inspect.type_info(hint), msgspec.inspect.VarTupleType):
        value = _list_from_text(text)
    # strict=False reads "9001" as an integer, as a variable has to be read.
    return msgspec.convert(value, hint, strict=False)


def _list_from_text(text: str) -> list[Any]:
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise msgspec.ValidationError(str(error)) from error
    return list(value)


def _check_relations(config: Config, path: Path, problems: Problems) -> None:
    """Bounds that join two keys."""
    journal, entry = config.journal, config.order_entry
    for key, value in (("segment_bytes", journal.segment_bytes),
                       ("first_segment_bytes", journal.first_segment_bytes)):
        if value % 4096:
            problems.note(path, f"journal.{key}", "a multiple of 4096", show(value))
    for text in config.peers.urls:
        if _PEER.fullmatch(text) is None:
            # Somebody may have put a password into it: it is not shown.
            problems.note(path, "peers.urls", 'a name and an address, like "east=http://host:8000"',
                          "another text")
    if len(peer_urls(config.peers)) != len(config.peers.urls):
        problems.note(path, "peers.urls", "a name for each", "a name twice")
    if config.peers.retry_min_ms > config.peers.retry_max_ms:
        problems.note(path, "peers.retry_min_ms",
                      f"at most peers.retry_max_ms ({config.peers.retry_max_ms})",
                      show(config.peers.retry_min_ms))
    for text in config.redis.depths:
        pattern, _, depth = text.rpartition("=")
        if not pattern or not depth.isdecimal() or not 1 <= int(depth) <= 10_000:
            problems.note(path, "redis.depths", 'a pattern and levels, like "BTC-*=50"',
                          show(text))
    if config.redis.url and config.redis.url.partition(":")[0] not in REDIS_SCHEMES:
        # The address may hold a password: it is not shown.
        problems.note(path, "redis.url", f"an address of {', '.join(REDIS_SCHEMES)}",
                      "another scheme")
    if config.stores.retry_min_ms > config.stores.retry_max_ms:
        problems.note(path, "stores.retry_min_ms",
                      f"at most stores.retry_max_ms ({config.stores.retry_max_ms})",
                      show(config.stores.retry_min_ms))
    tls = config.tls
    if tls.client_certificates != "off" and not tls.client_ca_file:
        problems.note(path, "tls.client_certificates", '"off" without a tls.client_ca_file',
                      show(tls.client_certificates))
    if entry.timeout_ms < 2 * entry.heartbeat_ms:
        problems.note(path, "order_entry.timeout_ms",
                      f"at least twice order_entry.heartbeat_ms ({entry.heartbeat_ms})",
                      show(entry.timeout_ms))
