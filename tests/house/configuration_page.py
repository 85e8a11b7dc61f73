"""Makes docs/configuration.md from the configuration's types and the comments of matchd.toml.

`python -m tests.house.configuration_page` writes it; a test holds it against the code.
"""

import re
import typing
from pathlib import Path

import msgspec

from engine import accounts, config, instruments
from engine.tables import expected, show

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "configuration.md"

HEAD = """# Configuration

Made from the configuration's types and the comments of `config/matchd.toml` by
`python -m tests.house.configuration_page`; a test compares the two.

Without `--config` a command reads `./config/matchd.toml` if there is one, else the defaults inside
the package. `instruments.toml` and `accounts.toml` stand beside it. Every key of `matchd.toml` can
be overridden by `MATCHD_<SECTION>__<KEY>` in the environment, a list with commas between its values
or as in the file. An unknown key in a file is a mistake; an unknown variable of that form is a
warning. `matchd check-config` says all mistakes at once.
"""

INSTRUMENTS = """
## instruments.toml

One `[[instrument]]` table each. Numbers with decimals are texts, so that they are exact. The price
on the wire is the price times 10^price_decimals, the quantity on the wire the quantity divided by
the lot. An id is never changed and never used again. price_decimals, tick, quantity_decimals and
lot can't change while orders rest.
"""

ACCOUNTS = """
## accounts.toml

One `[[account]]` table each. An id is never changed and never used again. Limits of 0 are off;
notional_max is price times quantity of one order in wire units (price_units times lots).
"""


def comments() -> dict[str, str]:
    """What matchd.toml says about each key, by section.key."""
    found, section, words, fresh = {}, "", [], False
    for line in (ROOT / "config" / "matchd.toml").read_text().splitlines():
        if line.startswith("["):
            section, words = line.strip("[]"), []
        elif line.startswith("#"):
            words = [*([] if fresh else words), line[1:].strip()]
            fresh = False
        elif match := re.match(r"(\w+) =", line):
            found[f"{section}.{match[1]}"] = " ".join(words)
            fresh = True
    return found


def rows(kind: type[msgspec.Struct], notes: dict[str, str]) -> list[str]:
    """A table's rows: key, default, bounds, note."""
    hints = typing.get_type_hints(kind, include_extras=True)
    lines = []
    for field in msgspec.structs.fields(kind):
        default = "" if field.required else f"`{show(field.default)}`"
        bounds = expected(hints[field.name]).replace("|", "\\|")
        note = f" {notes[field.name]} |" if notes else ""
        lines.append(f"| `{field.name}` | {default} | {bounds} |{note}")
    return lines


def page() -> str:
    """The whole page."""
    said = comments()
    lines = [HEAD]
    for section, kind in typing.get_type_hints(config.Config).items():
        notes = {key: said[f"{section}.{key}"] for key in kind.__struct_fields__}
        lines += [f"## [{section}]", "", kind.__doc__ or "", "",
                  "| key | default | expected | |", "|---|---|---|---|", *rows(kind, notes), ""]
    text = "\n".join(lines) + "\n"
    head = ["", "| key | default | expected |", "|---|---|---|"]
    text += "\n".join([INSTRUMENTS.strip(), *head, *rows(instruments.InstrumentRow, {}), "", ""])
    return text + "\n".join([ACCOUNTS.strip(), *head, *rows(accounts.Account, {}), ""])


if __name__ == "__main__":
    PAGE.write_text(page())
