"""Sequenced messages that come in datagrams, put in order: each once, none left out.

Datagrams are lost, repeated, and overtake each other. Every packet tells its number, heartbeats
tell the next one, so what is missing is known, and is asked for again (PROTOCOLS section 4.1). No
socket and no clock here: the caller says what came and what time it is.
"""

from collections.abc import Iterator, Sequence

from engine.clients.round_trip import RoundTrip
from engine.clients.soup import Sequenced

# Later messages that wait for a missing one. More are dropped, and asked for in their turn.
HELD_MAX = 65_536
# What is overtaken by this little is waited for, not asked for.
OVERTAKEN_S = 0.005
# How many holes are asked for at a time, and how many messages of each.
HOLES_MAX = 8
ASKED_MAX = 10_000

FIRST_WAIT_S, LEAST_WAIT_S, MOST_WAIT_S = 0.05, 0.01, 0.2


class Reorder:
    """The messages of one session. `next_number` is the one that is waited for, `end` the one
    behind the last that is known to exist."""

    def __init__(self, next_number: int) -> None:
        self.next_number = self.end = next_number
        self._held: dict[int, bytes] = {}

    def take(self, first: int, messages: Sequence[bytes]) -> list[Sequenced]:
        """What a packet of messages from number `first` on makes complete, in order."""
        self.announce(first + len(messages))
        if first > self.next_number:
            self._hold(first, messages)
            return []
        place = self.next_number - first
        ready = [Sequenced(number, message)
                 for number, message in enumerate(messages[place:], self.next_number)]
        self.next_number += len(ready)
        if self._held and ready:
            self._release(ready)
        return ready

    def _release(self, ready: list[Sequenced]) -> None:
        """Add what waited for these messages; a packet may bring anew what was held."""
        for number, _ in ready:
            self._held.pop(number, None)
        while (message := self._held.pop(self.next_number, None)) is not None:
            ready.append(Sequenced(self.next_number, message))
            self.next_number += 1

    def _hold(self, first: int, messages: Sequence[bytes]) -> None:
        for number, message in enumerate(messages, first):
            if len(self._held) < HELD_MAX:
                self._held[number] = message

    def announce(self, next_number: int) -> None:
        """The venue says that the next message will have this number."""
        self.end = max(self.end, next_number)

    @property
    def complete(self) -> bool:
        """Whether everything came that is known to exist."""
        return self.next_number >= self.end

    def holes(self) -> Iterator[tuple[int, int]]:
        """What is missing: (first number, count), in order."""
        first = self.next_number
        for number in sorted(self._held):
            if number > first:
                yield first, number - first
            first = number + 1
        if first < self.end:
            yield first, self.end - first


class Gaps:
    """When to ask for what is missing in `reorder`."""

    def __init__(self, reorder: Reorder, round_trip: RoundTrip | None = None) -> None:
        self._reorder = reorder
        self._round_trip = round_trip or RoundTrip(FIRST_WAIT_S, LEAST_WAIT_S, MOST_WAIT_S)
        self._due: float | None = None
        # The hole that the time is about, how often it was asked for and when first.
        self._first = 0
        self._tries = 0
        self._asked_at = self._since = 0.0
        # Messages below this number were asked for at least once.
        self._asked_end = 0

    def due(self, now: float) -> float | None:
        """When to call `ask`; None while nothing is missing. To be called when something came."""
        first = self._reorder.next_number
        if self._due is not None and first > self._first and self._tries == 1:
            self._round_trip.measured(now - self._asked_at)
        if self._reorder.complete:
            self._due = None
        elif self._due is None or first > self._first:
            # While answers come one after the other, the rest is on its way.
            wait_s = self._round_trip.mean_s if first < self._asked_end else 0.0
            self._first, self._tries, self._since = first, 0, now
            self._due = now + max(wait_s, OVERTAKEN_S)
        return self._due

    def ask(self, now: float) -> list[tuple[int, int]]:
        """The holes to ask for now: (first number, count)."""
        due = self.due(now)
        if due is None or now < due:
            return []
        holes = []
        for first, count in self._reorder.holes():
            holes.append((first, min(count, ASKED_MAX)))
            self._asked_end = max(self._asked_end, first + holes[-1][1])
            if len(holes) == HOLES_MAX:
                break
        self._tries += 1
        if self._tries == 1:
            self._asked_at = now
        self._due = now + self._round_trip.wait_s(self._tries)
        return holes

    def stuck_s(self, now: float) -> float:
        """How long the first missing message has been waited for."""
        return 0.0 if self._due is None else now - self._since
