"""Reads TOML tables into msgspec structs and says everything that is wrong with them at once.

msgspec stops at its first error; an operator wants the list. So each key is checked by itself
against the type of its field, and a mistake becomes one `Problem`: file, key, expected, found.
"""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

from engine.errors import ConfigError

Table = TypeVar("Table", bound=msgspec.Struct)


class Problem(msgspec.Struct, frozen=True):
    """One mistake in one file (or in one variable of the environment)."""

    file: str
    key: str
    expected: str
    found: str

    def __str__(self) -> str:
        where = f"{self.file}: {self.key}" if self.key else self.file
        return f"{where}: expected {self.expected}, found {self.found}"


class Problems(list[Problem]):
    """The mistakes found so far."""

    def note(self, file: str | Path, key: str, expected: str, found: object) -> None:
        """Add a mistake. A text in `found` stays as it is: words, or a value that `show` wrote."""
        text = found if isinstance(found, str) else show(found)
        self.append(Problem(str(file), key, expected, text))

    def raise_all(self) -> None:
        """Raise ConfigError with all of them, if there are any."""
        if self:
            lines = tuple(str(problem) for problem in self)
            raise ConfigError("; ".join(lines), problems=lines)


# Values of these keys are not shown, whatever is wrong with them.
SECRET_KEYS = ("password_hash", "url", "urls")


def show(value: object) -> str:
    """A value as TOML writes it, shortened."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list):
        return "a list"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_toml(path: Path, problems: Problems) -> dict[str, Any]:
    """The file's top table; what makes it unreadable is noted and gives an empty one."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        problems.note(path, "", "a readable file", error.strerror or "nothing")
    except UnicodeDecodeError:
        problems.note(path, "", "UTF-8 text", "other bytes")
    except tomllib.TOMLDecodeError as error:
        problems.note(path, "", "valid TOML", str(error))
    return {}


def read_rows(path: Path, name: str, problems: Problems) -> list[tuple[str, Mapping[str, Any]]]:
    """The `[[name]]` tables of a file, each with its place ("name[3]") for messages."""
    top = read_toml(path, problems)
    for key in top:
        if key != name:
            problems.note(path, key, f"only [[{name}]] tables", "an unknown key")
    rows = top.get(name, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        problems.note(path, name, f"[[{name}]] tables", show(rows))
        return []
    return [(f"{name}[{number}]", row) for number, row in enumerate(rows, 1)]


def check_table(kind: type[Table], table: object, file: str | Path, where: str,
                problems: Problems) -> Table | None:
    """`table` as a `kind`, or None when something in it is wrong (then noted)."""
    if not isinstance(table, Mapping):
        problems.note(file, where, "a table", show(table))
        return None
    before = len(problems)
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    hints = get_type_hints(kind, include_extras=True)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in fields:
            problems.note(file, f"{where}.{key}", f"one of {', '.join(fields)}", "an unknown key")
            continue
        values[key] = check_value(hints[fields[key].name], value, file, f"{where}.{key}", problems)
    for key, field in fields.items():
        if field.required and key not in values:
            problems.note(file, f"{where}.{key}", expected(hints[field.name]), "no such key")
    return kind(**values) if len(problems) == before else None


def check_value(hint: Any, value: object, file: str | Path, key: str, problems: Problems) -> Any:
    """`value` when it is of this type; otherwise None, and the mistake is noted."""
    try:
        return msgspec.convert(value, hint, strict=True)
    except msgspec.ValidationError:
        secret = key.rpartition(".")[2] in SECRET_KEYS
        problems.note(file, key, expected(hint), "another value" if secret else show(value))
        return None


def check_unique(rows: Iterable[tuple[str, Mapping[str, object]]], key: str, file: str | Path,
                 problems: Problems) -> None:
    """Note every row that repeats an earlier row's value of `key`."""
    seen: dict[object, str] = {}
    for where, row in rows:
        value = row.get(key)
        if value is None:
            continue
        if value in seen:
            problems.note(file, f"{where}.{key}", f"a value that {seen[value]} has not",
                          show(value))
        seen.setdefault(value, where)


def expected(hint: Any) -> str:
    """A type and its bounds in words."""
    kind = msgspec.inspect.type_info(hint)
    if isinstance(kind, msgspec.inspect.Metadata):
        # A description says it better than a pattern.
        return str((kind.extra_json_schema or {})["description"])
    if isinstance(kind, msgspec.inspect.LiteralType):
        return "one of " + ", ".join(f'"{value}"' for value in kind.values)
    if isinstance(kind, msgspec.inspect.BoolType):
        return "true or false"
    if isinstance(kind, msgspec.inspect.IntType):
        low, high = kind.ge, kind.le
        if low is not None and high is not None:
            return f"an integer from {low} to {high}"
        return f"an integer from {low} up" if low is not None else "an integer"
    if isinstance(kind, msgspec.inspect.FloatType):
        start = f"above {kind.gt:g}" if kind.gt is not None else f"from {kind.ge or 0:g}"
        return f"a number {start} to {kind.le:g}" if kind.le is not None else f"a number {start}"
    if isinstance(kind, msgspec.inspect.StrType):
        return _expected_text(kind)
    return "a value of another type"


def _expected_text(kind: msgspec.inspect.StrType) -> str:
    text = "a text"
    if kind.max_length is not None:
        text += f" of {kind.min_length or 0} to {kind.max_length} characters"
    return text
