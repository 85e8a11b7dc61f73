"""The replay's checker: a right venue passes every line, and every wrong answer is noticed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cython_core import ouch
from engine.clients.replay import commands, lobster
from engine.clients.replay.checker import FAILURES_MAX, Checker
from engine.clients.replay.commands import ReplayError
from engine.clients.replay.day import Day
from tests.clients.slow_venue import Answer, SlowVenue
from tests.data import make_day

Bend = Callable[[list[Answer]], list[Answer]]


def made_day(rows: bool = True) -> Day:
    day = Day()
    for step in lobster.derive(make_day.MESSAGES, make_day.BOOK):
        day.add_step(step if rows else step._replace(row=None))
    return day


def day_of(*lines: str) -> Day:
    day = Day()
    parsed = [commands.parse_command(line.split(",")) for line in lines]
    day.add_step(commands.Step(0, parsed))
    return day


def run(day: Day, bend: Bend = list, taker: int | None = None, window: int = 64) -> Checker:
    """Replay against the slow venue; `bend` may change what it answers."""
    checker, venue = Checker(day, "MSFT", 17, taker), SlowVenue()
    while not checker.done:
        data, role = checker.pack(window - checker.in_flight, len(day))
        answers = bend(list(venue.handle(data, role)))
        if not answers and not data:
            checker.give_up()
            break
        for answered, payload in answers:
            checker.report(answered, payload)
    return checker


def failed(checker: Checker) -> dict[str, int]:
    return {kind: count for kind, (_, count) in checker.counts().items() if count}


@pytest.mark.parametrize("window", [1, 7, 4096])
def test_a_right_venue_passes_every_line_of_the_made_day(window: int) -> None:
    checker = run(made_day(), window=window)
    assert not failed(checker), checker.failures
    assert {kind: passed for kind, (passed, _) in checker.counts().items()} == {
        "orders": 696 + 510 + 196, "hits": 340, "levels": 1499, "rows": 1500, "strays": 0}


def test_maker_and_taker_may_be_two_accounts() -> None:
    checker = run(made_day(), taker=5)
    assert not failed(checker), checker.failures
    assert checker.done


def test_without_recorded_rows_the_lines_own_book_is_compared() -> None:
    checker = run(made_day(rows=False))
    assert not failed(checker)
    assert checker.counts()["rows"] == (1500, 0)


def test_the_book_kept_from_reports_has_the_orders_of_each_level() -> None:
    checker = run(day_of("NEW,1,B,1000,5", "NEW,2,B,1000,7", "NEW,3,S,1200,9", "NEW,4,B,900,1",
                         "HIT,S,1000,5,1", "RED,2,3"))
    assert checker.book() == ([(1200, 9, 1)], [(1000, 4, 1), (900, 1, 1)])


def test_a_fill_with_another_maker_fails_the_hit() -> None:
    checker = run(day_of("NEW,1,B,1000,5", "NEW,2,B,1000,6", "HIT,S,1000,5,2"))
    assert failed(checker) == {"hits": 1}
    assert "not all with 2" in checker.failures[0]


def test_a_fill_with_two_makers_fails() -> None:
    checker = run(day_of("NEW,1,B,1000,5", "NEW,2,B,1000,5", "HIT,S,1000,7,1"))
    assert failed(checker) == {"hits": 1}


def test_a_partial_fill_fails() -> None:
    checker = run(day_of("NEW,1,B,1000,5", "HIT,S,1000,7,1"))
    assert failed(checker) == {"hits": 1}


def test_a_hit_at_a_better_price_than_recorded_fails() -> None:
    checker = run(day_of("NEW,1,B,1000,5", "HIT,S,900,5,1"))
    assert failed(checker) == {"hits": 1}


def test_a_book_other_than_the_recorded_one_fails() -> None:
    day = day_of("NEW,1,B,1000,5", "CHK,1,0,1", "END,1")
    day.add_row(commands.BookRow([], [(1000, 6)]))
    assert failed(run(day)) == {"levels": 1, "rows": 1}


def test_levels_below_those_compared_may_differ() -> None:
    day = day_of("NEW,1,B,1000,5", "NEW,2,B,900,5", "CHK,1,0,1", "END,1")
    day.add_row(commands.BookRow([], [(1000, 5)]))
    assert failed(run(day)) == {"rows": 1}


def test_an_order_that_trades_where_it_should_rest_fails() -> None:
    checker = run(day_of("NEW,1,B,1000,5", "NEW,2,S,1000,5", "END,1"))
    assert failed(checker) == {"strays": 2}


def bend_one(letter: str, **changes: object) -> Bend:
    """Change fields of the first message of this type."""
    def bend(answers: list[Answer]) -> list[Answer]:
        for index, (role, payload) in enumerate(answers):
            if payload[:1] == letter.encode() and changes:
                fields = ouch.decode("out", payload) | changes
                changes.clear()
                answers[index] = role, ouch.encode_outbound(fields.pop("type"), **fields)
        return answers
    return bend


LINES = ("NEW,1,B,1000,5", "NEW,2,S,1100,5", "HIT,S,1000,2,1", "DEL,1", "END,1")


@pytest.mark.parametrize(("letter", "changes", "kind"), [
    ("A", {"price_units": 1001}, "orders"),
    ("A", {"quantity_lots": 4}, "orders"),
    ("A", {"side": "S"}, "orders"),
    ("E", {"liquidity": "A"}, "hits"),
    ("E", {"match_number": 9}, "hits"),
    ("E", {"price_units": 999}, "hits"),
    ("C", {"reason": "E"}, "orders"),
    ("C", {"quantity_lots": 2}, "orders"),
])
def test_a_changed_field_of_an_answer_is_noticed(letter: str, changes: dict[str, object],
                                                 kind: str) -> None:
    checker = run(day_of(*LINES), bend_one(letter, **changes))
    assert failed(checker).get(kind) == 1, checker.failures


def test_a_missing_answer_fails_that_line_alone() -> None:
    def lose_first_cancel(answers: list[Answer]) -> list[Answer]:
        lost = [one for one in answers if one[1][:1] == b"C"][:1]
        return [one for one in answers if one not in lost]

    lines = ("NEW,1,B,1000,5", "NEW,2,B,900,5", "DEL,1", "DEL,2", "NEW,3,S,1100,5")
    checker = run(day_of(*lines), lose_first_cancel)
    assert failed(checker) == {"orders": 1}
    assert checker.failures == ["line 3: no answer"]


def test_when_no_more_answers_come_the_rest_has_failed() -> None:
    checker = run(day_of(*LINES), lambda answers: answers[:1])
    assert not checker.done
    assert failed(checker) == {"orders": 2, "hits": 1, "rows": 1}


def test_a_message_that_nobody_asked_for_fails() -> None:
    checker = run(day_of(*LINES), lambda answers: [
        *answers, (0, ouch.encode_outbound("J", timestamp_ns=0, user_ref_num=999,
                                           reject_reason=15, client_order=""))])
    assert failed(checker) == {"strays": 1}


def test_only_the_first_failures_are_told_and_all_are_counted() -> None:
    lines = [f"NEW,{number},B,{number},5" for number in range(1, 60)]
    checker = run(day_of(*lines), lambda answers: [
        (role, payload[:14] + b"\0\0\0\1" + payload[18:]) for role, payload in answers])
    assert failed(checker) == {"orders": 59}
    assert len(checker.failures) == FAILURES_MAX


@pytest.mark.parametrize(("lines", "words"), [
    (("NEW,1,B,1000,5", "NEW,1,B,1000,5"), "line 2: order 1 is entered twice"),
    (("DEL,7",), "line 1: order 7 was not entered before"),
    (("NEW,1,B,1000,99999999999",), "line 1"),
])
def test_lines_that_make_no_sense_are_refused(lines: tuple[str, ...], words: str) -> None:
    with pytest.raises(ReplayError, match=words):
        day_of(*lines)


@pytest.mark.parametrize("line", ["NEW,1,X,1000,5", "NEW,1,B,1000", "XXX,1", "RED,1,0", "NOP",
                                  "", "CHK,0,1,1", "HIT,B,1,1"])
def test_a_line_that_is_no_command_is_refused_with_its_place(tmp_path: Path, line: str) -> None:
    path = tmp_path / "day.csv"
    path.write_text(f"NEW,1,B,1000,5\n{line}\n")
    with pytest.raises(ReplayError, match=r"day\.csv:2: .* is not a command"):
        list(commands.read_commands(path))
