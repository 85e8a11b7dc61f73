"""The site that `make docs` builds: whole, and nothing on it comes from another host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.dashboard.browser import PROGRAM, Page
from tests.docs.checkout import Checkout
from tests.support.daemon import ROOT

# What a browser fetches by itself, and the attribute that says from where. A link that a reader
# may click is none of these.
FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src",
           "video": "src", "audio": "src", "object": "data", "embed": "src", "use": "href"}


class Fetched(HTMLParser):
    """Collects what a page makes a browser fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the address of a tag that fetches something."""
        self.urls += [value or "" for name, value in attrs if name == FETCHED.get(tag)]


def foreign(urls: list[str]) -> list[str]:
    """The addresses that lead to another host."""
    return [url for url in urls if urlsplit(url).netloc or urlsplit(url).scheme not in ("", "data")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the site, built as the README says."""
    checkout = Checkout(tmp_path_factory.mktemp("docs") / "checkout")
    # What the target installs is here: it is in the extra `test` too.
    ran = checkout.run("make -o .venv/.docs docs")
    assert ran.code == 0, ran.output
    yield checkout.folder / "build" / "site"
    checkout.close()


def test_every_page_is_there_and_in_the_navigation(site: Path) -> None:
    index = (site / "index.html").read_text("utf-8")
    for path in (ROOT / "docs").glob("*.md"):
        assert (site / f"{path.stem}.html").stat().st_size > 5_000, path
        assert f'href="{path.stem}.html"' in index, path
    for name in ("ARCHITECTURE", "SECURITY", "CHANGELOG", "examples/first_order", "bench/index"):
        assert (site / "repository" / f"{name}.html").exists(), name


def test_no_page_fetches_anything_from_another_host(site: Path) -> None:
    seen = 0
    for path in site.rglob("*.html"):
        text = path.read_text("utf-8")
        fetched = Fetched(text).urls
        assert not foreign(fetched), path
        # This would make the theme's script fetch a library.
        assert 'class="mermaid"' not in text, path
        assert not re.search(r"url\(\s*[\"']?(https?:)?//", text), path
        for url in fetched:
            # The page of errors doesn't know where it will be shown.
            if path.name != "404.html" and not url.startswith("data:"):
                assert (path.parent / urlsplit(url).path).exists(), (path, url)
        seen += len(fetched)
    assert seen > 100
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", path.read_text("utf-8")), path


def test_a_foreign_address_is_found() -> None:
    text = ('<script src="https://unpkg.com/x"></script><link href="//fonts.example" rel="preload">'
            '<img src="a.png"><a href="https://example.org">')
    assert foreign(Fetched(text).urls) == ["https://unpkg.com/x", "//fonts.example"]


def test_the_index_of_the_search_has_every_page(site: Path) -> None:
    index = (site / "search" / "search_index.js").read_text("utf-8")
    for path in (ROOT / "docs").glob("*.md"):
        assert f'"{path.stem}.html' in index, path


@pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium here")
async def test_the_search_finds_words_without_a_server(site: Path, tmp_path: Path) -> None:
    async with Page(tmp_path / "profile") as page:
        await page.open(f"{(site / 'index.html').as_uri()}?q=takeover")
        assert ".html" in await page.until(
            "[...document.querySelectorAll('.md-search-result__item a')].map(a => a.href).join()")
        assert all(url.startswith(("file:", "data:", "about:", "blob:")) for url in page.requests)
        assert not page.errors
