"""Rows of order entry over UDP: round trips, orders per second, and minutes without a loss."""

from typing import Any

from bench.disk import fdatasync_times
from bench.measure import Pace, Row, closed, drive, median_of
from bench.rows_tcp import FDATASYNCS_PER_SECOND, p50_us
from bench.servers import Server, daemon, echo_server, work_directory

IN_FLIGHT = (1, 10, 100, 1000)
MAIN_SIZE = max(IN_FLIGHT)
ORDERS_MAX = 8192
TARGET = 400_000
TRIP_RATIO = 1.5
P99_US = 1_000
MODES = {"off": "sync off", "commit": "durable"}
# Minutes at full speed write more than a disk should hold: snapshots let the oldest go.
SEGMENTS_KEPT = 4

Run = dict[str, Any]


def p99_us(run: Run) -> float:
    """The tail of a run."""
    return float(run["latency"]["p99_ns"]) / 1000


def orders_per_second(run: Run) -> float:
    """The figure of a throughput run: new orders that were answered; cancels come on top."""
    return float(run["orders_per_second"])


# -- one order at a time ---------------------------------------------------------------------------


def _trips(server: Server, pace: Pace, *, transport: str, busy: bool,
           echo: bool = False) -> list[Run]:
    phase = {"kind": "round_trips", "seconds": pace.seconds, "busy": busy,
             "warmup_seconds": min(0.3, pace.seconds)}
    return [drive(server, [phase], echo=echo, transport=transport)[0]
            for _ in range(pace.repeats)]


def _echo_trips(pace: Pace, *, busy: bool) -> dict[str, list[Run]]:
    runs = {}
    for kind in ("udp-uvloop", "udp-c"):
        with echo_server(kind) as server:
            runs[kind] = _trips(server, pace, transport="udp", busy=busy, echo=True)
    return runs


def _fdatasync_us(pace: Pace) -> float:
    count = int(pace.seconds * FDATASYNCS_PER_SECOND)
    with work_directory() as directory:
        return float(fdatasync_times(directory, count)["p50_ns"]) / 1000


def latency(pace: Pace) -> list[Row]:
    """One order at a time, beside what it can't avoid and beside the same over TCP."""
    rows = []
    for busy in (False, True):
        echo = _echo_trips(pace, busy=busy)
        disk = _fdatasync_us(pace)
        for sync in MODES:
            with daemon(sync, udp=True) as server:
                runs = {transport: _trips(server, pace, transport=transport, busy=busy)
                        for transport in ("udp", "tcp")}
            rows += _trip_rows(sync, busy, runs, echo, disk if sync == "commit" else 0.0)
    return rows


def _trip_rows(sync: str, busy: bool, runs: dict[str, list[Run]], echo: dict[str, list[Run]],
               disk_us: float) -> list[Row]:
    key = f"udp-trip-{sync}{'-polled' if busy else ''}"
    what = f"one order at a time over UDP, {MODES[sync]}"
    how = ", client polls" if busy else ""
    figures = {name: {"p50_us": median_of(found, p50_us), "p99_us": median_of(found, p99_us)}
               for name, found in (runs | echo).items()}
    details = {"figures": figures, "fdatasync_p50_us": disk_us, "runs": runs, "echo": echo}
    ours, uvloop, tcp = (figures[name] for name in ("udp", "udp-uvloop", "tcp"))
    floor = "fdatasync + uvloop UDP echo" if disk_us else "uvloop UDP echo"
    ratio, p99 = (None, None) if disk_us else (TRIP_RATIO, P99_US)
    return [Row(key, f"{what}, p50{how}", "us", ours["p50_us"], floor, disk_us + uvloop["p50_us"],
                None, ratio, False, details),
            Row(f"{key}-p99", f"the same, p99{how}", "us", ours["p99_us"],
                "uvloop UDP echo", uvloop["p99_us"], p99, None, False),
            Row(f"{key}-tcp", f"the same, p50{how}", "us", ours["p50_us"], "over TCP",
                tcp["p50_us"], higher=False)]


# -- orders per second -----------------------------------------------------------------------------


def _loop(server: Server, pace: Pace, in_flight: int, **options: Any) -> list[Run]:
    return [drive(server, [closed(in_flight, pace.seconds)], orders_max=ORDERS_MAX, **options)[0]
            for _ in range(pace.repeats)]


def _echo_loops(pace: Pace, kind: str) -> dict[str, list[Run]]:
    with echo_server(kind) as server:
        runs = {str(size): _loop(server, pace, size, transport="udp", echo=True)
                for size in IN_FLIGHT}
        runs["single"] = _loop(server, pace, MAIN_SIZE, transport="udp", echo=True,
                               orders_per_datagram=1)
    return runs


def throughput(pace: Pace) -> list[Row]:
    """Orders per second by how many are in flight, as many as fit in a datagram; and with one
    message a datagram."""
    echo = {kind: _echo_loops(pace, kind) for kind in ("udp-uvloop", "udp-c")}
    rows = []
    for sync in MODES:
        with daemon(sync, udp=True) as server:
            tcp = {str(size): _loop(server, pace, size) for size in IN_FLIGHT}
            udp = {str(size): _loop(server, pace, size, transport="udp") for size in IN_FLIGHT}
            udp["single"] = _loop(server, pace, MAIN_SIZE, transport="udp", orders_per_datagram=1)
        rows += [_loop_row(sync, size, udp, tcp, echo) for size in IN_FLIGHT]
        rows.append(Row(f"udp-{sync}-{MAIN_SIZE}-single", f"UDP, {MODES[sync]}, {MAIN_SIZE:,} in "
                        "flight, one message a datagram", "orders/s",
                        median_of(udp["single"], orders_per_second), "uvloop UDP echo",
                        median_of(echo["udp-uvloop"]["single"], orders_per_second),
                        details={"runs": udp["single"], "echo": echo["udp-uvloop"]["single"],
                                 "echo_in_c": echo["udp-c"]["single"]}))
    return rows


def _loop_row(sync: str, size: int, udp: dict[str, list[Run]], tcp: dict[str, list[Run]],
              echo: dict[str, dict[str, list[Run]]]) -> Row:
    """Sync off stands beside the echo, durable beside the same over TCP."""
    key = str(size)
    beside = {"over TCP": tcp[key], "uvloop UDP echo": echo["udp-uvloop"][key],
              "UDP echo in C": echo["udp-c"][key]}
    figures = {name: median_of(runs, orders_per_second) for name, runs in beside.items()}
    anchor = "over TCP" if sync == "commit" else "uvloop UDP echo"
    return Row(f"udp-{sync}-{size}", f"UDP, {MODES[sync]}, {size:,} in flight", "orders/s",
               median_of(udp[key], orders_per_second), anchor, figures[anchor],
               TARGET if size == MAIN_SIZE else None, None,
               details={"orders_per_second": figures, "runs": udp[key], "tcp": tcp[key]})


# -- minutes ---------------------------------------------------------------------------------------


def sustained(pace: Pace) -> list[Row]:
    """Durable, 1,000 in flight, for five minutes. The load generator's proof at the end says that
    no order was lost and none done twice; without it there is no figure."""
    settings = {"journal": {"retain_segments": SEGMENTS_KEPT}}
    with daemon("commit", udp=True, settings=settings) as server:
        before = server.cpu_seconds(), server.memory_bytes()
        run = drive(server, [closed(MAIN_SIZE, pace.long)], orders_max=ORDERS_MAX,
                    transport="udp")[0]
        after = server.cpu_seconds(), server.memory_bytes()
        tcp = _loop(server, pace, MAIN_SIZE)
    sent_again = run["datagrams"]["resent"]
    details = {"run": run, "server_cpu": (after[0] - before[0]) / run["seconds"],
               "memory_bytes": {"before": before[1], "after": after[1]}}
    return [Row("udp-sustained", f"UDP, durable, {MAIN_SIZE:,} in flight, {pace.long:.0f} s, "
                f"no order lost, {sent_again:,} messages sent again", "orders/s",
                orders_per_second(run), "over TCP", median_of(tcp, orders_per_second),
                details=details),
            Row("udp-sustained-p99", "the same, p99", "us", p99_us(run), "over TCP",
                median_of(tcp, p99_us), higher=False)]
