"""Who may try a password now: a few failures within a minute are enough for one address.

Pure: it is told the time, and knows addresses only as values to compare.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable

from engine import clock

# From the fifth failure within a minute on an address waits.
FAILURES_MAX = 5
PERIOD_NS = 60 * clock.NS_PER_S
# Each failure costs us a password check, so that this many in one period can't be.
ADDRESSES_MAX = 10_000


class Throttle:
    """Counts failed logins of each address, the last few of them."""

    def __init__(self, failures_max: int = FAILURES_MAX, period_ns: int = PERIOD_NS,
                 addresses_max: int = ADDRESSES_MAX) -> None:
        self._failures_max = failures_max
        self._period_ns = period_ns
        self._addresses_max = addresses_max
        # By address the times of its last failures, the oldest first; addresses by the last one.
        self._failed: OrderedDict[Hashable, deque[int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failed)

    def is_closed(self, address: Hashable, now_ns: int) -> bool:
        """Whether logins of this address are refused unseen: it failed too often within the
        period that ends now."""
        times = self._failed.get(address)
        return (times is not None and len(times) == self._failures_max
                and now_ns - times[0] < self._period_ns)

    def failed(self, address: Hashable, now_ns: int) -> None:
        """A login of this address failed; `now_ns` never goes back."""
        times = self._failed.setdefault(address, deque(maxlen=self._failures_max))
        times.append(now_ns)
        self._failed.move_to_end(address)
        self._forget(now_ns)

    def _forget(self, now_ns: int) -> None:
        """Drop addresses whose last failure is old, and the oldest when there are too many."""
        failed = self._failed
        while failed:
            address, times = next(iter(failed.items()))
            if len(failed) <= self._addresses_max and now_ns - times[-1] < self._period_ns:
                return
            del failed[address]
