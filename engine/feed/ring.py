"""What a chain sent lately, so that a client that was away for a moment can go on."""

from __future__ import annotations

from collections import deque

from engine.feed.encode import Message

# A chain that sends very often keeps its newest messages only.
MESSAGES_MAX = 4_096
BYTES_MAX = 2 * 2**20


class Ring:
    """Messages that follow each other, each for `window_ns` at most."""

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._messages: deque[Message] = deque()
        self._bytes = 0

    def add(self, message: Message, now_ns: int) -> None:
        """Keep a message that was just sent, and let old ones go."""
        message.settle(now_ns)
        self._messages.append(message)
        self._bytes += message.held_bytes
        oldest_ns = now_ns - self._window_ns
        while self._messages and (self._messages[0].sent_ns < oldest_ns
                                  or self._bytes > BYTES_MAX
                                  or len(self._messages) > MESSAGES_MAX):
            self._bytes -= self._messages.popleft().held_bytes
        if not self._messages:
            self._bytes = 0

    def since(self, seq: int) -> list[Message] | None:
        """The messages after the one that ended at `seq`; None when they are not all here.

        Of several with the same `seq` all but the first come again: nothing is left out.
        """
        found: list[Message] = []
        for message in reversed(self._messages):
            if message.prev_seq < seq:
                break
            found.append(message)
        if not found or found[-1].prev_seq != seq:
            return None
        found.reverse()
        return found

    def clear(self) -> None:
        """What comes next does not follow what is here."""
        self._messages.clear()
        self._bytes = 0
