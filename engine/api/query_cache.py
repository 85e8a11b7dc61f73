"""Answers to statements, kept for as long as the store does not move.

The key of an answer has the store's position in it: when an event comes, the answers of before are
not found any more, and go when room is needed. Only statements whose answer the position decides
are kept: they read our tables, and call nothing that knows the time, chance or who asks.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec

from engine.past import Place

TABLES = frozenset((
    "instruments", "accounts", "orders", "order_events", "trades", "candles", "positions",
    "store_position", "orders_view", "trades_view", "candles_view", "positions_view",
    "order_events_view"))
# The same answer for the same values, always. No time functions: "now" is one of their values.
FUNCTIONS = frozenset((
    "abs", "avg", "ceil", "ceiling", "char_length", "coalesce", "concat", "count", "cume_dist",
    "date_bin", "date_trunc", "dense_rank", "div", "first_value", "floor", "greatest",
    "group_concat", "iif", "ifnull", "instr", "lag", "last_value", "lead", "least", "left",
    "length", "lower", "ltrim", "max", "min",
    "mod", "ntile", "nth_value", "nullif", "percent_rank", "percentile_cont", "percentile_disc",
    "power", "printf", "rank", "replace", "right", "round", "row_number", "rtrim", "sign", "sqrt",
    "stddev", "string_agg", "substr", "substring", "sum", "total", "trim", "trunc", "typeof",
    "upper", "variance"))
# Words before a bracket that are no functions.
_GRAMMAR = frozenset((
    "all", "and", "any", "as", "between", "by", "case", "cast", "distinct", "else", "except",
    "exists", "filter", "from", "having", "in", "intersect", "is", "join", "lateral", "like",
    "limit", "materialized", "not", "numeric", "decimal", "varchar", "char", "offset", "on", "or",
    "over", "partition", "select", "some", "then", "union", "using", "values", "when", "where",
    "with", "within", "group"))
# Words that are values by themselves, or read what is not ours.
_MOVING = frozenset((
    "current_catalog", "current_date", "current_role", "current_schema", "current_time",
    "current_timestamp", "current_user", "explain", "localtime", "localtimestamp", "pragma",
    "random", "recursive", "session_user", "show", "system_user", "table", "tablesample", "user",
    "ctid", "oid", "tableoid", "xmax", "xmin", "updated_at"))
_MOVING_TEXT = re.compile(r"\b(now|today|tomorrow|yesterday)\b", re.IGNORECASE)
_TOKEN = re.compile(r"""
    (?P<skip>\s+|--[^\n]*|/\*.*?\*/)
  | (?P<text>'(?:[^']|'')*')
  | (?P<name>[A-Za-z_][A-Za-z0-9_$]*)
  | (?P<other>[0-9.]+(?:[eE][+-]?[0-9]+)?|\$[0-9]+|::|.)
""", re.VERBOSE | re.DOTALL)
_CLAUSES = frozenset(("where", "group", "order", "having", "limit", "offset", "window", "union",
                      "intersect", "except", "fetch", ";"))


def cacheable(sql: str, parameters: Sequence[Any]) -> bool:
    """Whether the store's position alone decides the answer, as far as this can tell; when in
    doubt not."""
    if any(isinstance(one, str) and _MOVING_TEXT.search(one) for one in parameters):
        return False
    if "\\" in sql:
        # Where a text ends is then another question.
        return False
    tokens = list(_tokens(sql))
    words = {text for kind, text in tokens if kind == "name"}
    if words & _MOVING or any(text in ('"', "`", "[", "$", "\\", "@") for kind, text in tokens
                              if kind == "other"):
        return False
    if any(kind == "text" and _MOVING_TEXT.search(text) for kind, text in tokens):
        return False
    named = {tokens[at - 1][1] for at in range(1, len(tokens) - 1)
             if tokens[at][1] == "as" and tokens[at + 1][1] in ("(", "materialized")}
    return _functions(tokens) <= FUNCTIONS | named and _tables(tokens) <= TABLES | named


def _tokens(sql: str) -> Iterator[tuple[str, str]]:
    for match in _TOKEN.finditer(sql):
        kind = match.lastgroup or ""
        if kind == "name":
            yield kind, match[0].lower()
        elif kind != "skip":
            yield kind, match[0]


def _functions(tokens: list[tuple[str, str]]) -> set[str]:
    """Names in front of a bracket."""
    return {tokens[at][1] for at in range(len(tokens) - 1)
            if tokens[at][0] == "name" and tokens[at + 1][1] == "("
            and tokens[at][1] not in _GRAMMAR}


def _tables(tokens: list[tuple[str, str]]) -> set[str]:
    """Names after FROM, JOIN, and the commas between FROM and the next clause. A name with a
    schema in front is the schema's: not one of ours."""
    found, depth, lists = set(), 0, set()
    wanted = False
    for kind, text in tokens:
        if wanted and kind == "name" and text not in ("lateral", "only"):
            found.add(text)
            wanted = False
        elif wanted and text == "(":
            wanted = False
        if text == "(":
            depth += 1
        elif text == ")":
            lists.discard(depth)
            depth -= 1
        if kind == "name" and text == "from":
            lists.add(depth)
            wanted = True
        elif kind == "name" and text == "join":
            wanted = True
        elif text in _CLAUSES:
            lists.discard(depth)
        elif text == "," and depth in lists:
            wanted = True
    return found


def key_of(store: str, place: Place, sql: str, parameters: Sequence[Any], rows_max: int) -> str:
    """The name of an answer: statement and parameters, and the position of the store."""
    whole = msgspec.msgpack.encode((store, *place[:3], sql, list(parameters), rows_max))
    return hashlib.sha256(whole).hexdigest()


class Remote(Protocol):
    """A cache that several venues may share."""

    async def get(self, key: str) -> bytes | None: ...
    async def put(self, key: str, value: bytes) -> None: ...
    async def close(self) -> None: ...


class MemoryCache:
    """The answers that were used last, bounded by their number and size, all of one place of the
    store: those of another place go when the first one of a new place comes."""

    def __init__(self, entries_max: int, bytes_max: int) -> None:
        self._entries_max, self._bytes_max = entries_max, bytes_max
        self._answers: OrderedDict[str, bytes] = OrderedDict()
        self._place: tuple[object, ...] = ()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> bytes | None:
        """What is kept."""
        found = self._answers.get(key)
        if found is not None:
            self._answers.move_to_end(key)
        return found

    def put(self, key: str, value: bytes, place: tuple[object, ...]) -> None:
        """Keep an answer of this place; what was not used for longest goes."""
        if place != self._place:
            self._answers.clear()
            self._place, self.size_bytes = place, 0
        if not self._entries_max or len(value) > self._bytes_max:
            return
        before = self._answers.pop(key, None)
        self.size_bytes += len(value) - (len(before) if before is not None else 0)
        self._answers[key] = value
        while len(self._answers) > self._entries_max or self.size_bytes > self._bytes_max:
            _, gone = self._answers.popitem(last=False)
            self.size_bytes -= len(gone)
