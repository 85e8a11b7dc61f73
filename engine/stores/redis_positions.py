"""How far each group of keys is. No I/O.

The keys of a market are one group, those of the venue another: what a cluster keeps in one slot,
and what it can lose alone. A group's position is written with its data. The venue's is written
last, and with it a mark for each market that has something new; so a market whose position is
behind its mark has lost data, and one that is ahead of the venue has what is only missing there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from engine.redis_values import position_of, position_text
from engine.stores.store import Position, StoreStopped

VENUE = ""
# Among the marks: behind which event the venue's streams began.
BEGAN = "began"


class Positions:
    """What was read of one Redis: `venue` and `markets` are texts as they stand there, None where
    there is none; `marks` are the markets' newest seqs as the venue's group knows them.

    `floor` is where a group begins that has nothing. With a position of another log, `foreign` is
    that and nothing else counts. Raises StoreStopped for what is no position."""

    def __init__(self, log: Position, floor: int, venue: bytes | None,
                 markets: Mapping[str, bytes | None], marks: Mapping[str, int]) -> None:
        self._log = log
        self._texts: dict[str, bytes] = {}
        self._seqs: dict[str, int] = {}
        # Groups whose stream is no continuation of what comes: it is removed first.
        self._anew: set[str] = set()
        self.incarnation = log.incarnation
        self.foreign: Position | None = None
        self.is_empty = venue is None and not any(markets.values())
        venue_seq = self._read(VENUE, venue)
        self._floor = floor
        self._marks = dict(marks)
        for symbol, text in markets.items():
            seq = self._read(symbol, text)
            self._seqs[symbol] = self._start_of(symbol, seq, venue_seq, marks.get(symbol))
        if venue_seq is None:
            self._anew.add(VENUE)
            self._marks = {}
        # Of markets that are new to Redis: nothing happened there so far.
        self._new_seq = self._seqs[VENUE] = floor if venue_seq is None else venue_seq
        self.start_seq = min(self._seqs.values())
        # Markets whose streams tell more about their last entry than their marks do.
        self.unmarked = sorted(group for group in self._texts if group != VENUE and
                               group not in self._anew and (
                                   group not in self._marks or
                                   self._marks[group] > self._seqs[group]))
        self.lost = sorted(symbol for symbol, seq in self._seqs.items()
                           if venue_seq is not None and seq < venue_seq)

    def _read(self, group: str, text: bytes | None) -> int | None:
        if text is None:
            return None
        try:
            log_id, incarnation, seq = position_of(text)
        except ValueError:
            raise StoreStopped(f"the position of {group or 'the venue'} in Redis is none of ours",
                               "is another redis.prefix meant?", "no position of ours") from None
        if log_id != self._log.log_id:
            self.foreign = Position(log_id, incarnation, seq)
        self._texts[group] = text
        self.incarnation = min(self.incarnation, incarnation)
        return seq

    def _start_of(self, symbol: str, seq: int | None, venue_seq: int | None,
                  mark: int | None) -> int:
        """The last event that a market's stream covers."""
        if venue_seq is not None and mark is None:
            # Nothing of it was covered by the venue's position so far.
            return venue_seq if seq is None else max(venue_seq, seq)
        if venue_seq is not None and mark is not None and seq is not None and seq >= mark:
            return max(venue_seq, seq)
        if seq is not None and seq >= self._floor:
            return seq
        self._anew.add(symbol)
        return self._floor

    @property
    def start(self) -> Position:
        """Behind this event the log has to be read again."""
        if self.foreign is not None:
            return self.foreign
        return Position(self._log.log_id, self.incarnation, self.start_seq)

    def seq(self, group: str) -> int:
        """The last event that this group has."""
        return self._seqs.get(group, self._new_seq)

    def text(self, group: str) -> bytes:
        """Its position as it has to stand in Redis; empty for none."""
        return self._texts.get(group, b"")

    def begins_anew(self, group: str) -> bool:
        """Whether its stream has to go before the first entry comes."""
        return group in self._anew

    def previous(self, group: str) -> int:
        """Behind this event the group's stream has nothing so far: its last entry's seq."""
        if group == VENUE:
            return self._seqs[VENUE]
        if group in self._anew:
            return self._floor
        return self._marks.get(group, self._marks.get(BEGAN, self._floor))

    def found(self, symbol: str, last_entry_seq: int) -> None:
        """The last entry of a stream whose mark is of no use."""
        self._marks[symbol] = last_entry_seq

    def wrote(self, groups: Collection[str], after: Position, entries: Mapping[str, int]) -> None:
        """These groups were written up to `after`; `entries` are the seqs of markets' entries."""
        text = self.text_of(after)
        if VENUE in self._anew and VENUE in groups:
            self._marks[BEGAN] = self._floor
        self._marks |= entries
        for group in groups:
            self._texts[group] = text
            self._seqs[group] = after.seq
            self._anew.discard(group)

    @staticmethod
    def text_of(position: Position) -> bytes:
        """A position as it stands in Redis."""
        return position_text(*position).encode()
