"""docs/commands.md is what the command line says of itself, and its examples are good ones."""

import pytest

from tests.docs import pages
from tests.house import commands_page


def test_the_page_is_that_of_the_program():
    assert commands_page.PAGE.read_text("utf-8") == commands_page.page(), \
        "run `python -m tests.house.commands_page`"


@pytest.mark.parametrize(("path", "command"), [
    pytest.param(path, command, id=" ".join(path)) for path, command in
    commands_page.commands(commands_page.matchd, ("matchd",))])
def test_the_examples_of_a_command_s_help_are_read_by_its_parser(
        path, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, examples = commands_page.parts(command)
    assert examples
    for line in examples:
        words = pages.words_of(line.rpartition("| ")[2])
        for word in words:
            if word.endswith(".xz"):
                (tmp_path / word).touch()
        assert words[0] == "matchd"
        pages.parse(words[1:])
