"""Makes docs/commands.md from the command line itself.

`python -m tests.house.commands_page` writes it; a test holds it against the code.
"""

from collections.abc import Iterator
from pathlib import Path

import click

from engine.cli import matchd

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "commands.md"

HEAD = """# Commands

Made by `python -m tests.house.commands_page` from the program's own help; a test compares the two.
`--help` behind a command says the same.

Without `--config` a command reads `./config/matchd.toml` if there is one, else the defaults inside
the package, and any key can be given in the environment ([Configuration](configuration.md)). [Exit
codes](operations.md#exit-codes) are the same for all. Errors are one line on stderr; `--json`
prints what a program can read.
"""


def commands(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...],
                                                                          click.Command]]:
    """Every command below a group with its words, groups left out."""
    context = click.Context(group, info_name=" ".join(path))
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def parts(command: click.Command) -> tuple[list[str], list[str]]:
    """What its help says: paragraphs, and example lines without the word Example."""
    paragraphs, examples = [], []
    for paragraph in (command.help or "").split("\n\n"):
        text = paragraph.replace("\b", "").strip()
        if text.startswith("Example"):
            # A line that goes on is indented further than the examples are.
            for line in text.removeprefix("Example:").splitlines():
                known = line.strip()
                if known.startswith("matchd ") or "| matchd" in known or not examples:
                    examples.append(known)
                else:
                    examples[-1] += " " + known
        else:
            paragraphs.append(" ".join(text.split()))
    return paragraphs, [line.replace(" \\ ", " ") for line in examples]


def options(command: click.Command) -> list[str]:
    """A row for each option."""
    context = click.Context(command)
    records = [found for one in command.params if isinstance(one, click.Option)
               and (found := one.get_help_record(context))]
    rows = [f"| `{name}` | {text} |".replace("  ", " ") for name, text in
            (tuple(part.replace("|", "\\|") for part in record) for record in records)]
    return ["| option | |", "|---|---|", *rows, ""] if rows else []


def section(path: tuple[str, ...], command: click.Command) -> list[str]:
    """One command."""
    usage = " ".join([*path, *command.collect_usage_pieces(click.Context(command))])
    paragraphs, examples = parts(command)
    lines = [f"## {' '.join(path)}", "", f"`{usage}`", ""]
    for paragraph in paragraphs:
        lines += [paragraph, ""]
    lines += options(command)
    if examples:
        lines += ["For example:", "", *(f"- `{line}`" for line in examples), ""]
    return lines


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    for path, command in commands(matchd, ("matchd",)):
        lines += section(path, command)
    return "\n".join(lines).rstrip("\n") + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
