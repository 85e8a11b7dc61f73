"""Rows over TCP: messages per second, round trips, and latency against offered load."""

from typing import Any

from bench import segments
from bench.disk import fdatasync_times
from bench.measure import Pace, Row, closed, drive, drive_redis, median_of
from bench.servers import Server, daemon, echo_server, redis_server, work_directory

# Syncs timed for each second of a run: they take about a fifth of that.
FDATASYNCS_PER_SECOND = 1_000
# The windows in which a segment change is looked for.
WINDOW_SECONDS = 0.02
OFFERED = (10_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 1_500_000, 2_000_000, 3_000_000)
# A rate is carried when so much of it was answered by the end of its run.
CARRIED_SHARE = 0.98


def per_second(run: dict[str, Any]) -> float:
    """The figure of a throughput run."""
    return float(run["per_second"])


def p50_us(run: dict[str, Any]) -> float:
    """The figure of a round-trip run."""
    return float(run["latency"]["p50_ns"]) / 1000


def _redis(pace: Pace, in_flight: int, *, durable: bool) -> list[dict[str, Any]]:
    with redis_server(durable=durable) as server:
        return [drive_redis(server, in_flight, pace.seconds) for _ in range(pace.repeats)]


def _echo_throughput(pace: Pace) -> float:
    """Messages of the same bytes through the echo server in C."""
    with echo_server("c") as server:
        return per_second(drive(server, [closed(1000, pace.seconds, busy=True)], echo=True)[0])


def _ours(server: Server, pace: Pace, in_flight: int) -> list[dict[str, Any]]:
    return [drive(server, [closed(in_flight, pace.seconds)], orders_max=8192)[0]
            for _ in range(pace.repeats)]


def sustained(pace: Pace) -> list[Row]:
    """Durable, 1,000 in flight, for a minute; the tail where a segment begins."""
    redis = _redis(pace, 1000, durable=True)
    with daemon("commit") as server:
        before = server.cpu_seconds()
        run = drive(server, [closed(1000, pace.minute, window_seconds=WINDOW_SECONDS)],
                    orders_max=8192)[0]
        cpu = server.cpu_seconds() - before
        changes = segments.change_times(server.directory / "data")
    redis += _redis(pace, 1000, durable=True)
    details = {
        "run": {key: value for key, value in run.items() if key != "windows"},
        "server_cpu": cpu / run["seconds"],
        "redis_2000_in_flight": median_of(_redis(pace, 2000, durable=True), per_second),
        "redis_p50_us": median_of(redis, p50_us),
        **segments.tails(run, changes),
    }
    row = Row("tcp-durable-1000", f"durable, 1,000 in flight, {pace.minute:.0f} s", "messages/s",
              run["per_second"], "Redis SET, appendfsync always",
              median_of(redis, per_second), 1.8e6, 4.0, details=details)
    return [row, *_segment_row(details)]


def _segment_row(details: dict[str, Any]) -> list[Row]:
    """The tail at segment changes beside the tail of the rest of the run, if there were any."""
    at_change, elsewhere = details["latency_at_segment_change"], details["latency_elsewhere"]
    if not at_change["count"]:
        return []
    return [Row("tcp-durable-segments", "the same, p99.9 where a segment begins "
                f"({details['segment_changes']} times)", "us", at_change["p99.9_ns"] / 1000,
                "p99.9 elsewhere", elsewhere["p99.9_ns"] / 1000, higher=False)]


def durable_100(pace: Pace) -> list[Row]:
    """Durable, 100 in flight."""
    redis = _redis(pace, 100, durable=True)
    with daemon("commit") as server:
        runs = _ours(server, pace, 100)
    redis += _redis(pace, 100, durable=True)
    return [Row("tcp-durable-100", "durable, 100 in flight", "messages/s",
                median_of(runs, per_second), "Redis SET, appendfsync always",
                median_of(redis, per_second), 0.4e6, 0.4 / 0.21, details={"runs": runs})]


def off_1000(pace: Pace) -> list[Row]:
    """Sync off, 1,000 in flight: the path without the disk."""
    redis = _redis(pace, 1000, durable=False)
    with daemon("off") as server:
        before = server.cpu_seconds()
        runs = _ours(server, pace, 1000)
        cpu = server.cpu_seconds() - before
    redis += _redis(pace, 1000, durable=False)
    details = {"runs": runs, "server_cpu_seconds": cpu,
               "echo_in_c_per_second": _echo_throughput(pace)}
    return [Row("tcp-off-1000", "sync off, 1,000 in flight", "messages/s",
                median_of(runs, per_second), "Redis SET without persistence",
                median_of(redis, per_second), 5e6, 5 / 2.2, details=details)]


def _trips(server: Server, pace: Pace, *, echo: bool = False, busy: bool = False) -> float:
    phase = {"kind": "round_trips", "seconds": pace.seconds, "busy": busy,
             "warmup_seconds": min(0.3, pace.seconds)}
    return median_of((drive(server, [phase], echo=echo)[0] for _ in range(pace.repeats)), p50_us)


def _fdatasync_us(pace: Pace) -> float:
    count = int(pace.seconds * FDATASYNCS_PER_SECOND)
    with work_directory() as directory:
        return float(fdatasync_times(directory, count)["p50_ns"]) / 1000


def round_trips(pace: Pace) -> list[Row]:
    """One order at a time, durable and with sync off, beside the sum of what it can't avoid."""
    rows = []
    for busy in (False, True):
        before = _fdatasync_us(pace)
        with echo_server("uvloop") as server:
            echo = _trips(server, pace, echo=True, busy=busy)
        with daemon("commit") as server:
            durable = _trips(server, pace, busy=busy)
        with daemon("off") as server:
            off = _trips(server, pace, busy=busy)
        disk = (before + _fdatasync_us(pace)) / 2
        details = {"fdatasync_p50_us": disk, "uvloop_echo_p50_us": echo}
        how = ", client polls" if busy else ""
        suffix = "-polled" if busy else ""
        rows.append(Row(f"trip-durable{suffix}", f"one order at a time, durable, p50{how}", "us",
                        durable, "fdatasync + uvloop echo", disk + echo, None, 1.5, False, details))
        rows.append(Row(f"trip-off{suffix}", f"one order at a time, sync off, p50{how}", "us", off,
                        "uvloop echo", echo, None, 1.5, False, details))
    return rows


def curve(pace: Pace, sync: str) -> list[dict[str, Any]]:
    """Latency at each offered rate, from the intended send time, until a rate is not carried."""
    points = []
    with daemon(sync) as server:
        for offered in OFFERED:
            run = drive(server, [{"kind": "open_loop", "per_second": offered,
                                  "seconds": pace.seconds}], orders_max=500_000)[0]
            carried = run["per_second"] >= CARRIED_SHARE * offered
            points.append({"offered": offered, "answered": run["per_second"], "carried": carried,
                           "latency": run["latency"]})
            if not carried:
                break
    return points


def curves(pace: Pace) -> dict[str, list[dict[str, Any]]]:
    """The curve of each sync mode."""
    return {sync: curve(pace, sync) for sync in ("commit", "interval", "off")}

