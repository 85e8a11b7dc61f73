"""Orders as they are written in JSON, and the first answers to orders with a client's id."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from engine.api.route import ENCODER, Reply

# A resend that comes late reads its first answer from the log.
FIRST_ANSWERS_KEPT = 10_000


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A ledger's row of an order or a fill with its ids as texts. The row is the caller's own."""
    row["order_id"] = str(row["order_id"])
    for name in ("match", "replaces", "replaced_by"):
        if name in row:
            row[name] = str(row[name])
    for fill in row.get("fills", ()):
        fill["match"] = str(fill["match"])
    return row


def order_reply(row: dict[str, Any], status: int = 200) -> Reply:
    """One order."""
    return Reply(status, ENCODER.encode(shown(row)))


class FirstAnswers:
    """The newest first answers, by the seq of their first event."""

    def __init__(self, kept: int = FIRST_ANSWERS_KEPT) -> None:
        self._kept = kept
        self._replies: OrderedDict[int, tuple[int, bytes]] = OrderedDict()

    def keep(self, seq: int, reply: Reply) -> None:
        """Remember a first answer; the oldest one goes."""
        if len(self._replies) >= self._kept:
            self._replies.popitem(last=False)
        self._replies[seq] = reply.status, reply.body

    def find(self, seq: int) -> Reply | None:
        """The first answer of this seq, while it is kept."""
        found = self._replies.get(seq)
        return Reply(*found) if found else None
