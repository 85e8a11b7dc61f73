"""Who may try a password now: a few failures within a minute are enough.

Pure: it is told the time, and knows addresses and names only as values to compare.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable

from engine import clock

# From the fifth failure within a minute on one waits.
FAILURES_MAX = 5
PERIOD_NS = 60 * clock.NS_PER_S
# Each failure costs us a password check, so that this many in one period can't be.
ENTRIES_MAX = 10_000
# Accounts at the places where they logged in; the one that did so longest ago is forgotten first.
KNOWN_MAX = 10_000


class Throttle:
    """Counts failed logins by a key, an address for one: the last few of each."""

    def __init__(self, failures_max: int = FAILURES_MAX, period_ns: int = PERIOD_NS,
                 entries_max: int = ENTRIES_MAX) -> None:
        self._failures_max = failures_max
        self._period_ns = period_ns
        self._entries_max = entries_max
        # By key the times of its last failures, the oldest first; keys by the last one.
        self._failed: OrderedDict[Hashable, deque[int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failed)

    def is_closed(self, key: Hashable, now_ns: int) -> bool:
        """Whether logins of this key are refused unseen: it failed too often within the period
        that ends now."""
        times = self._failed.get(key)
        return (times is not None and len(times) == self._failures_max
                and now_ns - times[0] < self._period_ns)

    def failed(self, key: Hashable, now_ns: int) -> None:
        """A login of this key failed; `now_ns` never goes back."""
        times = self._failed.setdefault(key, deque(maxlen=self._failures_max))
        times.append(now_ns)
        self._failed.move_to_end(key)
        self._forget(now_ns)

    def _forget(self, now_ns: int) -> None:
        """Drop keys whose last failure is old, and the oldest when there are too many."""
        failed = self._failed
        while failed:
            key, times = next(iter(failed.items()))
            if len(failed) <= self._entries_max and now_ns - times[-1] < self._period_ns:
                return
            del failed[key]


class Guard:
    """Decides at one door which logins are looked at.

    Failures are counted by address, by account (the name as it was sent, whether there is one or
    not), and by both together. An account that has logged in from an address is *known* there: it
    answers for its own failures from there alone. Everybody else waits also for those of the
    address and of the account. So nobody can shut an account out of its usual place, nor one
    broken client its neighbours, and a password is not guessed faster from many addresses.
    """

    def __init__(self, failures_max: int = FAILURES_MAX, period_ns: int = PERIOD_NS,
                 entries_max: int = ENTRIES_MAX, known_max: int = KNOWN_MAX) -> None:
        self._pairs = Throttle(failures_max, period_ns, entries_max)
        self._addresses = Throttle(failures_max, period_ns, entries_max)
        self._accounts = Throttle(failures_max, period_ns, entries_max)
        self._known: OrderedDict[tuple[Hashable, str], None] = OrderedDict()
        self._known_max = known_max

    def __len__(self) -> int:
        """Entries of all tables."""
        return (len(self._pairs) + len(self._addresses) + len(self._accounts)
                + len(self._known))

    def is_known(self, address: Hashable, account: str) -> bool:
        """Whether the account has logged in from there before."""
        return (address, account) in self._known

    def is_closed(self, address: Hashable, account: str, now_ns: int) -> bool:
        """Whether a login of this account from this address is refused unseen."""
        if self.is_known(address, account):
            return self._pairs.is_closed((address, account), now_ns)
        return (self._addresses.is_closed(address, now_ns)
                or self._accounts.is_closed(account, now_ns))

    def failed(self, address: Hashable, account: str, now_ns: int) -> None:
        """A login was looked at and failed; `now_ns` never goes back."""
        self._pairs.failed((address, account), now_ns)
        self._addresses.failed(address, now_ns)
        self._accounts.failed(account, now_ns)

    def succeeded(self, address: Hashable, account: str) -> None:
        """A password was right."""
        self._known[address, account] = None
        self._known.move_to_end((address, account))
        if len(self._known) > self._known_max:
            self._known.popitem(last=False)
