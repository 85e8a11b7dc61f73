"""Warm start: trades and candles are there again after a restart.

Beside every snapshot the tape is kept as it was then. A start loads the newest one that is good
and applies the events since. Without one the tape is made of the newest events of the log, at
most `feed.warm_events_max` of them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from cython_core.errors import CoreError
from cython_core.tape import Tape
from engine.market.history import Past

# What the tape was made to keep stands before its own bytes: another wish means to make it anew.
_SIZES = struct.Struct("<II")


class Warm(NamedTuple):
    """A tape at `seq`, and how it came: from a checkpoint or from the log alone, over so many
    events; `missing` events before them were not looked at."""

    tape: Tape
    from_checkpoint: bool
    events: int
    missing: int


def pack(tape: Tape, trades_kept: int, candles_kept: int) -> bytes:
    """A checkpoint of the tape."""
    return _SIZES.pack(trades_kept, candles_kept) + tape.save()


def warm_tape(kept: Iterable[bytes], past: Past, seq: int, trades_kept: int, candles_kept: int,
              events_max: int) -> Warm:
    """The tape after the event `seq`, out of a checkpoint or of the log.

    Raises JournalError when the log can't be read.
    """
    tape = _newest(kept, seq, (trades_kept, candles_kept))
    missing, from_checkpoint = 0, tape is not None
    # A checkpoint from very long ago would cost more than it is worth.
    if tape is None or seq - tape.applied_seq > events_max:
        from_checkpoint = False
        first = max(past.oldest_seq(), seq - events_max + 1)
        missing = min(first - 1, seq)
        tape = Tape(missing, trades_kept, candles_kept)
    events = seq - tape.applied_seq
    for batch in past.events(tape.applied_seq + 1, seq):
        tape.apply(batch)
    return Warm(tape, from_checkpoint, events, missing)


def _newest(kept: Iterable[bytes], seq: int, sizes: tuple[int, int]) -> Tape | None:
    for data in kept:
        if len(data) < _SIZES.size or _SIZES.unpack_from(data) != sizes:
            continue
        try:
            tape = Tape.load(data[_SIZES.size:])
        except CoreError:
            continue
        if tape.applied_seq <= seq:
            return tape
    return None
