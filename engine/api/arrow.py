"""Rows of the past as Arrow and Parquet: whole numbers in wire units, and exact decimals beside.

This file imports pyarrow, which takes a while: it is imported when somebody asks for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.api.history_rows import Names
from engine.past import COLUMNS, Kind, Row, Scale

# 38 digits are what 16 bytes hold, of which prices and values need fewer.
PRECISION = 38
# Rows that wait in memory until Parquet writes them together.
ROW_GROUP_ROWS = 65_536

# Microseconds are what most tools have; the nanoseconds stand beside.
_TIME = pa.timestamp("us", tz="UTC")
_TEXTS = {"client_order_id", "symbol", "side", "order_type", "time_in_force", "status", "reason",
          "source", "taker_side"}
# What has another name when it is shown.
_SHOWN = {"match_number": "match", "taker_side": "side", "updated_time_ns": "updated_ns"}
_BARE = ("price_units", "quantity_lots", "filled_lots", "remaining_lots")


def encoder(name: str, kind: Kind, scales: Sequence[Scale]) -> ArrowEncoder | ParquetEncoder:
    """What writes "arrow" or "parquet"."""
    columns = Columns(kind, scales)
    return ArrowEncoder(columns) if name == "arrow" else ParquetEncoder(columns)


class Columns:
    """The columns of a kind, and how rows become arrays of them."""

    def __init__(self, kind: Kind, scales: Sequence[Scale]) -> None:
        self._kind = kind
        self._price = max((scale.price_decimals for scale in scales), default=0)
        self._quantity = max((scale.quantity_decimals for scale in scales), default=0)
        self._symbol_at = COLUMNS[kind].index("symbol")
        self._makers: list[Any] = []
        fields: list[pa.Field] = []
        for at, column in enumerate(COLUMNS[kind]):
            for name, kind_of, maker in self._column(column, at):
                fields.append(pa.field(name, kind_of))
                self._makers.append(maker)
        if kind == "candles":
            fields.append(pa.field("closed", pa.bool_()))
            self._makers.append(lambda rows, scales, names: pa.array(
                [row[0] + names.length_ns <= names.settled_ns for row in rows]))
        self.schema = pa.schema(fields)

    def batch(self, rows: Sequence[Row], names: Names) -> pa.RecordBatch:
        """The rows as one batch."""
        at = self._symbol_at
        scales = [names.scales[row[at]] for row in rows]
        return pa.record_batch([maker(rows, scales, names) for maker in self._makers],
                               schema=self.schema)

    def _column(self, column: str, at: int) -> Iterable[tuple[str, pa.DataType, Any]]:
        name = _SHOWN.get(column, column)
        if column.endswith("_units"):
            yield name, pa.int64(), _plain(at, pa.int64())
            decimals = self._price
            yield (column.removesuffix("_units"), pa.decimal128(PRECISION, decimals),
                   _decimals(at, decimals, _price_factor))
        elif column.endswith("_lots"):
            yield name, pa.int64(), _plain(at, pa.int64())
            decimals = self._quantity
            yield (_decimal_name(column), pa.decimal128(PRECISION, decimals),
                   _decimals(at, decimals, _quantity_factor))
        elif column.endswith("_ns"):
            yield name.removesuffix("_ns"), _TIME, _times(at)
            yield name, pa.int64(), _plain(at, pa.int64())
        elif column == "account_id":
            yield "account_id", pa.int64(), _plain(at, pa.int64())
            yield "account", pa.string(), _usernames(at)
        elif column == "part":
            yield "liquidity", pa.string(), _liquidity(at)
        elif column == "post_only":
            yield name, pa.bool_(), _flags(at)
        else:
            kind = pa.string() if column in _TEXTS else pa.int64()
            yield name, kind, _plain(at, kind)


def _decimal_name(column: str) -> str:
    """`quantity_lots` beside `quantity`, `filled_lots` beside `filled_quantity`."""
    word = column.removesuffix("_lots")
    return f"{word}_quantity" if word in ("filled", "remaining") else word


def _plain(at: int, kind: pa.DataType) -> Any:
    return lambda rows, scales, names: pa.array([row[at] for row in rows], kind)


def _times(at: int) -> Any:
    return lambda rows, scales, names: pa.array([row[at] // 1_000 for row in rows], _TIME)


def _flags(at: int) -> Any:
    return lambda rows, scales, names: pa.array([bool(row[at]) for row in rows])


def _usernames(at: int) -> Any:
    def make(rows: Sequence[Row], scales: Sequence[Scale], names: Names) -> pa.Array:
        known: Mapping[int, str] = names.usernames
        return pa.array([known.get(row[at]) or f"#{row[at]}" for row in rows], pa.string())
    return make


def _liquidity(at: int) -> Any:
    return lambda rows, scales, names: pa.array(
        ["taker" if row[at] else "maker" for row in rows], pa.string())


def _price_factor(scale: Scale, decimals: int) -> int:
    return int(10 ** (decimals - scale.price_decimals))


def _quantity_factor(scale: Scale, decimals: int) -> int:
    return int(scale.lot_size * 10 ** (decimals - scale.quantity_decimals))


def _decimals(at: int, decimals: int, factor_of: Callable[[Scale, int], int]) -> Any:
    """Decimals by their 16 bytes: no Decimal is made for each."""
    kind = pa.decimal128(PRECISION, decimals)

    def make(rows: Sequence[Row], scales: Sequence[Scale], names: Names) -> pa.Array:
        factors = {scale: factor_of(scale, decimals) for scale in set(scales)}
        units = pa.array([row[at] for row in rows], pa.int64())
        data = b"".join([
            (0 if row[at] is None else row[at] * factors[scale]).to_bytes(16, "little", signed=True)
            for row, scale in zip(rows, scales, strict=True)])
        return pa.Array.from_buffers(kind, len(rows), [units.buffers()[0], pa.py_buffer(data)],
                                     units.null_count)
    return make


class ArrowEncoder:
    """Arrow's stream of record batches, one for each page."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._sink = Sink()
        self._writer = pa.ipc.new_stream(pa.PythonFile(self._sink, "w"), columns.schema)
        self._waiting: list[pa.RecordBatch] = []

    def begin(self) -> bytes:
        """The schema."""
        return self._sink.take()

    def rows(self, rows: Sequence[Row], names: Names) -> bytes:
        """Nothing yet."""
        self._waiting.append(self._columns.batch(rows, names))
        return b""

    async def flush(self, last: bool) -> bytes:
        """The batch of this page."""
        if self._waiting:
            table = pa.Table.from_batches(self._waiting).combine_chunks()
            self._waiting.clear()
            self._writer.write_table(table)
        if last:
            self._writer.close()
        return self._sink.take()


class ParquetEncoder:
    """A Parquet file, a group of rows at a time; its index comes last."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._sink = Sink()
        self._writer = pq.ParquetWriter(pa.PythonFile(self._sink, "w"), columns.schema,
                                        compression="zstd")
        self._waiting: list[pa.RecordBatch] = []
        self._count = 0

    def begin(self) -> bytes:
        """The file's mark."""
        return self._sink.take()

    def rows(self, rows: Sequence[Row], names: Names) -> bytes:
        """Nothing yet."""
        self._waiting.append(self._columns.batch(rows, names))
        self._count += len(rows)
        return b""

    async def flush(self, last: bool) -> bytes:
        """The next group, when it is large enough. Compressed in a thread: it takes long."""
        if self._count >= ROW_GROUP_ROWS or (last and self._waiting):
            table = pa.Table.from_batches(self._waiting)
            self._waiting, self._count = [], 0
            await asyncio.to_thread(self._writer.write_table, table, ROW_GROUP_ROWS * 2)
        if last:
            self._writer.close()
        return self._sink.take()


class Sink:
    """A file that is written to, and whose bytes are taken away as they come."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Keep these bytes."""
        part = bytes(data)
        self._parts.append(part)
        self._length += len(part)
        return len(part)

    def tell(self) -> int:
        """How much was written in all."""
        return self._length

    def flush(self) -> None:
        """Nothing waits elsewhere."""

    def close(self) -> None:
        """The writer is done."""
        self.closed = True

    def writable(self) -> bool:
        """It is."""
        return True

    def readable(self) -> bool:
        """It is not."""
        return False

    def seekable(self) -> bool:
        """It is not."""
        return False

    def take(self) -> bytes:
        """What was written since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)
