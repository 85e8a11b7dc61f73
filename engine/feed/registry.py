"""Every chain of the feed, and which of them have something to say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engine import clock
from engine.feed.chains import Chain, Key, Source
from engine.instruments import Instrument

# Chains that nobody listens to any more and that are kept for who resumes.
LINGERING_MAX = 256


class Registry:
    """Chains by name and by what they read."""

    def __init__(self, source: Source) -> None:
        self.dirty: dict[Chain, None] = {}
        self._source = source
        self._chains: dict[Key, Chain] = {}
        self._readers: dict[str, dict[int, list[Chain]]] = {
            reads: {} for reads in ("books", "orders", "tape", "status", "account")}
        self.unready: dict[Chain, None] = {}
        self._lingering: dict[Chain, int] = {}
        self._status_changes = 0

    def __len__(self) -> int:
        return len(self._chains)

    def get(self, kind: type[Chain], instrument: Instrument, param: int = 0,
            account_id: int = 0) -> Chain:
        """The chain of this name, made at the first call."""
        chain = self._chains.get((kind.channel, instrument.id, account_id, param))
        if chain is None:
            chain = kind(self._source, instrument, param, account_id)
            self._chains[chain.key] = chain
            self._readers[kind.reads].setdefault(account_id or instrument.id, []).append(chain)
            if not chain.start():
                self.unready[chain] = None
        return chain

    def is_clean(self, chain: Chain) -> bool:
        """Whether a chain's state is what it told: nothing waits for the next tick."""
        return chain.started and chain not in self.dirty

    def of(self, reads: str) -> Iterator[Chain]:
        """Every started chain that reads this."""
        for chains in self._readers[reads].values():
            for chain in chains:
                if chain.started:
                    yield chain

    # -- coming and going --------------------------------------------------------------------

    def use(self, chain: Chain) -> None:
        """One subscription more."""
        chain.subscriptions += 1
        self._lingering.pop(chain, None)

    def leave(self, chain: Chain) -> None:
        """One subscription less. A chain without any is kept for who resumes."""
        chain.subscriptions -= 1
        if chain.subscriptions:
            return
        self._lingering[chain] = clock.monotonic_ns()
        while len(self._lingering) > LINGERING_MAX:
            self._drop(next(iter(self._lingering)))

    def drop_unused(self, window_ns: int, now_ns: int) -> None:
        """Let chains go that had no subscription for the resume window."""
        for chain, since_ns in [*self._lingering.items()]:
            if now_ns - since_ns < window_ns:
                break
            self._drop(chain)

    def _drop(self, chain: Chain) -> None:
        del self._lingering[chain], self._chains[chain.key]
        self.dirty.pop(chain, None)
        self.unready.pop(chain, None)
        readers = self._readers[chain.reads]
        number = chain.account_id or chain.instrument.id
        readers[number].remove(chain)
        if not readers[number]:
            del readers[number]
        chain.close()

    # -- what changed ------------------------------------------------------------------------

    def changed(self) -> None:
        """The market took events: note who has something to say."""
        market, readers = self._source.market, self._readers
        if readers["books"]:
            self._mark("books", market.books.touched())
        if readers["orders"]:
            self._mark("orders", market.order_books.touched())
        if readers["tape"]:
            self._mark("tape", market.tape.touched())
        if readers["account"]:
            self._mark("account", self._source.accounts.changed())
        if self._status_changes != market.status_changes:
            self._status_changes = market.status_changes
            self.dirty.update(dict.fromkeys(self.of("status")))
        if self.unready:
            self._start_chains()

    def _mark(self, reads: str, numbers: Iterable[int]) -> None:
        readers = self._readers[reads]
        for number in numbers:
            for chain in readers.get(number, ()):
                if chain.started:
                    self.dirty[chain] = None

    def _start_chains(self) -> None:
        for chain in [chain for chain in self.unready if chain.start()]:
            del self.unready[chain]
            # Those who wait for it are served by the next tick.
            self.dirty[chain] = None
