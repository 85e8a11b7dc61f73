"""What the figures of the last minute say about the settings, in sentences.

Every rule looks at one setting and always says something: that it may stay, or what to change,
with the figure that made it say so. A rule that has nothing to look at yet says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from engine import clock
from engine.api.recent import SPREAD_WINDOW_S
from engine.api.watch import QueueView, Watch

UNIT_BYTES = 64
HOUR_S = 3600

# Where the rules draw their lines.
QUEUE_PART = 0.5
COMMIT_MS = 5.0
SEGMENT_S = 60
DISK_HOURS = 48
PAUSE_MS = 10.0
GC_PART = 0.01
LAG_MS = 20.0
# What a start imports stops the loop: a few timers more tell what is usual.
LAG_SAMPLES = 200
SLOW_PART = 0.05


class Figure(msgspec.Struct, frozen=True):
    """The number behind a sentence."""

    name: str
    value: float
    unit: str


class Recommendation(msgspec.Struct, frozen=True):
    """A sentence about one setting. `action`: it may stay (`keep`), another value would do better
    (`change`), or no setting helps and an operator should look (`look`)."""

    setting: str
    current: int | float | str
    action: Literal["keep", "change", "look"]
    sentence: str
    figure: Figure


Advice = Iterator[Recommendation]


def recommendations(watch: Watch) -> list[Recommendation]:
    """What all rules say now; those that want something come first."""
    found = [advice for rule in _RULES for advice in rule(watch)]
    return sorted(found, key=lambda advice: advice.action == "keep")


def _say(setting: str, current: int | float | str, figure: Figure, fine: bool, keep: str,
         else_say: str, action: Literal["change", "look"] = "change") -> Recommendation:
    return Recommendation(setting, current, "keep" if fine else action,
                          keep if fine else else_say, figure)


# -- the order's path ------------------------------------------------------------------------------


def _queues(watch: Watch) -> Advice:
    for queue in watch.queues:
        yield _queue(queue)


def _queue(queue: QueueView) -> Recommendation:
    part = queue.weight_max_units / queue.limit_units
    if queue.waits:
        sentence = (f"The queue of {queue.name} was full {queue.waits} times: raise its limit if "
                    "bursts are short, look at the part behind it if they are not.")
    else:
        sentence = (f"The queue of {queue.name} was {part:.0%} full at most: a burst twice as "
                    "large would make its producer wait.")
    return _say(f"queues.{queue.name}_units", queue.limit_units,
                Figure(f"queue_units_max{{queue={queue.name}}}", queue.weight_max_units, "units"),
                part < QUEUE_PART and not queue.waits,
                f"The queue of {queue.name} was never more than {part:.1%} full.", sentence)


def _commit(watch: Watch) -> Advice:
    spread = watch.recent.spread("commit")
    if not spread.count:
        return
    p99_ms = spread.quantile(0.99) / clock.NS_PER_MS
    sync = watch.config.journal.sync
    yield _say("journal.sync", sync, Figure("commit_p99", round(p99_ms, 3), "ms"),
               p99_ms < COMMIT_MS,
               f"99 of 100 commits took less than {p99_ms:.2f} ms.",
               f"One in a hundred commits took more than {p99_ms:.1f} ms: the disk is slow or "
               "shared. A disk of its own with a quick flush helps; \"interval\" does too, if "
               f"losing {watch.config.journal.interval_ms} ms at a power cut is acceptable.",
               "look" if sync == "commit" else "change")


def _group(watch: Watch) -> Advice:
    spread = watch.recent.spread("commit_units")
    if not spread.count:
        return
    most = spread.quantile(0.99) * UNIT_BYTES
    limit = watch.config.journal.group_max_bytes
    yield _say("journal.group_max_bytes", limit, Figure("commit_units_p99", most, "bytes"),
               most < QUEUE_PART * limit,
               f"99 of 100 commits had {most} bytes or less, far from the limit.",
               f"Commits reach {most} bytes of {limit}: a larger limit shares each sync among "
               "more orders.")


def _segments(watch: Watch) -> Advice:
    rate = watch.recent.rates().get("journal_written", 0.0)
    size = watch.config.journal.segment_bytes
    if rate <= 0:
        return
    seconds = size / rate
    yield _say("journal.segment_bytes", size, Figure("journal_segment_fill", round(seconds), "s"),
               seconds >= SEGMENT_S,
               f"At {rate:.0f} bytes a second a segment lasts {seconds:.0f} s.",
               f"At {rate:.0f} bytes a second a segment is full after {seconds:.0f} s: larger "
               "segments change less often.")


def _disk(watch: Watch) -> Advice:
    rate = watch.recent.rates().get("journal_written", 0.0)
    if rate <= 0 or watch.disk_free_bytes < 0:
        return
    hours = watch.disk_free_bytes / rate / HOUR_S
    yield _say("journal.retain_segments", watch.config.journal.retain_segments,
               Figure("disk_full_in", round(hours, 1), "h"), hours >= DISK_HOURS,
               f"At {rate:.0f} bytes a second the disk has room for {hours:.0f} hours.",
               f"At {rate:.0f} bytes a second the disk is full in {hours:.1f} hours: make room, or "
               "keep fewer segments.")


def _snapshots(watch: Watch) -> Advice:
    values = watch.metrics.snapshot()
    if not values.get("snapshots"):
        return
    pause_ms = values["snapshot_pause"] / clock.NS_PER_MS
    yield _say("journal.snapshot_events", watch.config.journal.snapshot_events,
               Figure("snapshot_pause", round(pause_ms, 3), "ms"), pause_ms < PAUSE_MS,
               f"The last snapshot stopped trading for {pause_ms:.2f} ms.",
               f"The last snapshot stopped trading for {pause_ms:.1f} ms: take fewer, or look at "
               "the machine's memory.")


def _door(watch: Watch) -> Advice:
    values, entry = watch.metrics.snapshot(), watch.config.order_entry
    away, cut = values.get("turned_away", 0), values.get("slow_readers", 0)
    yield _say("order_entry.connections_max", entry.connections_max,
               Figure("turned_away", away, "connections"), not away,
               "No connection was turned away.",
               f"{away} connections were turned away: allow more, or find who opens them.")
    yield _say("order_entry.unsent_max_bytes", entry.unsent_max_bytes,
               Figure("slow_readers", cut, "sessions"), not cut,
               "No session was cut for reading too slowly.",
               f"{cut} sessions were cut for reading too slowly: a larger limit gives clients "
               "more time, at the cost of memory.")
    if "udp_kernel_drops" in values:
        drops = values["udp_kernel_drops"]
        yield _say("order_entry.udp_receive_buffer_bytes", entry.udp_receive_buffer_bytes,
                   Figure("udp_kernel_drops", drops, "datagrams"), not drops,
                   "The kernel dropped no datagram of a client.",
                   f"The kernel dropped {drops} datagrams for want of room: allow it more, here "
                   "and in net.core.rmem_max.")


# -- the feed --------------------------------------------------------------------------------------


def _batches(watch: Watch) -> Advice:
    if watch.feed is None:
        return
    stats, config = watch.feed.stats(), watch.config.feed
    if not stats["batches_sent"]:
        return
    size = float(stats["avg_batch_size"])
    figure = Figure("avg_batch_size", round(size, 2), "messages")
    lonely = size < 1.5 and stats["active_connections"] > 100
    yield _say("feed.batch_interval_ms", config.batch_interval_ms, figure, not lonely,
               f"A batch holds {size:.1f} messages on average.",
               f"A batch holds {size:.1f} messages on average, for "
               f"{stats['active_connections']} clients: a longer interval joins more messages in "
               "one write, which is most of what a client costs.")
    yield _say("feed.max_batch_size", config.max_batch_size, figure,
               size < QUEUE_PART * config.max_batch_size,
               f"Batches of {size:.1f} messages are far from the limit.",
               f"Batches of {size:.1f} messages come near the limit, so ticks are cut short: "
               "raise it.")


def _slow_clients(watch: Watch) -> Advice:
    if watch.feed is None:
        return
    config, clients = watch.config.feed, watch.feed.clients()
    behind = sum(1 for row in clients if row["queue_size"] > config.slow_client_threshold)
    yield _say("feed.slow_client_threshold", config.slow_client_threshold,
               Figure("clients_behind", behind, "clients"),
               behind <= SLOW_PART * max(1, len(clients)),
               f"{behind} of {len(clients)} clients are behind by more than the threshold.",
               f"{behind} of {len(clients)} clients are behind: if they are well connected, a "
               "longer batch interval or a larger threshold serves them better.")
    dropped = int(watch.feed.stats()["clients_dropped"])
    yield _say("feed.unsent_max_bytes", config.unsent_max_bytes,
               Figure("clients_dropped", dropped, "clients"), not dropped,
               "No client was closed for being slow.",
               f"{dropped} clients were closed since the start: a larger limit keeps slow ones "
               "longer, at the cost of memory.")


def _resumes(watch: Watch) -> Advice:
    values = watch.metrics.counts()
    resumed, resets = values.get("feed_resumed"), values.get("feed_resets")
    if not resumed and not resets:
        return
    resumed, resets = resumed or 0, resets or 0
    yield _say("feed.resume_window_ms", watch.config.feed.resume_window_ms,
               Figure("feed_resets", resets, "subscriptions"), resets <= SLOW_PART * resumed,
               f"{resumed} subscriptions were resumed, {resets} had to begin again.",
               f"{resets} subscriptions had to begin again and {resumed} were resumed: a longer "
               "window covers longer absences.")


# -- HTTP and the process -----------------------------------------------------------------------


def _limits(watch: Watch) -> Advice:
    refused = sum(watch.recent.grown(key) for key in watch.metrics.counts()
                  if key.startswith("http_requests{") and "status=429" in key)
    yield _say("api.requests_per_second", watch.config.api.requests_per_second,
               Figure("http_429", refused, "requests"), not refused,
               f"No request was refused for its rate in the last {SPREAD_WINDOW_S} s.",
               f"{refused} requests were refused for their rate in the last {SPREAD_WINDOW_S} s: "
               "raise the limit, or have the client send batches.")


def _loop(watch: Watch) -> Advice:
    spread = watch.recent.spread("loop_lag")
    if spread.count < LAG_SAMPLES:
        return
    p99_ms = spread.quantile(0.99) / clock.NS_PER_MS
    yield _say("feed.batch_interval_ms", watch.config.feed.batch_interval_ms,
               Figure("loop_lag_p99", round(p99_ms, 3), "ms"), p99_ms < LAG_MS,
               f"The event loop ran 99 of 100 timers less than {p99_ms:.1f} ms late.",
               f"The event loop ran one in a hundred timers more than {p99_ms:.1f} ms late: it "
               "has too much to do. A longer batch interval or fewer clients give it time.")


def _collector(watch: Watch) -> Advice:
    pauses = [watch.recent.spread(f"gc_pause{{generation={number}}}") for number in range(3)]
    total_ns = sum(pause.total for pause in pauses)
    part = total_ns / (SPREAD_WINDOW_S * clock.NS_PER_S)
    yield _say("(none)", "", Figure("gc_pause_part", round(part, 5), "of the time"),
               part < GC_PART,
               f"The garbage collector took {part:.3%} of the last {SPREAD_WINDOW_S} s.",
               f"The garbage collector took {part:.1%} of the last {SPREAD_WINDOW_S} s: fewer "
               "clients or subscriptions make less of it.", "look")


def _load(watch: Watch) -> Advice:
    rates = watch.recent.rates()
    commands = rates.get("matcher{kind=commands}", 0.0)
    commits = watch.recent.per_second("commit")
    if commands <= 0 or commits <= 0:
        return
    each = commands / commits
    yield Recommendation(
        "journal.interval_ms", watch.config.journal.interval_ms, "keep",
        f"{commands:.0f} commands a second shared {commits:.0f} commits, {each:.1f} each; more "
        "clients at once, or more orders in flight of each, share them better.",
        Figure("commands_per_commit", round(each, 2), "commands"))


_RULES: tuple[Callable[[Watch], Advice], ...] = (
    _queues, _commit, _group, _segments, _disk, _snapshots, _door, _batches, _slow_clients,
    _resumes, _limits, _loop, _collector, _load)
