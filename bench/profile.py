"""`make profile`: a flame graph of the daemon under load, as an SVG in build/profile.

py-spy looks at the daemon from outside, some hundred times a second, and sees the frames of Python
and those of the compiled core below them. How wide a frame is says how much of the time was spent
in it and what it called. Threads that sleep are left out, but for the moments in which they begin
or end to: those show as `epoll_pwait` or as a lock.
"""

import sys
from pathlib import Path

if not __package__:
    # Called as `python bench/profile.py`: this folder would hide the standard library's http.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import contextlib
import datetime
import json
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from bench import servers
from bench.conditions import commit
from bench.rows_feed import subscribers
from bench.servers import (
    PASSWORD,
    ROOT,
    Server,
    account_names,
    daemon,
    load_core,
    make_key,
    symbols,
)

PROFILE_DIR = ROOT / "build" / "profile"
SAMPLES_PER_SECOND = 200
# The load begins so long before the first sample, and lasts until it is ended.
WARM_SECONDS = 1.0
LOAD_SECONDS = 3600.0
IN_FLIGHT = 100
HTTP_CONNECTIONS = 64
FEED_CLIENTS = 100
# Where py-spy unwinds the stacks of compiled code.
NATIVE_MACHINES = ("x86_64", "aarch64")
PTRACE_SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")
# py-spy reads the symbols of every library before its first sample.
SYMBOLS_SECONDS = 120.0


class ProfileError(RuntimeError):
    """No flame graph; says what to do."""


@dataclass(frozen=True)
class Load:
    """What the daemon does while it is looked at: its settings, and the job that keeps it busy."""

    about: str
    settings: dict[str, dict[str, Any]]
    job: Callable[[Server], tuple[str, dict[str, Any]]]
    feed_clients: int = 0


def _orders(transport: str) -> Callable[[Server], tuple[str, dict[str, Any]]]:
    def job(server: Server) -> tuple[str, dict[str, Any]]:
        return "bench.load", {
            "host": "127.0.0.1", "port": server.udp_port if transport == "udp" else server.port,
            "cpu": load_core(), "finish": False, "symbols": symbols(1),
            "credentials": [[account_names(1)[0], PASSWORD]],
            "options": {"transport": transport, "orders_max": 8192},
            "phases": [{"kind": "closed_loop", "in_flight": IN_FLIGHT, "seconds": LOAD_SECONDS}]}
    return job


def _http(server: Server) -> tuple[str, dict[str, Any]]:
    return "bench.request", {
        "host": "127.0.0.1", "port": server.api_port, "cpu": load_core(), "kind": "orders",
        "connections": HTTP_CONNECTIONS, "seconds": LOAD_SECONDS, "warmup_seconds": 0.0,
        "token": make_key(server)["token"]}


LOADS = {
    "orders": Load(f"OUCH over TCP, {IN_FLIGHT} in flight", {}, _orders("tcp")),
    "udp": Load(f"OUCH over UDP, {IN_FLIGHT} in flight", {}, _orders("udp")),
    "feed": Load(f"OUCH over TCP, {FEED_CLIENTS} feed clients", {}, _orders("tcp"), FEED_CLIENTS),
    "http": Load(f"POST /v1/orders, {HTTP_CONNECTIONS} connections", {}, _http),
    "stores": Load("OUCH over TCP with SQLite on", {"sqlite": {"enabled": True}}, _orders("tcp")),
}


@contextlib.contextmanager
def _busy(module: str, job: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """The load generator's process, at work until this is left. Raises ProfileError when it ended
    before."""
    process = subprocess.Popen([sys.executable, "-m", module], cwd=ROOT, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.close()
        time.sleep(WARM_SECONDS)
        yield process
        if process.poll() is not None:
            assert process.stdout is not None
            raise ProfileError(f"the load ended too early: {process.stdout.read()[-2000:]}")
    finally:
        process.kill()
        process.wait()


def py_spy() -> str:
    """The command of py-spy. Raises ProfileError when there is none."""
    beside = Path(sys.executable).parent / "py-spy"
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise ProfileError("py-spy is not installed: pip install 'py-spy>=0.4'")
    return found


def hint(said: str) -> str:
    """What to do when py-spy may not look, by what it said and by the rules of this machine."""
    scope = PTRACE_SCOPE.read_text().strip() if PTRACE_SCOPE.exists() else "0"
    denied = re.search(r"ermission|not permitted|EPERM|ptrace|process_vm_readv", said)
    if scope in ("2", "3"):
        return (f"kernel.yama.ptrace_scope is {scope} here: "
                + ("root may look at processes: run it as root" if scope == "2"
                   else "nobody may look at processes until the next boot"))
    if denied:
        return ("this user may not look at that process: run it as the daemon's user or as root; "
                "a container needs the capability SYS_PTRACE (docker run --cap-add SYS_PTRACE)")
    return ""


def record(pid: int, path: Path, seconds: float, rate: int, native: bool) -> str:
    """Look at a process for so long and write the flame graph; returns what py-spy said of it.
    Raises ProfileError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [py_spy(), "record", "--pid", str(pid), "--format", "flamegraph", "--output",
               str(path), "--duration", str(max(1, round(seconds))), "--rate", str(rate),
               "--nolineno", *["--native"] * native]
    try:
        done = subprocess.run(command, text=True, capture_output=True, check=False,
                              timeout=seconds + SYMBOLS_SECONDS)
    except subprocess.TimeoutExpired:
        raise ProfileError("py-spy did not end; try --no-native") from None
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stderr + done.stdout)
    if done.returncode or not path.exists() or "<svg" not in path.read_text():
        raise ProfileError("\n".join(filter(None, [said.strip()[-2000:], hint(said)])))
    counted = re.search(r"Samples: (\d+) Errors: (\d+)", said)
    return f"{counted[1]} samples and {counted[2]} that failed" if counted else "done"


def put_title(path: Path, title: str) -> None:
    """Say in the picture what it shows, in place of py-spy's command line."""
    text, found = re.subn(r'(<text id="title"[^>]*>)[^<]*', rf"\g<1>{escape(title)}",
                          path.read_text(), count=1)
    if found:
        path.write_text(text)


def profile(load: Load, udp: bool, path: Path, seconds: float, rate: int, native: bool) -> str:
    """A daemon of our own under a load. Returns what py-spy said. Raises ProfileError."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(daemon("commit", udp=udp, settings=load.settings,
                                            traced=True))
        if load.feed_clients:
            stack.enter_context(subscribers(server, load.feed_clients))
        stack.enter_context(_busy(*load.job(server)))
        return record(server.process.pid, path, seconds, rate, native)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench.profile",
                                     description=__doc__.partition("\n")[0])
    parser.add_argument("load", nargs="?", choices=LOADS, default="orders",
                        help="; ".join(f"{name}: {load.about}" for name, load in LOADS.items()))
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to look (10)")
    parser.add_argument("--rate", type=int, default=SAMPLES_PER_SECOND,
                        help=f"samples a second ({SAMPLES_PER_SECOND})")
    parser.add_argument("--no-native", dest="native", action="store_false",
                        help="Python's frames only: quicker, without the compiled core")
    parser.add_argument("--pid", type=int, help="look at this running daemon, under its own load")
    parser.add_argument("--output", type=Path, help="the file (build/profile/TIME-LOAD.svg)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Returns the process's exit code: 1 without a flame graph."""
    chosen = parse(arguments)
    native = chosen.native and platform.machine() in NATIVE_MACHINES
    when = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
    name = "pid" if chosen.pid else chosen.load
    path = (chosen.output or PROFILE_DIR / f"{when}-{name}.svg").resolve()
    load = LOADS[chosen.load]
    try:
        if chosen.pid:
            said = record(chosen.pid, path, chosen.seconds, chosen.rate, native)
        else:
            said = profile(load, chosen.load == "udp", path, chosen.seconds, chosen.rate, native)
    except (ProfileError, servers.NotListening) as error:
        print(f"profile: {error}", file=sys.stderr)
        return 1
    what = f"process {chosen.pid}" if chosen.pid else load.about
    put_title(path, f"matchd: {what}, {chosen.seconds:g} s, commit {commit()}")
    print(f"{what}: {said}, in {chosen.seconds:g} s\n{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
