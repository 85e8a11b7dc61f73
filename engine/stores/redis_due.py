"""Which books are written, and when. No clock, no I/O.

A book that changed is written at most every `interval_ms`: soon when its best bid or offer moved
by more than `min_change` of its price, else when it was last written `max_age_ms` ago. With
`min_change` 0 every change is written soon. With `refresh_ms` a book is written again although it
did not change, before its reader takes it for gone.
"""

from __future__ import annotations

from heapq import heappop, heappush

NS_PER_MS = 1_000_000
NEVER = -(2**62)


class Market:
    """What was written of one market last: when, and its best prices; 0 where a side is empty."""

    __slots__ = ("ask", "bid", "due_ns", "wrote_ns")

    def __init__(self) -> None:
        self.wrote_ns = NEVER
        # 0 when it is not due at all.
        self.due_ns = 0
        self.bid = self.ask = 0


class Due:
    """The markets of one store by any id. Times are monotonic nanoseconds, never 0."""

    def __init__(self, min_change: float, max_age_ms: int, interval_ms: int,
                 refresh_ms: int = 0) -> None:
        self._min_change = min_change
        self._max_age_ns = max_age_ms * NS_PER_MS
        self._interval_ns = interval_ms * NS_PER_MS
        self._refresh_ns = refresh_ms * NS_PER_MS
        self._markets: dict[int, Market] = {}
        # (when, market): entries that a later decision overtook are left lying.
        self._heap: list[tuple[int, int]] = []

    def changed(self, market_id: int, bid: int, ask: int, now_ns: int) -> None:
        """The book changed; these are its best prices now."""
        market = self._market(market_id)
        moved = (self._min_change == 0 or self._moved(market.bid, bid)
                 or self._moved(market.ask, ask))
        wait_ns = self._interval_ns if moved else max(self._interval_ns, self._max_age_ns)
        self._set(market_id, market, max(now_ns, market.wrote_ns + wait_ns))

    def force(self, market_id: int, now_ns: int) -> None:
        """Write it at once, whatever it is."""
        self._set(market_id, self._market(market_id), now_ns)

    def take(self, now_ns: int, limit: int) -> list[int]:
        """The markets that are due, the longest first, at most so many. They stay due until they
        are `wrote`."""
        found: list[int] = []
        while self._heap and self._heap[0][0] <= now_ns and len(found) < limit:
            at_ns, market_id = heappop(self._heap)
            market = self._markets.get(market_id)
            if market is not None and market.due_ns == at_ns and market_id not in found:
                found.append(market_id)
        for market_id in found:
            heappush(self._heap, (self._markets[market_id].due_ns, market_id))
        return found

    def wrote(self, market_id: int, bid: int, ask: int, now_ns: int) -> None:
        """It was written, with these best prices."""
        market = self._market(market_id)
        market.wrote_ns, market.bid, market.ask, market.due_ns = now_ns, bid, ask, 0
        if self._refresh_ns:
            self._set(market_id, market, now_ns + self._refresh_ns)

    def next_ns(self) -> int:
        """When the next market is due, perhaps long ago; 0 for never."""
        while self._heap:
            at_ns, market_id = self._heap[0]
            market = self._markets.get(market_id)
            if market is not None and market.due_ns == at_ns:
                return at_ns
            heappop(self._heap)
        return 0

    def _market(self, market_id: int) -> Market:
        market = self._markets.get(market_id)
        if market is None:
            market = self._markets[market_id] = Market()
        return market

    def _set(self, market_id: int, market: Market, at_ns: int) -> None:
        if market.due_ns == 0 or at_ns < market.due_ns:
            market.due_ns = at_ns
            heappush(self._heap, (at_ns, market_id))

    def _moved(self, before: int, now: int) -> bool:
        if before == now:
            return False
        return before == 0 or now == 0 or abs(now - before) > self._min_change * before
