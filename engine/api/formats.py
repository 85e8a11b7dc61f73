"""Rows of the past as bytes: JSON, CSV, and what `arrow.py` writes."""

from __future__ import annotations

import asyncio
import csv
import importlib
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from engine.api.history_rows import SHOW, Names, fields_of, values_of
from engine.api.route import ENCODER, ApiError, Headers
from engine.past import Kind, Row, Scale

# So many rows are made into bytes at once: about a millisecond of the loop's time.
SLICE_ROWS = 200


class Type(NamedTuple):
    """A format in the words of HTTP. `suffix` is that of a file."""

    content_type: bytes
    suffix: str


TYPES: Mapping[str, Type] = {
    "json": Type(b"application/json", "json"),
    "csv": Type(b"text/csv; charset=utf-8; header=present", "csv"),
    "arrow": Type(b"application/vnd.apache.arrow.stream", "arrows"),
    "parquet": Type(b"application/vnd.apache.parquet", "parquet"),
}
STREAMED = tuple(name for name in TYPES if name != "json")
CONTENT_TYPES = tuple(TYPES[name].content_type.partition(b";")[0].decode() for name in STREAMED)


class Encoder(Protocol):
    """Makes a stream of bytes from rows. What it returns may be empty."""

    def begin(self) -> bytes:
        """What stands before all rows."""

    def rows(self, rows: Sequence[Row], names: Names) -> bytes:
        """At most SLICE_ROWS rows."""

    async def flush(self, last: bool) -> bytes:
        """After each page; with `last`, what stands behind all rows."""


class CsvEncoder:
    """Comma-separated values with a header, as RFC 4180 writes them; nothing stands for null."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def begin(self) -> bytes:
        """The names of the columns."""
        return (",".join(fields_of(self._kind)) + "\r\n").encode()

    def rows(self, rows: Sequence[Row], names: Names) -> bytes:
        """Lines."""
        text, show = io.StringIO(), SHOW[self._kind]
        csv.writer(text).writerows([_plain(values_of(show(row, names))) for row in rows])
        return text.getvalue().encode()

    async def flush(self, last: bool) -> bytes:
        """Nothing waits."""
        return b""


def _plain(values: Sequence[object]) -> list[object]:
    """As JSON has them: true and false in small letters."""
    return [str(value).lower() if isinstance(value, bool) else value for value in values]


async def encoder(name: str, kind: Kind, scales: Mapping[str, Scale], symbol: str) -> Encoder:
    """What makes this format. The decimals of its columns are those of `symbol`, or enough for
    all."""
    if name == "csv":
        return CsvEncoder(kind)
    # pyarrow takes a while to import.
    module = await asyncio.to_thread(importlib.import_module, "engine.api.arrow")
    of = [scales[symbol]] if symbol else list(scales.values())
    made: Encoder = module.encoder(name, kind, of)
    return made


async def json_rows(kind: Kind, rows: Sequence[Row], names: Names) -> bytes:
    """A JSON array, made in slices between which the loop goes on."""
    parts, show = [], SHOW[kind]
    for start in range(0, len(rows), SLICE_ROWS):
        shown = [show(row, names) for row in rows[start:start + SLICE_ROWS]]
        parts.append(ENCODER.encode(shown)[1:-1])
        await asyncio.sleep(0)
    return b"[" + b",".join(parts) + b"]"


def chosen(asked: str | None, headers: Headers) -> str:
    """The format that is asked for by name, or that the header Accept likes best. Raises ApiError
    400 for an Accept that cannot be read; what nothing fits gets JSON."""
    if asked:
        return asked
    accept = b",".join(value for name, value in headers if name == b"accept").decode("latin-1")
    best, liking = "json", 0.0
    for name, one in TYPES.items():
        media = one.content_type.partition(b";")[0].decode()
        likes = _liking(accept, media)
        if likes > liking:
            best, liking = name, likes
    return best


def _liking(accept: str, media: str) -> float:
    """How much a header Accept wants this type: RFC 9110 12.5.1, the closest range counts."""
    found, closest = 0.0, -1
    group = media.partition("/")[0]
    for entry in accept.split(","):
        pattern, *parameters = (part.strip() for part in entry.lower().split(";"))
        closeness = ("*/*", f"{group}/*", media).index(pattern) if pattern in (
            "*/*", f"{group}/*", media) else -1
        if closeness <= closest:
            continue
        quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        try:
            found, closest = float(quality), closeness
        except ValueError:
            raise ApiError(400, "bad_header", f"accept: {quality!r} is no weight",
                           {"field": "accept"}) from None
    return found
