"""`matchd export`: trades, orders or candles out of the journal, as Parquet or CSV."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine import config
from engine.cli import options, output

if TYPE_CHECKING:
    from engine.cli.export_log import LogSpan

INTERVALS_S = {"1m": 60, "5m": 300, "1h": 3600, "1d": 86400}
_SECOND_NS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SEQ_MAX = _TIME_MAX_NS = 2**63 - 1


def time_ns_of(_ctx: click.Context, _param: click.Parameter, text: str | None) -> int | None:
    """A time in UTC as nanoseconds since 1970, None for none: ISO 8601, or such nanoseconds.
    Eight digits are a date."""
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) != 8:
        if int(text) > _TIME_MAX_NS:
            raise click.BadParameter(f"{text!r} is too late: times end in 2262")
        return int(text)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no time; try 2026-11-21, 2026-11-21T18:45:00Z or "
                                 "nanoseconds since 1970") from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    time_ns = (when - _EPOCH) // timedelta(microseconds=1) * 1000
    if time_ns < 0:
        raise click.BadParameter(f"{text!r} is before 1970")
    if time_ns > _TIME_MAX_NS:
        raise click.BadParameter(f"{text!r} is too late: times end in 2262")
    return time_ns


@click.command()
@click.argument("what", type=click.Choice(["trades", "orders", "candles"]))
@click.option("--from", "from_ns", callback=time_ns_of, metavar="TIME",
              help="Begin at this time (UTC), in place of the beginning of the journal.")
@click.option("--to", "to_ns", callback=time_ns_of, metavar="TIME",
              help="End before this time, in place of the journal's end.")
@click.option("--symbol", default="", help="This instrument alone.")
@click.option("--interval", type=click.Choice(list(INTERVALS_S)), default="1m",
              show_default=True, help="The length of candles.")
@click.option("--format", "format_", type=click.Choice(["parquet", "csv"]), default="parquet",
              show_default=True, help="The format of the file.")
@click.option("--output", "path", metavar="FILE",
              type=click.Path(dir_okay=False, path_type=Path),
              help="The file to write, in place of WHAT.FORMAT in this folder.")
@options.files
@options.as_json
def export(what: str, from_ns: int | None, to_ns: int | None, symbol: str, interval: str,
           format_: str, path: Path | None, config_path: Path | None, data_dir: Path | None,
           as_json: bool) -> None:
    """Write trades, orders or candles of a span of time into a file.

    Reads the journal alone, so it needs no store, and the venue may be running. The file takes its
    name when it is whole; a file of that name is replaced then.

    Trades are those of the span; candles those that begin in it, and trades make them, so there is
    none where nothing traded. Orders are those accepted in the span, as they stood at its end.

    \b
    Example: matchd export trades --from 2026-11-20 --to 2026-11-21 --output day.parquet
             matchd export candles --symbol BTC-USDT --interval 1h --format csv
    """
    if to_ns is not None and to_ns <= (from_ns or 0):
        raise click.UsageError("--to is not after --from")
    path = path or Path(f"{what}.{format_}")
    if not path.parent.is_dir():
        raise click.UsageError(f"--output: there is no folder {path.parent}")
    loaded, _ = config.load(config_path, data_dir=data_dir)
    interval_s = INTERVALS_S[interval] if what == "candles" else 0
    with output.Progress(f"exporting {what}") as progress:
        span = open_span(loaded, from_ns or 0, to_ns or 0, interval_s * _SECOND_NS, progress.at)
        if symbol and symbol not in (known := sorted({one.symbol for one in span.definitions})):
            raise click.UsageError(f"the journal has no instrument {symbol} in that time; it has "
                                   f"{', '.join(known) or 'none'}")
        rows = write_file(span, what, path, format_, symbol, interval_s)
    seqs = (f"from seq {span.first_seq} to {span.last_seq}" if span.last_seq
            else "the journal has no events in that time")
    text = f"{path}: {rows} {what}, {seqs}"
    output.answer({"file": str(path), "rows": rows, "first_seq": span.first_seq,
                   "last_seq": span.last_seq, "log_id": span.log_id.hex()}, text, as_json)


def open_span(loaded: config.Config, from_ns: int, to_ns: int, boundary_ns: int,
              progress: Callable[[int, int], None]) -> LogSpan:
    """The events that the file is made of. Candles are whole or not there, so their span reaches
    to the ends of intervals. Raises JournalError, CorruptError."""
    from engine.cli.export_log import LogSpan
    from engine.cli.follow import require_log
    from engine.journal.storage import FileStorage

    require_log(loaded)
    if boundary_ns:
        from_ns, to_ns = (-(-time_ns // boundary_ns) * boundary_ns for time_ns in (from_ns, to_ns))
    return LogSpan(FileStorage(loaded.data_dir), from_ns, to_ns, committed_seq(loaded.data_dir),
                   progress)


def write_file(span: LogSpan, what: str, path: Path, format_: str, symbol: str,
               interval_s: int) -> int:
    """Make the file; returns how many rows it has. Raises EngineError, OSError."""
    from engine.cli.export_files import ExportFile, TooNarrow

    about = {"matchd.table": what, "matchd.log_id": span.log_id.hex(),
             "matchd.from_ns": str(span.from_ns), "matchd.to_ns": str(span.to_ns)}

    def write(wide: bool) -> int:
        with ExportFile(path, format_, what, span.definitions, symbol, interval_s, about,
                        wide) as file:
            span.take(what, file, interval_s * _SECOND_NS)
        return file.rows

    try:
        return write(wide=False)
    except TooNarrow:
        return write(wide=True)


def committed_seq(data_dir: Path) -> int:
    """What is on disk: a daemon that runs says so, without one all that can be read is."""
    from engine import control

    try:
        return int(control.request(data_dir, "status")["seq"])
    except control.ControlError:
        return _SEQ_MAX
