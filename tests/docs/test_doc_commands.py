"""Every command of the documentation: run as a reader would run it, or read by the program's own
parser and named with a reason (tests/docs/not_run.py)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs import pages
from tests.docs.checkout import Checkout
from tests.docs.not_run import NOT_RUN, SPANS_NOT_RUN
from tests.support.daemon import ROOT
from tests.support.postgres import ScratchDatabase
from tests.support.redis import RedisServer

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
COMMANDS = list(pages.all_commands())
# The README's line that starts a venue with both servers.
WITH_STORES = next(command for command in COMMANDS if command.text.startswith("MATCHD_POSTGRES"))
RUN = [command for command in COMMANDS
       if command != WITH_STORES and not command.text.startswith(tuple(NOT_RUN))]
# These enter orders under ids and numbers of their own, so each begins with an empty venue.
FRESH = ("README.md", "docs/quick-start.md", "docs/http.md")
OF_STORES = ("docs/stores.md", "docs/redis-orders.md")
OTHERS = sorted({command.page for command in RUN} - {*FRESH, *OF_STORES})

SPANS = {span for path in pages.PAGES if path.name != "commands.md"
         for span in pages.spans(path.read_text("utf-8"))}
# Commands in the prose that are whole: with every argument they need, and none that stands for
# another.
PROSE = sorted({span for span in SPANS if re.match(r"(matchd|sqlite3) [^\s-]", span)
                and not re.search(r" [A-Z]+\b(?!-)", span)
                and span not in SPANS_NOT_RUN and pages.is_whole(span)}
               - {command.text.removeprefix(".venv/bin/") for command in RUN})
SERVERS = re.compile(r"matchd store \w+ (postgres|redis)")



def judge(command: pages.Command, checkout: Checkout) -> None:
    """Run a command, and hold what came of it against what the page says."""
    ran = checkout.run(command.text)
    told = f"{command.place}\nexit code {ran.code}, status {ran.status}\n{ran.output}"
    assert ran.code == 0, told
    if command.language == "console":
        assert matches(command.said, ran.output), told
        return
    said = "\n".join(command.said)
    if ran.status:
        status = re.match(r"# (\d{3})\b", said)
        assert ran.status == status[1] if status else ran.status.startswith("2"), told
    for code in re.findall(r'"code": "(\w+)"', said):
        assert f'"code":"{code}"' in ran.output, told


def matches(said: tuple[str, ...], output: str) -> bool:
    """Whether the output is what the page shows; `...` stands for anything, digits and blanks that
    a table has may differ in number."""
    shown = "\n".join(line.rstrip() for line in said).strip()
    pattern = re.escape(shown).replace(r"\.\.\.", "[^\n]*?")
    return re.fullmatch(pattern, "\n".join(map(str.rstrip, output.splitlines())).strip()) \
        is not None


def walk(page: str, checkout: Checkout) -> int:
    """Run a page's commands in their order; returns how many."""
    found = [command for command in RUN if command.page == page]
    for command in found:
        judge(command, checkout)
    return len(found)


def run_all(lines: list[str], checkout: Checkout) -> None:
    """Run commands, which have to succeed."""
    assert lines
    for line in lines:
        ran = checkout.run(line)
        assert ran.code == 0, f"{line}\n{ran.output}"


def admin(checkout: Checkout) -> None:
    """Have $TOKEN, as the pages write an administrator's."""
    made = checkout.run("matchd key make ADMIN --role admin --json")
    checkout.environment["TOKEN"] = re.findall(r'"token":\s*"([^"]+)"', made.output)[0]


@pytest.fixture
def make_checkout(tmp_path: Path) -> Iterator[Callable[..., Checkout]]:
    """Makes checkouts, and ends what runs in them."""
    made: list[Checkout] = []

    def make(name: str = "checkout", **options: int) -> Checkout:
        made.append(Checkout(tmp_path / name, **options))
        return made[-1]

    yield make
    for checkout in made:
        checkout.close()


def test_no_span_of_the_list_is_stale() -> None:
    assert SPANS_NOT_RUN.keys() <= SPANS
    for name in re.findall(r"[\w.]+/[\w./-]+\.py", " ".join(SPANS_NOT_RUN.values())):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", FRESH)
def test_the_commands_of_a_page_that_trades_run(
        page: str, make_checkout: Callable[..., Checkout]) -> None:
    checkout = make_checkout()
    if page == "docs/http.md":
        checkout.start()
        admin(checkout)
    assert walk(page, checkout) > 8
    if page == "README.md":
        assert "executed #1" in "".join(checkout.await_output())


def test_the_commands_of_the_other_pages_and_of_the_prose_run(
        make_checkout: Callable[..., Checkout]) -> None:
    checkout = make_checkout()
    # It is its own peer, for the page about peers.
    checkout.start(peers__urls=f"east=http://127.0.0.1:{checkout.ports[8000]}")
    admin(checkout)

    def trade() -> None:
        run_all(["matchd submit MAKER1 sell BTC-USDT 0.5 60000 --password demo",
                 "matchd submit TAKER1 buy BTC-USDT 0.2 60000 --password demo"], checkout)

    trade()
    for page in OTHERS:
        assert walk(page, checkout)
    checkout.environment["MATCHD_PASSWORD"] = "demo"
    run_all([line for line in PROSE if not SERVERS.match(line)], checkout)
    assert "60000.00" in "".join(checkout.await_output(trade))


def test_the_commands_of_the_pages_about_stores_run(
        make_checkout: Callable[..., Checkout], make_redis: Callable[..., RedisServer],
        postgres_database: ScratchDatabase) -> None:
    """Over a venue with all of them, started by the README's line; and the users of Redis."""
    server = make_redis().start()
    for name in ("redis", "redis-orders"):
        for block in pages.blocks(ROOT / "docs" / f"{name}.md"):
            if block.language == "redis":
                for line in re.sub(r"\n +", " ", block.text).splitlines():
                    assert server.client().execute_command(line), line
    here = WITH_STORES.text.replace("postgresql://me@localhost/venue",
                                    postgres_database.plain_url).replace(
                                        "redis://localhost", server.url)
    checkout = make_checkout(redis_port=server.port).start(
        here, postgres__schema=postgres_database.schema,
        redis__order_queue="orders", redis__order_accounts="MAKER1")
    # As if both addresses were in matchd.toml: commands need them too.
    checkout.environment |= dict(word.split("=", 1) for word in here.split()
                                 if word.startswith("MATCHD_"))
    for page in OF_STORES:
        assert walk(page, checkout) >= 2
    assert checkout.run("matchd store status").output.count(" connected ") == 3
    run_all([line for line in PROSE if SERVERS.match(line)], checkout)
