"""What the documentation says is there: commands, options, targets, keys, files, error lines."""

from __future__ import annotations

import ast
import errno
import importlib.util
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import click
import pytest

from bench.run import ROWS
from engine import accounts, config, instruments
from tests.docs import pages
from tests.docs.not_run import NOT_RUN
from tests.support.daemon import ROOT

COMMANDS = list(pages.all_commands())
NAMED = [command for command in COMMANDS if command.text.startswith(tuple(NOT_RUN))]
TEXTS = {pages.name_of(path): path.read_text("utf-8") for path in pages.PAGES}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"]
# Who runs or reads the blocks of a language. `text` is what a program shows.
JUDGES = {"sh": "tests/docs/test_doc_commands.py", "console": "tests/docs/test_doc_commands.py",
          "redis": "tests/docs/test_doc_commands.py", "toml": "tests/docs/test_doc_texts.py",
          "python": "tests/clients/test_examples.py", "hex": "tests/udp/test_udp_page.py",
          "sql": "tests/stores/test_postgres.py"}
# What looks like a key and is a file or a call.
NO_KEYS = ("copy", "hold", "md", "py", "sqlite", "toml")
# What begins a line that somebody would type.
_TYPED = re.compile(r"^(\$ |sudo |make |curl |matchd [a-z]|\.venv/)", re.M)


def each_page() -> pytest.MarkDecorator:
    """One test for each page."""
    return pytest.mark.parametrize("page", sorted(TEXTS))


# -- commands that are not run ---------------------------------------------------------------------

def test_no_entry_of_the_list_is_stale() -> None:
    unused = [begin for begin in NOT_RUN
              if not any(command.text.startswith(begin) for command in COMMANDS)]
    assert not unused
    assert len(NOT_RUN) <= 16


@pytest.mark.parametrize("begin", NOT_RUN)
def test_a_reason_names_tests_that_are_there(begin: str) -> None:
    for path in re.findall(r"[\w.]+/[\w./]+", NOT_RUN[begin]):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("command", NAMED, ids=lambda command: command.place)
def test_a_command_that_is_not_run_is_a_good_one(command: pages.Command) -> None:
    program, *words = pages.words_of(command.text)
    if program.endswith("matchd"):
        pages.parse(words)
    elif program == "make":
        assert {word for word in words if "=" not in word} <= TARGETS
    for word in words:
        path = re.sub(r"^.*[=:](?=config/)", "", word)
        if path.startswith("config/"):
            assert list(ROOT.glob(path)), path


@each_page()
def test_commands_in_the_prose_exist(page: str) -> None:
    for span in pages.spans(TEXTS[page]):
        words = span.replace("...", "").split()
        if words[:1] == ["make"]:
            words = pages.words_of(span)
        if not words or not all(re.fullmatch(r"[\w ./:=@*'\"{}<>,-]+", word) for word in words):
            continue
        program = words[0].removeprefix(".venv/bin/")
        if program == "matchd" and len(words) > 1:
            pages.parse(words[1:], leniently=True)
        elif program == "make" and len(words) > 1:
            assert {word for word in words[1:] if "=" not in word} <= TARGETS, span
            if words[1] == "bench":
                named = re.findall(r"(?<![\w-])[a-z][\w-]*", span.partition("ARGS=")[2])
                assert set(named) <= {*ROWS, "curve"}, span
        elif words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]), span
        elif words[:2] == ["pip", "install"] and "[" in span:
            assert span.partition("[")[2].partition("]")[0] in EXTRAS, span


def test_the_parser_says_no() -> None:
    for line in ("nothing", "store nothing", "submit --nothing", "watch book --nothing"):
        with pytest.raises(click.UsageError):
            pages.parse(line.split(), leniently=True)
    with pytest.raises(click.UsageError):
        pages.parse(["submit", "MAKER1"])
    pages.parse(["watch", "MAKER1", "--once"])


# -- blocks ----------------------------------------------------------------------------------------

@each_page()
def test_every_block_has_somebody_who_reads_it(page: str) -> None:
    text = TEXTS[page]
    assert text.count("\n```") % 2 == 0
    for block in pages.blocks(ROOT / page):
        where = f"{page}:{block.line}"
        if block.language == "text":
            assert not _TYPED.search(block.text), where
            continue
        judge = JUDGES.get(block.language)
        assert judge and (ROOT / judge).exists(), where
        if block.language in ("hex", "sql"):
            assert Path(page).name in (ROOT / judge).read_text("utf-8"), where
    # An indented block would be seen by none of them.
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)
    assert not re.search(r"\n\n {4}\S", outside)


@each_page()
def test_settings_in_blocks_are_good(page: str, tmp_path: Path) -> None:
    for block in pages.blocks(ROOT / page):
        path = tmp_path / "matchd.toml"
        path.write_text(block.text)
        if block.language != "toml":
            continue
        if "[[instrument]]" in block.text:
            instruments.load(path)
        elif "[[account]]" in block.text:
            accounts.load(path)
        else:
            config.load(path, env={})


@each_page()
def test_keys_in_the_prose_are_those_of_the_configuration(page: str) -> None:
    sections = get_type_hints(config.Config)
    for section, key in re.findall(r"`(\w+)\.(\w+)(?: = [^`]*)?`", TEXTS[page]):
        if section in sections and key not in NO_KEYS:
            assert key in sections[section].__struct_fields__, f"{section}.{key}"


# -- error lines -----------------------------------------------------------------------------------

def literals() -> Iterator[str]:
    """Every text in the program, with `...` for what is put in; the build's scripts too."""
    for path in (ROOT / "engine").rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        described = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "..."
                              for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) \
                    and id(node) not in described:
                yield re.sub(r"\{[\w:.]*\}", "...", node.value)
    for name in ("machine", "assets"):
        for line in (ROOT / ".ci" / name).read_text("utf-8").splitlines():
            yield re.sub(r"\$\{[^}]*\}|\$\([^)]*\)|\$\w+", "...", line)
    for number in (errno.EADDRINUSE, errno.EACCES, errno.ENOSPC):
        # As the system says it, and as asyncio does.
        yield f"{os.strerror(number)}, {os.strerror(number).lower()}"


def parts(line: str) -> list[str]:
    """A quoted line as patterns, each of which has to be in one text of the program: what it says,
    what it says of a setting, and the system's own words behind a colon."""
    found = re.split(r": expected |, found |: (?=[A-Z])", line)
    return [re.escape(part.strip(" .:")).replace(r"\.\.\.", ".*") for part in found
            if re.search(r"\w{2}", part)]


def unsaid(line: str, known: list[str]) -> list[str]:
    """The parts of a quoted line that the program never says."""
    return [part for part in parts(line) if not any(re.search(part, text) for text in known)]


def quoted() -> list[str]:
    """What the first column of the page's tables shows as the program's words."""
    rows = re.findall(r"^\| (.*?) \| .* \|$", TEXTS["docs/troubleshooting.md"], re.M)
    return [span for row in rows for span in re.findall(r"`([^`]+)`", row)]


def test_the_lines_of_the_troubleshooting_page_are_the_program_s() -> None:
    known = list(literals())
    assert len(quoted()) > 70
    assert not {line: missing for line in quoted() if (missing := unsaid(line, known))}


def test_a_line_that_the_program_does_not_say_is_found() -> None:
    known = list(literals())
    assert unsaid("the venue is ... tired", known)
    assert unsaid("...: No room for anybody", known)
    assert not unsaid("...: No space left on device", known)
