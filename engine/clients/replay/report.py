"""What came of a replay."""

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from engine.instruments import Instrument

# (price_units, quantity_lots, orders), best first.
BookLevel: TypeAlias = tuple[int, int, int]
BookSides: TypeAlias = tuple[list[BookLevel], list[BookLevel]]
# Gives the book of an instrument as the journal has it, None when the journal of the venue with
# this session is not at hand. The command line passes it in: a client imports no stage.
JournalBook: TypeAlias = Callable[[Instrument, str], BookSides | None]

_NAMES = {
    "orders": "orders entered and cancelled as sent",
    "hits": "executions against the named order",
    "levels": "best levels after a command",
    "rows": "whole books after a row",
    "strays": "messages that nobody asked for",
    "journal": "book rebuilt from the journal",
}


class Report(msgspec.Struct, frozen=True):
    """Messages and checks of one replay. `checks` are (passed, failed) by kind."""

    symbol: str
    lines: int
    messages: int
    seconds: float
    checks: dict[str, tuple[int, int]]
    failures: list[str]
    notes: list[str]

    @property
    def messages_per_second(self) -> float:
        """Messages sent and answered, over the time from the first to the last."""
        return self.messages / self.seconds if self.seconds else 0.0

    @property
    def passed(self) -> int:
        return sum(passed for passed, _ in self.checks.values())

    @property
    def failed(self) -> int:
        return sum(failed for _, failed in self.checks.values())

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "symbol": self.symbol, "lines": self.lines, "messages": self.messages,
            "seconds": round(self.seconds, 6),
            "messages_per_second": round(self.messages_per_second, 1),
            "passed": self.passed, "failed": self.failed,
            "checks": {kind: {"passed": passed, "failed": failed}
                       for kind, (passed, failed) in self.checks.items()},
            "failures": self.failures, "notes": self.notes,
        }

    def as_text(self) -> str:
        """For people."""
        lines = [
            f"{self.symbol}: {self.lines:,} lines, {self.messages:,} messages in "
            f"{self.seconds:.3f} s, {self.messages_per_second:,.0f} messages per second",
            f"checks: {self.passed:,} passed, {self.failed:,} failed",
        ]
        for kind, (passed, failed) in self.checks.items():
            if passed or failed:
                lines.append(f"  {_NAMES[kind]}: {passed:,} passed, {failed:,} failed")
        lines += [f"  failed: {text}" for text in self.failures]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)


def compare_books(reported: BookSides, journal: BookSides) -> list[str]:
    """The differences between two books, in words; empty when they are the same."""
    differences = []
    for name, mine, theirs in zip(("asks", "bids"), reported, journal, strict=True):
        if list(map(tuple, mine)) != list(map(tuple, theirs)):
            differences.append(f"{name}: the reports make {mine[:10]}, the journal {theirs[:10]}")
    return differences
