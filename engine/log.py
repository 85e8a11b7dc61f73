"""Log lines: JSON or console, one per lifecycle step, session and refusal; never one per order.

Lines go to stderr, so that stdout is free for what a command was asked for. A line that repeats
(the same event, level and `key`) is limited: the first ones of each period pass, the rest are
counted, and the next one that passes says how many were suppressed.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from engine import clock

# Ten of a kind in ten seconds tell an operator everything; a flood of bad logins stays readable.
REPEATS_MAX = 10
PERIOD_NS = 10 * clock.NS_PER_S
# And of all keys together, for what strangers cause: so many addresses do not fill the disk either.
LINES_MAX = 200
# Keys seen in a period are forgotten together, so a scan from many addresses can't grow this.
KEYS_MAX = 10_000

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING,
          "error": logging.ERROR}

Event = MutableMapping[str, Any]


class RepeatLimiter:
    """A structlog processor that limits repeated lines.

    `key` in a line names what repeats (an address, an account) and is taken out of it. Errors
    always pass.
    """

    def __init__(self, repeats_max: int = REPEATS_MAX, period_ns: int = PERIOD_NS) -> None:
        self._repeats_max = repeats_max
        self._period_ns = period_ns
        # An entry is [start of the period, lines in it, lines suppressed since the last passed].
        self._seen: dict[tuple[str, str, object], list[int]] = {}
        self._whole: dict[tuple[str, str], list[int]] = {}

    def __call__(self, logger: object, method: str, event: Event) -> Event:
        key = event.pop("key", None)
        if method in ("error", "critical", "exception"):
            return event
        now_ns, name = clock.monotonic_ns(), str(event.get("event"))
        entry = self._entry((name, method, key), now_ns)
        self._count(entry, self._repeats_max, now_ns)
        suppressed, entry[2] = entry[2], 0
        if key is not None and method in ("debug", "info"):
            whole = self._whole.setdefault((name, method), [now_ns, 0, 0])
            whole[2] += suppressed
            self._count(whole, LINES_MAX, now_ns)
            suppressed, whole[2] = whole[2], 0
        if suppressed:
            event["suppressed"] = suppressed
        return event

    def _count(self, entry: list[int], lines_max: int, now_ns: int) -> None:
        """Count a line. Raises DropEvent when it is one too many."""
        if now_ns - entry[0] >= self._period_ns:
            entry[0], entry[1] = now_ns, 0
        entry[1] += 1
        if entry[1] > lines_max:
            entry[2] += 1
            raise structlog.DropEvent

    def _entry(self, name: tuple[str, str, object], now_ns: int) -> list[int]:
        if name not in self._seen and len(self._seen) >= KEYS_MAX:
            self._seen.clear()
        return self._seen.setdefault(name, [now_ns, 0, 0])


def configure(level: str = "info", format: str = "console") -> None:
    """Send log lines of at least `level` to stderr, as "json" or for people ("console")."""
    renderer: Any = structlog.processors.JSONRenderer()
    if format == "console":
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), pad_event_to=0, pad_level=False, sort_keys=False,
            timestamp_key="time")
    structlog.configure(
        processors=[
            RepeatLimiter(),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def get(name: str) -> Any:
    """A logger whose lines carry the name of the part that writes them."""
    return structlog.get_logger(part=name)
