"""A client's subscription to a chain, and how far it has been told."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.feed.chains import Chain
    from engine.feed.client import Client


class Told(Enum):
    """How a subscription gets what its chain says."""

    # It waits for the chain: for its snapshot, or for what it missed.
    WAITING = auto()
    # It gets what was missed from the event log.
    CATCHING_UP = auto()
    # It has everything; its next message must name another `prev_seq` than the chain's own.
    BRIDGING = auto()
    # It gets the chain's own messages.
    LIVE = auto()
    # The client is slow: nothing is sent.
    STOPPED = auto()
    # It is over.
    ENDED = auto()


class Subscription:
    """One of a client."""

    __slots__ = ("chain", "client", "last_seq", "reset_reason", "resume_from", "told")

    def __init__(self, client: Client, chain: Chain, resume_from: int | None,
                 reset_reason: str) -> None:
        self.client = client
        self.chain = chain
        self.told = Told.WAITING
        # The seq of the message that it got last; 0 before the first.
        self.last_seq = 0
        self.resume_from = resume_from
        self.reset_reason = reset_reason
