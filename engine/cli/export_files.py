"""Rows of one table into a Parquet or CSV file, with exact decimals; the file appears when it is
whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from cython_core.rows import COLUMNS, Rows
from engine.cli.export_log import Definition, Scale
from engine.errors import EngineError

if TYPE_CHECKING:
    import pyarrow

# Decimals of so many digits are 64-bit integers in a Parquet file, and read several times faster.
NARROW_DIGITS = 18
WIDE_DIGITS = 38
# What DuckDB takes at once; its own files have the same.
ROW_GROUP_ROWS = 122_880


class TooNarrow(EngineError):
    """A decimal has more than 18 digits: the file has to be made again, with `wide`."""


class Field(NamedTuple):
    """A column of the file: what it is made of, and how."""

    name: str
    source: str
    kind: str                   # "plain", "time", "price", "quantity"


def fields_of(table: str) -> list[Field]:
    """The columns of a file: those of the table, and before each integer what it means."""
    fields = []
    for column in COLUMNS[table]:
        if column.endswith("time_ns"):
            fields.append(Field(column.removesuffix("_ns"), column, "time"))
        elif column.endswith("_units"):
            fields.append(Field(column.removesuffix("_units"), column, "price"))
        elif column.endswith("_lots"):
            fields.append(Field(column.removesuffix("_lots"), column, "quantity"))
        fields.append(Field(column, column, "plain"))
    return fields


class ExportFile:
    """A file that takes rows of one table; use it in a `with` block.

    It is written beside its name and takes it at the end, in the place of an older file. After an
    error nothing is left; EngineError says that its folder takes no file. `symbol` and
    `interval_s` choose rows, "" and 0 take all. Decimals have 18 digits, if `wide` 38.
    """

    def __init__(self, path: Path, format: str, table: str, definitions: list[Definition],
                 symbol: str = "", interval_s: int = 0,
                 about: Mapping[str, str] | None = None, wide: bool = False) -> None:
        self.rows = 0
        self._digits = WIDE_DIGITS if wide else NARROW_DIGITS
        self._path, self._format, self._table = path, format, table
        self._symbol, self._interval_s = symbol, interval_s
        self._fields = fields_of(table)
        scales = [one.scale for one in definitions if symbol in ("", one.symbol)]
        self._price_scale = max((scale.price_decimals for scale in scales), default=0)
        self._quantity_scale = max((scale.quantity_decimals for scale in scales), default=0)
        self._about = dict(about or {})
        self._unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._file: BinaryIO | None = None
        self._writer: Any = None

    def __enter__(self) -> ExportFile:
        try:
            self._file = self._unfinished.open("wb")
        except OSError as error:
            raise self._named(error) from error
        self._writer = self._open_writer()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                self._finish()
            else:
                # It writes its last bytes when it goes: better now, while there is a file.
                with contextlib.suppress(OSError, ValueError):
                    self._writer.close()
        finally:
            if self._file is not None:
                self._file.close()
            self._unfinished.unlink(missing_ok=True)

    def _open_writer(self) -> Any:
        if self._format == "csv":
            from pyarrow import csv
            return csv.CSVWriter(self._file, self._schema())
        import pyarrow as pa
        from pyarrow import parquet

        schema = self._schema()
        texts = [field.name for field in schema if field.type == pa.string()]
        # Differences of neighbours are small, and quicker to read than what a compressor leaves.
        deltas = [field.name for field in schema
                  if pa.types.is_int64(field.type) or pa.types.is_timestamp(field.type)
                  or (pa.types.is_decimal(field.type) and self._digits == NARROW_DIGITS)]
        return parquet.ParquetWriter(
            self._file, schema, use_dictionary=texts, store_decimal_as_integer=True,
            column_encoding=dict.fromkeys(deltas, "DELTA_BINARY_PACKED"),
            compression={field.name: "none" if field.name in deltas else "zstd"
                         for field in schema})

    def _finish(self) -> None:
        """The last bytes, on disk, under the name."""
        self._writer.close()
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        try:
            os.replace(self._unfinished, self._path)
        except OSError as error:
            raise self._named(error) from error

    def _named(self, error: OSError) -> EngineError:
        """The error with the name that the user gave."""
        return EngineError(f"{self._path} can't be written: {error.strerror}")

    # -- rows ----------------------------------------------------------------------------------

    def write(self, rows: Rows, start: int, stop: int, scales: Mapping[str, Scale]) -> None:
        """Write some rows, whose symbols have these scales. Raises TooNarrow, and EngineError for
        a value that no decimal holds."""
        import pyarrow as pa

        arrays = rows.arrays(self._table, start, stop)
        columns = []
        for field, kind in zip(self._fields, self._schema(), strict=True):
            if field.kind in ("price", "quantity"):
                buffer = self._decimals(rows, field, start, stop, scales)
                columns.append(_array(kind.type, stop - start, arrays[field.source][1], buffer))
            else:
                columns.append(_plain(kind.type, stop - start, *arrays[field.source]))
        found = pa.Table.from_arrays(columns, schema=self._schema())
        found = self._chosen(found)
        self.rows += found.num_rows
        if found.num_rows:
            self._writer.write_table(found, ROW_GROUP_ROWS)

    def _decimals(self, rows: Rows, field: Field, start: int, stop: int,
                  scales: Mapping[str, Scale]) -> bytearray:
        if field.kind == "price":
            factors = {symbol: 10 ** max(self._price_scale - scale.price_decimals, 0)
                       for symbol, scale in scales.items()}
        else:
            factors = {symbol: scale.lot_size * 10 ** max(
                self._quantity_scale - scale.quantity_decimals, 0)
                for symbol, scale in scales.items()}
        try:
            return rows.scaled(self._table, field.source, factors, start, stop, self._digits)
        except OverflowError as error:
            kind = TooNarrow if self._digits == NARROW_DIGITS else EngineError
            raise kind(f"{field.name}: {error}") from None

    def _chosen(self, table: pyarrow.Table) -> pyarrow.Table:
        import pyarrow.compute as pc

        if self._interval_s:
            table = table.filter(pc.equal(table["interval_s"], self._interval_s))
        if self._symbol:
            table = table.filter(pc.equal(table["symbol"], self._symbol))
        return table

    # -- types ---------------------------------------------------------------------------------

    def _schema(self) -> pyarrow.Schema:
        import pyarrow as pa

        kinds = {"price": pa.decimal128(self._digits, self._price_scale),
                 "quantity": pa.decimal128(self._digits, self._quantity_scale),
                 "time": pa.timestamp("ns", "UTC")}
        plain = {"bool": pa.bool_(), "word": pa.string(), "text": pa.string(),
                 "int64": pa.int64()}
        shapes = {name: column[0] for name, column in Rows(0, {}, {}, {}).arrays(
            self._table).items()}
        return pa.schema([(field.name, kinds.get(field.kind) or plain[shapes[field.source]])
                          for field in self._fields], self._about)


def _array(type_: pyarrow.DataType, count: int, validity: bytearray | None,
           *buffers: bytearray) -> pyarrow.Array:
    import pyarrow as pa

    bitmap = None if validity is None else pa.py_buffer(validity)
    return pa.Array.from_buffers(type_, count, [bitmap, *map(pa.py_buffer, buffers)])


def _plain(type_: pyarrow.DataType, count: int, kind: str, validity: bytearray | None,
           *rest: Any) -> pyarrow.Array:
    """A column as it is; times are integers too. Words become texts."""
    import pyarrow as pa

    if kind != "word":
        return _array(type_, count, validity, *rest)
    codes, words = rest
    found = pa.DictionaryArray.from_arrays(_array(pa.int32(), count, validity, codes), words)
    return found.dictionary_decode()
