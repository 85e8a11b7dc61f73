"""A LOBSTER recording as commands: the made day everywhere, the real one where it is."""

import lzma
import os
from itertools import zip_longest
from pathlib import Path

import pytest

from engine.clients.replay import commands, lobster
from engine.clients.replay.commands import ReplayError
from tests.data import make_day


def write_day(folder: Path, messages: str, books: str) -> tuple[Path, Path]:
    message_path, book_path = folder / "T_message_1.csv", folder / "T_orderbook_1.csv"
    message_path.write_text(messages)
    book_path.write_text(books)
    return message_path, book_path


def derived(folder: Path, messages: str, books: str) -> list[str]:
    steps = lobster.derive(*write_day(folder, messages, books))
    return [line.rstrip("\n") for line in commands.write_commands(steps)]


def same_lines(steps: object, path: Path) -> None:
    with lzma.open(path, "rt") as file:
        for number, (mine, given) in enumerate(
                zip_longest(commands.write_commands(steps), file), 1):
            assert mine == given, f"line {number}"


def test_the_committed_day_is_what_its_seed_makes() -> None:
    messages, books = make_day.make()
    assert make_day.MESSAGES.read_text() == "".join(messages)
    assert lzma.decompress(make_day.BOOK.read_bytes()).decode() == "".join(books)


def test_the_made_day_gives_the_committed_commands() -> None:
    same_lines(lobster.derive(make_day.MESSAGES, make_day.BOOK), make_day.COMMANDS)


def test_reading_a_commands_file_and_writing_it_changes_nothing() -> None:
    same_lines(commands.read_commands(make_day.COMMANDS), make_day.COMMANDS)


@pytest.mark.skipif("MATCHD_TEST_DATA" not in os.environ, reason="MATCHD_TEST_DATA is not set")
def test_the_real_day_gives_the_given_commands_line_by_line() -> None:
    folder = Path(os.environ["MATCHD_TEST_DATA"]) / "lobster"
    message, = folder.glob("GOOG_*_message_10.csv.xz")
    book, = folder.glob("GOOG_*_orderbook_10.csv.xz")
    same_lines(lobster.derive(message, book), folder / "GOOG_10.commands.csv.xz")


def test_the_first_row_is_seeded_from_the_book_alone(tmp_path: Path) -> None:
    assert derived(tmp_path, "34200.5,4,9,10,1000,1\n", "1200,5,1000,7\n") == [
        "NEW,P1,S,1200,5", "NEW,P2,B,1000,7", "END,1"]


def test_a_message_about_an_unknown_order_takes_from_the_seed_at_its_price(tmp_path: Path) -> None:
    messages = "1.0,1,8,1,900,1\n1.0,4,9,3,1000,1\n1.0,2,9,1,1000,1\n1.0,3,9,3,1000,1\n"
    books = ("1200,5,1000,7\n1200,5,1000,4\n1200,5,1000,3\n"
             "1200,5,-9999999999,0\n")
    assert derived(tmp_path, messages, books)[3:] == [
        "HIT,S,1000,3,P2", "CHK,2,1,1", "END,2", "RED,P2,1", "CHK,3,1,1", "END,3",
        "DEL,P2", "CHK,4,1,0", "END,4"]


def test_levels_that_leave_or_enter_the_window_are_synchronised(tmp_path: Path) -> None:
    messages = "1.0,1,8,1,900,1\n1.0,1,9,2,1100,1\n1.0,3,9,2,1100,1\n"
    books = "1200,5,1000,7\n1200,5,1100,2\n1200,5,1000,6\n"
    assert derived(tmp_path, messages, books)[3:] == [
        "NEW,9,B,1100,2", "CHK,2,1,1", "SYN", "DEL,P2", "END,2",
        "DEL,9", "CHK,3,1,0", "SYN", "NEW,P3,B,1000,6", "END,3"]


def test_an_execution_out_of_priority_becomes_a_cancel(tmp_path: Path) -> None:
    messages = "1.0,7,0,0,-1,-1\n1.0,1,8,5,1000,1\n1.0,4,8,5,1000,1\n1.0,5,0,5,1100,1\n"
    books = "1200,5,1000,7\n1200,5,1000,12\n1200,5,1000,7\n1200,5,1000,7\n"
    assert derived(tmp_path, messages, books)[6:] == [
        "DEL,8", "CHK,3,1,1", "END,3", "NOP,5", "CHK,4,1,1", "END,4"]


def test_a_level_that_is_not_as_recorded_is_trimmed_from_its_newest(tmp_path: Path) -> None:
    messages = "1.0,7,0,0,-1,-1\n1.0,1,8,5,1000,1\n1.0,5,0,0,0,1\n1.0,5,0,0,0,1\n"
    books = "1200,5,1000,7\n1200,5,1000,12\n1200,5,1000,6\n1200,6,1000,6\n"
    assert derived(tmp_path, messages, books)[6:] == [
        "NOP,5", "CHK,3,1,0", "SYN", "DEL,8", "RED,P2,1", "END,3",
        "NOP,5", "CHK,4,0,1", "SYN", "NEW,P3,S,1200,1", "END,4"]


def test_files_of_different_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match="same number of rows"):
        derived(tmp_path, "1.0,1,8,1,900,1\n", "1200,5,1000,7\n1200,5,1000,7\n")


def test_an_order_that_is_entered_twice_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match=r"T_message_1\.csv:3: order 8 is entered twice"):
        derived(tmp_path, "1.0,7,0,0,-1,-1\n" + 2 * "1.0,1,8,1,1000,1\n",
                "1200,5,1000,7\n1200,5,1000,8\n1200,5,1000,9\n")


@pytest.mark.parametrize(("messages", "books", "words"), [
    ("x,1,8,1,900,1\n", "1200,5,1000,7\n", r"T_message_1\.csv:1"),
    ("1.0,1,8,1\n", "1200,5,1000,7\n", r"T_message_1\.csv:1"),
    ("1.0,1,8,1,900,1\n", "1200,5,1000\n", r"T_orderbook_1\.csv:1"),
    ("1.0000000001,1,8,1,900,1\n", "1200,5,1000,7\n", "nine decimals"),
])
def test_a_row_that_is_none_is_refused_with_its_place(tmp_path: Path, messages: str, books: str,
                                                      words: str) -> None:
    with pytest.raises(ReplayError, match=words):
        derived(tmp_path, messages, books)


def test_a_damaged_xz_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "day.csv.xz"
    path.write_bytes(make_day.COMMANDS.read_bytes()[:500])
    with pytest.raises(ReplayError, match="is damaged"):
        list(commands.read_commands(path))


def test_a_missing_file_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match=r"can't open .*nothing\.csv: No such file"):
        list(commands.read_commands(tmp_path / "nothing.csv"))


def test_times_are_exact_nanoseconds() -> None:
    assert lobster.parse_time_ns("34200.015105074") == 34_200_015_105_074
    assert lobster.parse_time_ns("34200.1") == 34_200_100_000_000
    assert lobster.parse_time_ns("34200") == 34_200_000_000_000
