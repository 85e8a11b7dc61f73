"""The documentation as its readers use it: blocks of code, and the commands in them."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from engine.cli import matchd
from tests.support.daemon import ROOT

OUTSIDE = ("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "SECURITY.md", "bench/README.md")
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / name for name in OUTSIDE)])
SHELL = ("sh", "console")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)
_COMMENT = re.compile(r"\s{2,}# .*$")


class Block(NamedTuple):
    """A fenced block: its page, the line it begins at, the word behind its fence, its text."""

    page: str
    line: int
    language: str
    text: str


class Command(NamedTuple):
    """One command as it would be typed. `said` are the lines below it: comments in a `sh` block,
    the output in a `console` block."""

    page: str
    line: int
    language: str
    text: str
    said: tuple[str, ...]

    @property
    def place(self) -> str:
        """Where it stands."""
        return f"{self.page}:{self.line}: {self.text}"


def name_of(path: Path) -> str:
    """A page's name in the repository."""
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    text = path.read_text("utf-8")
    for found in _FENCE.finditer(text):
        yield Block(name_of(path), text.count("\n", 0, found.start()) + 2, found[1], found[2])


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block of a shell, each with what is said of it."""
    lines = block.text.splitlines()
    number = 0
    while number < len(lines):
        begin, text = number, _command_at(lines[number], block.language)
        number += 1
        if text is None:
            continue
        while number < len(lines) and _goes_on(text):
            text += "\n" + lines[number]
            number += 1
        end = number
        while end < len(lines) and _command_at(lines[end], block.language) is None:
            end += 1
        yield Command(block.page, block.line + begin, block.language, _COMMENT.sub("", text),
                      tuple(lines[number:end]))


def all_commands() -> Iterator[Command]:
    """The commands of every page."""
    for path in PAGES:
        for block in blocks(path):
            if block.language in SHELL:
                yield from commands(block)


def words_of(text: str) -> list[str]:
    """A command's words; a variable that it sets for itself, `sudo` and `exec` are left out."""
    words = shlex.split(text.replace("\\\n", " "), comments=True)
    while words and (re.fullmatch(r"\w+=.*", words[0]) or words[0] in ("sudo", "exec")):
        words.pop(0)
    return words


def spans(text: str) -> list[str]:
    """The code spans in a page's prose, blocks left out."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", _FENCE.sub("", text))]


def parse(words: list[str], leniently: bool = False) -> None:
    """Let the program's own parser read a command line. Raises click.UsageError for what it does
    not know; `leniently` forgives arguments that are missing or stand for others."""
    command: click.Command = matchd
    context = click.Context(matchd, info_name="matchd")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words[0]
        if command.name == "watch" and name not in command.commands:
            name, words = "events", ["", *words]
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"no command {name}")
        command, words = found, words[1:]
    if not leniently:
        command.make_context(command.name, list(words))
    known = {"-h", "--help", *(name for one in command.params for name in one.opts)}
    for word in words:
        if word.startswith("--") and word.partition("=")[0] not in known:
            raise click.NoSuchOption(word)


def is_whole(span: str) -> bool:
    """Whether a command line in the prose has all that it needs."""
    words = words_of(span)
    try:
        if words[0] == "matchd":
            parse(words[1:])
    except (click.UsageError, click.exceptions.Exit):
        return False
    return True


def _command_at(line: str, language: str) -> str | None:
    """The command that begins in a line, or None."""
    if language == "console":
        return line[2:] if line.startswith("$ ") else None
    return None if not line.strip() or line.startswith("#") else line


def _goes_on(text: str) -> bool:
    """Whether a shell would wait for another line."""
    if text.endswith("\\"):
        return True
    return subprocess.run(["bash", "-n", "-c", text], capture_output=True, check=False).returncode \
        != 0
