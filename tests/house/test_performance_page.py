"""docs/performance.md says what the newest results say, each figure with its command."""

from bench.run import ROWS
from tests.house import performance_page


def test_the_page_is_that_of_the_results():
    assert performance_page.PAGE.read_text("utf-8") == performance_page.page(), \
        "run `python -m tests.house.performance_page`"


def test_every_command_of_the_page_is_one_of_the_bench():
    assert set(performance_page.MADE_BY.values()) == set(ROWS)
    shown = [name for names in performance_page.SECTIONS.values() for name in names]
    assert sorted(shown) == sorted(ROWS)


def test_every_row_of_every_result_is_on_the_page():
    text = performance_page.PAGE.read_text("utf-8")
    for _, _, row in performance_page.newest():
        assert f"| {row['title']} |" in text
        assert f"`make bench ARGS={performance_page.made_by(row['key'])}`" in text
