"""Where a Redis goes on, whatever part of it was lost."""

from __future__ import annotations

import pytest

from engine.stores.redis_positions import VENUE, Positions
from engine.stores.store import Position, StoreStopped

LOG = Position(b"\x07" * 16, 2, 10_000)
FLOOR = 9_000


def at(seq: int, incarnation: int = 2) -> bytes:
    return Positions.text_of(Position(LOG.log_id, incarnation, seq))


def read(venue: bytes | None, markets: dict[str, bytes | None],
         marks: dict[str, int] | None = None) -> Positions:
    return Positions(LOG, FLOOR, venue, markets, marks or {})


def test_an_empty_redis() -> None:
    found = read(None, {"A": None, "B": None})
    assert found.is_empty and found.start == Position(LOG.log_id, 2, FLOOR) and not found.lost
    assert all(found.begins_anew(group) and found.text(group) == b"" for group in ("A", VENUE))


def test_a_redis_that_lost_nothing() -> None:
    found = read(at(9_900), {"A": at(9_900), "B": at(500), "C": None}, {"A": 9_900, "B": 500})
    assert found.start_seq == 9_900 and not found.lost and not found.is_empty
    assert [found.seq(group) for group in ("A", "B", "C", VENUE)] == [9_900] * 4
    assert found.text("B") == at(500) and found.text("C") == b""
    assert not any(map(found.begins_anew, ("A", "B", "C", VENUE)))


def test_a_market_that_was_written_before_the_venue_was() -> None:
    found = read(at(9_900), {"A": at(9_950), "B": at(9_940)}, {"A": 9_800})
    assert found.start_seq == 9_900
    assert (found.seq("A"), found.seq("B")) == (9_950, 9_940)


def test_a_market_that_lost_its_end_goes_on_where_it_is() -> None:
    found = read(at(9_900), {"A": at(9_500), "B": at(9_900)}, {"A": 9_600, "B": 9_900})
    assert found.start_seq == 9_500 and found.lost == ["A"]
    assert found.seq("B") == found.seq(VENUE) == 9_900
    assert not found.begins_anew("A")


def test_a_market_that_lost_all_begins_anew() -> None:
    for text in (None, at(100)):
        found = read(at(9_900), {"A": text}, {"A": 9_600})
        assert found.start_seq == FLOOR and found.lost == ["A"]
        assert found.begins_anew("A") and not found.begins_anew(VENUE)


def test_a_venue_that_lost_all_leaves_markets_as_they_are() -> None:
    found = read(None, {"A": at(9_950), "B": at(100), "C": None})
    assert found.start_seq == FLOOR
    assert found.seq("A") == 9_950 and found.seq("B") == found.seq("C") == FLOOR
    assert [found.begins_anew(group) for group in ("A", "B", "C", VENUE)] == [
        False, True, True, True]


def test_an_older_incarnation_is_told() -> None:
    assert read(at(9_900, 1), {"A": at(9_900, 2)}, {"A": 9_900}).start == Position(
        LOG.log_id, 1, 9_900)


def test_anothers() -> None:
    other = Positions.text_of(Position(b"\x08" * 16, 1, 5))
    assert read(other, {}).start == read(at(5), {"A": other}).start == Position(
        b"\x08" * 16, 1, 5)
    with pytest.raises(StoreStopped, match="none of ours"):
        read(b"12", {})


def test_after_a_write() -> None:
    found = read(at(9_900), {"A": None}, {"A": 9_600})
    after = LOG._replace(seq=9_960)
    assert found.previous("A") == found.previous("B") == FLOOR
    found.wrote(("A", VENUE), after, {"A": 9_955})
    assert (found.previous("A"), found.previous(VENUE)) == (9_955, 9_960)
    assert found.text("A") == found.text(VENUE) == at(9_960)
    assert found.seq("A") == 9_960 and not found.begins_anew("A")
