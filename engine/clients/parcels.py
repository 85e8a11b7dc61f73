"""Requests packed into datagrams, and sent again until the venue answered.

A parcel is the requests of one datagram. The venue takes a datagram whole or not at all, handles
its requests in order, and takes each number once; so a parcel is sent again as it is, without what
was answered meanwhile, and nothing is ever done twice.

Requests leave in the order of the calls, and datagrams overtake each other. So the first request
that waits is held back, and those behind it with it,
- while another parcel has a request about the same order that is not answered,
- while a number would be out that is a window or more behind it (the venue takes such a number
  for one that it has seen),
- while one of the two is about the whole account (mass cancel, disable, enable) and the other is
  not answered.

A request that the venue may ignore without a word, and one that is sent again, needs a fence: two
account queries at the datagram's end, which are always answered. What of the parcel is unanswered
then, never will be. The two name a pair of UserRefIdx, another each time, so that the answer to a
datagram which was underway for long is not taken for that to a new one.

The venue answers in the order in which datagrams came. So what is unanswered when a datagram that
was sent later is answered, is most likely lost, and is sent again at once; the time-out is for the
last ones.

No socket and no clock here: the caller says what time it is.
"""

import random
from collections import deque
from collections.abc import Iterable

from cython_core import ouch, soupbin
from engine.clients.pending import Request
from engine.clients.round_trip import RoundTrip

DATAGRAM_BYTES_MAX = 1_400
# Datagrams without an answer: more than these wait, and are packed fuller meanwhile.
PARCELS_MAX = 64
# The first query of a fence names a UserRefIdx from 1 to 127, the second one from 128 to 255.
SECOND_CHANNEL = CHANNELS = 128
FENCE_CODES = (SECOND_CHANNEL - 1) * CHANNELS
# No message has the number behind this one.
NO_HALF = -2, 0

FIRST_WAIT_S, LEAST_WAIT_S, MOST_WAIT_S = 0.25, 0.05, 0.5
# What was overtaken by this little may still come.
OVERTAKEN_S = 0.005

# Mass cancel, disable, enable; the account query, which is about nothing.
_WHOLE_ACCOUNT = b"CDE"
_QUERY = b"Q"
_MODIFY = b"M"


class Parcel:
    """The requests of one datagram that are not answered yet, by their ordinals."""

    __slots__ = ("codes", "due", "fenced", "measured", "requests", "sending", "sent_at", "tries")

    def __init__(self) -> None:
        self.requests: dict[int, Request] = {}
        self.fenced = self.measured = False
        self.codes: list[int] = []
        self.tries = 0
        # The number of its last datagram among all.
        self.sending = 0
        self.sent_at = self.due = 0.0


class Parcels:
    """The requests of one account on their way. Times are the caller's, in seconds."""

    def __init__(self, window: int, chance: random.Random | None = None) -> None:
        """`window` is the venue's `order_entry.udp_window`; with 0 one datagram is out at a
        time, as far as it has numbers."""
        self._window = window
        chance = chance or random.Random()
        self.round_trip = RoundTrip(FIRST_WAIT_S, LEAST_WAIT_S, MOST_WAIT_S, chance)
        # When a message of the venue was missing last: answers waited for it then, so that they
        # tell nothing about round trips.
        self.disturbed_at = -1.0
        self._queue: deque[Request] = deque()
        # In the order of sending, so numbers ascend; those that are all answered are gone.
        self._parcels: dict[int, Parcel] = {}
        self._sent = self._sendings = 0
        self._where: dict[int, int] = {}
        # How many unanswered requests are about an order, and about the whole account.
        self._orders: dict[int, int] = {}
        self._whole_account = 0
        # Codes that are out: the parcel, the number of the datagram, and when it was sent.
        self._codes: dict[int, tuple[int, int, float]] = {}
        # The first half of a fence's answer: its number in the session, and its UserRefIdx.
        self._half = NO_HALF
        # Two programs, one after the other, begin at different places.
        self._code = chance.randrange(FENCE_CODES)

    def __len__(self) -> int:
        """Datagrams that are out."""
        return len(self._parcels)

    def add(self, request: Request) -> None:
        """Send this one in its turn."""
        self._queue.append(request)

    def done(self, request: Request, now: float) -> None:
        """It is answered, or given up."""
        serial = self._where.pop(request.number, None)
        if serial is None:
            return  # it was never sent; its turn passes over it
        parcel = self._parcels[serial]
        del parcel.requests[request.number]
        if parcel.tries == 1 and not parcel.measured:
            parcel.measured = True
            self._answered(parcel.sending, parcel.sent_at, now)
        for order in _orders(request):
            self._orders[order] -= 1
            if not self._orders[order]:
                del self._orders[order]
        self._whole_account -= request.kind in _WHOLE_ACCOUNT
        if not parcel.requests:
            self._forget(serial, parcel)

    def _answered(self, sending: int, sent_at: float, now: float) -> None:
        """A datagram was answered: earlier ones should have been."""
        if sent_at > self.disturbed_at:
            self.round_trip.measured(now - sent_at)
        for parcel in self._parcels.values():
            if parcel.sending < sending:
                parcel.due = min(parcel.due, now + OVERTAKEN_S)

    def _forget(self, serial: int, parcel: Parcel) -> None:
        for code in parcel.codes:
            del self._codes[code]
        del self._parcels[serial]

    def fence_answered(self, sequence: int, channel: int, now: float) -> list[Request]:
        """An account query of a UserRefIdx was answered by message `sequence`. When that completes
        a fence, returns the requests in front of it that have no answer: the venue ignored them.
        The caller reports each of them `done`."""
        before, first = self._half
        self._half = (sequence, channel) if channel < SECOND_CHANNEL else NO_HALF
        if before + 1 != sequence or channel < SECOND_CHANNEL:
            return []
        found = self._codes.get((first - 1) * CHANNELS + channel - SECOND_CHANNEL)
        if found is None:
            return []
        serial, sending, sent_at = found
        parcel = self._parcels[serial]
        if parcel.tries > 1:
            # The code tells which of the datagrams this answers.
            self._answered(sending, sent_at, now)
        return list(parcel.requests.values())

    # -- sending -----------------------------------------------------------------------------

    def datagrams(self, now: float) -> list[bytes]:
        """What is to be sent now: parcels whose time is over once more, and new ones."""
        found = [self._encode(serial, parcel, now)
                 for serial, parcel in self._parcels.items() if parcel.due <= now]
        while len(self._parcels) < PARCELS_MAX and (parcel := self._pack()) is not None:
            self._sent += 1
            self._parcels[self._sent] = parcel
            for request in parcel.requests.values():
                self._where[request.number] = self._sent
                for order in _orders(request):
                    self._orders[order] = self._orders.get(order, 0) + 1
                self._whole_account += request.kind in _WHOLE_ACCOUNT
            found.append(self._encode(self._sent, parcel, now))
        return found

    def due(self) -> float | None:
        """When to call `datagrams` again, if nothing happens before; None when all is answered."""
        return min((parcel.due for parcel in self._parcels.values()), default=None)

    def restart(self, now: float) -> None:
        """The session was opened anew: what is out is due at once."""
        for parcel in self._parcels.values():
            # The waits while nobody was there say nothing of those to come.
            parcel.due, parcel.tries = now, 1

    def _pack(self) -> Parcel | None:
        """The next parcel out of the queue; None when nothing waits or may go."""
        parcel = Parcel()
        oldest = self._oldest_number()
        size = _FENCE_BYTES
        modified: set[int] = set()
        while self._queue:
            request = self._queue[0]
            if request.answer.done():
                self._queue.popleft()
                continue
            size += len(request.packet)
            if (size > DATAGRAM_BYTES_MAX and parcel.requests) or request.names in modified \
                    or self._held_back(request, oldest):
                break
            if request.kind == _MODIFY:
                # Its answer is the last one about the order before the fence.
                modified.add(request.names)
            parcel.requests[request.number] = self._queue.popleft()
            parcel.fenced |= request.fenced
        return parcel if parcel.requests else None

    def _held_back(self, request: Request, oldest: int) -> bool:
        """Whether the request has to wait for answers to other parcels."""
        if request.kind in _QUERY:
            return False
        if self._whole_account or (request.kind in _WHOLE_ACCOUNT and self._where):
            return True
        if request.takes and oldest and request.takes - oldest >= self._window:
            return True
        return any(order in self._orders for order in _orders(request))

    def _oldest_number(self) -> int:
        """The lowest number that is out without an answer, 0 for none."""
        for parcel in self._parcels.values():
            for request in parcel.requests.values():
                if request.takes:
                    return request.takes
        return 0

    def _encode(self, serial: int, parcel: Parcel, now: float) -> bytes:
        parcel.tries += 1
        self._sendings += 1
        parcel.sending = self._sendings
        parcel.sent_at = now
        parcel.due = now + self.round_trip.wait_s(parcel.tries)
        packets = [request.packet for request in parcel.requests.values()]
        if parcel.fenced or parcel.tries > 1:
            packets.append(self._fence(serial, parcel, now))
        return b"".join(packets)

    def _fence(self, serial: int, parcel: Parcel, now: float) -> bytes:
        self._code = (self._code + 1) % FENCE_CODES
        if self._code in self._codes:
            # It is out since all others were: that parcel has newer ones.
            old, *_ = self._codes.pop(self._code)
            self._parcels[old].codes.remove(self._code)
        self._codes[self._code] = serial, parcel.sending, now
        parcel.codes.append(self._code)
        return build_fence(self._code)


def build_fence(code: int) -> bytes:
    """The two queries that stand for a code from 0 to FENCE_CODES - 1."""
    first, second = divmod(code, CHANNELS)
    return b"".join(soupbin.build_unsequenced(ouch.encode_inbound("Q", user_ref_idx=channel))
                    for channel in (first + 1, second + SECOND_CHANNEL))


_FENCE_BYTES = len(build_fence(0))


def _orders(request: Request) -> Iterable[int]:
    """The orders, by number, that a request is about."""
    return {request.takes, request.names} - {0}
