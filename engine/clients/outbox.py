"""How requests leave, whatever the transport: in the order of the calls, once per turn of the
loop, and again when the connection was lost."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque

from cython_core import ouch, soupbin
from engine.clients.executions import AccountQueried
from engine.clients.link import SessionLink
from engine.clients.parcels import Parcels
from engine.clients.pending import Pending, Request

# Fences are told apart by the UserRefIdx they ask for, 1 to 255. Far fewer are out at a time, so
# that one of a broken connection is never taken for one of the next.
FENCES_MAX = 64


class Outbox(ABC):
    """What the client asks of either. `link` is where it goes; None while nothing can be sent."""

    def __init__(self) -> None:
        self.link: SessionLink | None = None
        self._loop = asyncio.get_running_loop()
        self._flushing = False

    @abstractmethod
    def add(self, request: Request) -> None:
        """Send this one, in its turn."""

    @abstractmethod
    def removed(self, request: Request) -> None:
        """A request waits no more: it is answered, or given up."""

    @abstractmethod
    def logged_in(self, link: SessionLink) -> None:
        """Requests can be sent from now on; what was sent before and is unanswered is sent
        again."""

    @abstractmethod
    def flush(self) -> None:
        """Send what waits."""

    @abstractmethod
    def fence_answered(self, message: AccountQueried) -> None:
        """The answer to an account query of the outbox came: one with a UserRefIdx."""

    def _flush_soon(self) -> None:
        """Write once for all requests of this turn of the loop."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flushing = False
        self.flush()


class StreamOutbox(Outbox):
    """Requests over TCP: all in one order, with one fence behind those of a turn."""

    def __init__(self, pending: Pending) -> None:
        super().__init__()
        self._pending = pending
        self._unwritten: list[bytes] = []
        # The ordinal of the next request.
        self._requests = 0
        # Fences on this connection, oldest first: (UserRefIdx, requests before it).
        self._fences: deque[tuple[int, int]] = deque()
        self._fence_wanted = False
        self._fence_idx = 0
        for request in pending:
            self._requests = request.number + 1

    def add(self, request: Request) -> None:
        self._requests = request.number + 1
        self._unwritten.append(request.packet)
        self._fence_wanted |= request.fenced
        self._flush_soon()

    def removed(self, request: Request) -> None:
        """Nothing waits here for an answer."""

    def logged_in(self, link: SessionLink) -> None:
        self.link = link
        self._fences.clear()
        self._unwritten = [request.packet for request in self._pending]
        self._fence_wanted = bool(self._unwritten)
        self.flush()

    def flush(self) -> None:
        if self.link is not None:
            if self._fence_wanted and len(self._fences) < FENCES_MAX:
                self._fence_wanted = False
                self._fence_idx = self._fence_idx % 255 + 1
                self._fences.append((self._fence_idx, self._requests))
                self._unwritten.append(soupbin.build_unsequenced(
                    ouch.encode_inbound("Q", user_ref_idx=self._fence_idx)))
            if self._unwritten:
                self.link.write(b"".join(self._unwritten))
        # Without a connection there is nothing to do: a login sends all that is pending.
        self._unwritten.clear()

    def fence_answered(self, message: AccountQueried) -> None:
        if not self._fences or self._fences[0][0] != message.user_ref_idx:
            return
        _, requests = self._fences.popleft()
        self._pending.resolve_before(requests)
        if self._fence_wanted:
            self._flush_soon()


class DatagramOutbox(Outbox):
    """Requests over UDP: in parcels, each sent again until it is answered."""

    def __init__(self, pending: Pending, window: int) -> None:
        super().__init__()
        self._pending = pending
        self._parcels = Parcels(window)
        self._timer: asyncio.TimerHandle | None = None
        for request in pending:
            # Another transport may have carried it to the venue already.
            request.fenced = True
            self.add(request)

    def add(self, request: Request) -> None:
        # Sent twice, it may be answered twice, and the first of two could be that of another.
        request.at_fence = request.kind == b"M"
        self._parcels.add(request)
        self._flush_soon()

    def removed(self, request: Request) -> None:
        self._see_link()
        self._parcels.done(request, self._loop.time())
        self._flush_soon()

    def logged_in(self, link: SessionLink) -> None:
        self.link = link
        self._parcels.restart(self._loop.time())
        self.flush()

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        link = self.link
        if link is None:
            return
        for datagram in self._parcels.datagrams(self._loop.time()):
            link.write(datagram)
        due = self._parcels.due()
        if due is not None:
            self._timer = self._loop.call_at(due, self.flush)

    def fence_answered(self, message: AccountQueried) -> None:
        self._see_link()
        for request in self._parcels.fence_answered(message.sequence, message.user_ref_idx,
                                                    self._loop.time()):
            self._pending.resolve_fenced(request)

    def _see_link(self) -> None:
        if self.link is not None:
            self._parcels.disturbed_at = self.link.disturbed_at
