"""`matchd export` against the slow model: any span, both formats, beside a venue that trades."""

from __future__ import annotations

import asyncio
import csv
import json
import random
import shutil
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from cython_core.event import CommandBatch, EventBatch
from cython_core.rows import COLUMNS
from engine import cli
from engine.cli import export_log
from engine.cli.export_files import ExportFile
from engine.errors import EngineError
from engine.journal.reader import first_header
from engine.journal.segment import segment_name, segment_numbers
from engine.journal.snapshot import oldest_segment_needed, snapshot_name, snapshot_seqs
from engine.journal.storage import FileStorage
from tests.journal.venue import INSTRUMENTS
from tests.market.venue import MarketVenue
from tests.stores.rows_model import INTERVALS_S, model_of
from tests.support.daemon import Daemon
from tests.support.http import Caller

START_NS = 1_764_000_000 * 10**9
MINUTE_NS = 60 * 10**9


class SlowVenue(MarketVenue):
    """Minutes pass between its batches, so that its log spans days."""

    def apply(self, commands: CommandBatch) -> EventBatch:
        events = EventBatch()
        step_ns = self.flow.rng.choice((0, 1, 10**9, MINUTE_NS, 7 * MINUTE_NS, 40 * MINUTE_NS))
        self.matcher.apply(commands, events, max(self.matcher.last_time_ns, START_NS) + step_ns)
        if len(events):
            self.log.append(events)
            self._source.put_nowait(events)
            self.journal.maybe_snapshot(self.matcher)
        return events


@pytest.fixture(scope="module")
def traded(tmp_path_factory):
    """A log of many segments and some snapshots, closed; and its events."""
    folder = tmp_path_factory.mktemp("traded")

    async def trade() -> list[EventBatch]:
        venue = await SlowVenue(folder, seed=3).start()
        rounds = 0
        # Children write the snapshots, at their own pace.
        while rounds < 40 or venue.journal.snapshots.count < 2:
            rounds += 1
            venue.trade(8)
            await venue.settle()
        await venue.close()
        return venue.log

    log = asyncio.run(trade())
    storage = FileStorage(folder)
    assert len(segment_numbers(storage)) > 3
    assert len(snapshot_seqs(storage)) > 1
    return folder, log


def export(folder: Path, what: str, *arguments: object) -> Path:
    """Run the command in this process; the file that it made."""
    path = folder / "out"
    assert cli.run(["export", what, "--data-dir", str(folder), "--output", str(path), "--json",
                    *map(str, arguments)]) == 0
    return path


def before(log: list[EventBatch], time_ns: int) -> list[EventBatch]:
    """The commands before a time; a batch has one time."""
    return [batch for batch in log if batch.dicts()[0]["time_ns"] < time_ns]


def expected_rows(log: list[EventBatch], what: str, from_ns: int, to_ns: int,
                  interval_s: int = 60) -> list[tuple]:
    if what == "candles":
        end = -(-to_ns // (interval_s * 10**9)) * interval_s * 10**9
        model = model_of(before(log, end))
        place = COLUMNS[what].index("open_time_ns")
        rows = [row for row in model.rows(what) if row[1] == interval_s]
    else:
        model = model_of(before(log, to_ns))
        place = COLUMNS[what].index("time_ns")
        rows = model.rows(what)
    return sorted(row for row in rows if from_ns <= row[place] < to_ns)


def read_parquet(path: Path, what: str) -> list[tuple]:
    table = pq.read_table(path).select(COLUMNS[what])
    return sorted(zip(*table.to_pydict().values(), strict=True))


def without_client_ids(rows: list[tuple], log: list[EventBatch], from_seq: int) -> list[tuple]:
    """An order's client id may be that of one from before the span: then the file has none."""
    chains = {event["order_id"]: event["orig_order_id"] for batch in log
              for event in batch.dicts() if event["kind"] == "replaced"
              and not event.get("client_order_id")}
    place = COLUMNS["orders"].index("client_order_id")
    found = []
    for row in rows:
        order_id = row[0]
        while order_id in chains:
            order_id = chains[order_id]
        if order_id < from_seq:
            row = (*row[:place], None, *row[place + 1:])
        found.append(row)
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("what", ["trades", "orders", "candles"])
def test_any_span_is_that_of_the_model(traded, what, seed, monkeypatch):
    folder, log = traded
    chance = random.Random(seed)
    monkeypatch.setattr(export_log, "CHUNK_ROWS", chance.choice((1, 7, 100, 10**6)))
    times = [batch.dicts()[0]["time_ns"] for batch in log]
    from_ns, to_ns = sorted((chance.choice(times), chance.choice(times) + chance.randrange(2)))
    to_ns += from_ns == to_ns
    interval = chance.choice(("1m", "5m", "1h", "1d"))
    interval_s = dict(zip(("1m", "5m", "1h", "1d"), INTERVALS_S, strict=True))[interval]
    found = export(folder, what, "--from", from_ns, "--to", to_ns, "--interval", interval)
    expected = expected_rows(log, what, from_ns, to_ns, interval_s)
    if what == "orders":
        first = min(event["seq"] for batch in log for event in batch.dicts()
                    if event["time_ns"] >= from_ns)
        expected = without_client_ids(expected, log, first)
    assert read_parquet(found, what) == expected


@pytest.mark.parametrize("what", ["trades", "orders", "candles"])
def test_without_a_span_it_is_the_whole_log(traded, what):
    folder, log = traded
    path = export(folder, what)
    assert read_parquet(path, what) == expected_rows(log, what, 0, 2**63)
    assert len(read_parquet(path, what)) > 50


def test_one_symbol_of_a_csv_with_exact_decimals(traded):
    folder, log = traded
    symbol = INSTRUMENTS[1]
    path = export(folder, "trades", "--format", "csv", "--symbol", symbol)
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    expected = [row for row in model_of(log).tables["trades"].values() if row["symbol"] == symbol]
    assert [int(row["seq"]) for row in found] == [row["seq"] for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        assert Decimal(row["price"]) == Decimal(wanted["price_units"]).scaleb(-4)
        assert row["price"].partition(".")[2] == row["price"][-4:]
        assert row["quantity"] == str(wanted["quantity_lots"])
        assert row["taker_side"] == wanted["taker_side"]
        moment = datetime.fromtimestamp(wanted["time_ns"] // 10**9, UTC)
        fraction = wanted["time_ns"] % 10**9
        assert row["time"] == f"{moment:%Y-%m-%d %H:%M:%S}.{fraction:09}Z"


def write_log(folder: Path, batches: list[tuple[CommandBatch, int]]) -> list[EventBatch]:
    """A closed log of these commands, each at its time."""
    async def run() -> list[EventBatch]:
        venue = MarketVenue(folder)
        venue.flow.rng.seed(0)
        await venue.start()
        for commands, time_ns in batches:
            events = EventBatch()
            venue.matcher.apply(commands, events, time_ns)
            venue.log.append(events)
            venue._source.put_nowait(events)
        await venue.settle()
        await venue.close()
        return venue.log

    return asyncio.run(run())


def trade(instrument_id: int, number: int) -> CommandBatch:
    """One lot at 12345 units."""
    commands = CommandBatch()
    commands.enter(1, number, instrument_id, "S", 1, 12_300)
    commands.enter(2, number, instrument_id, "B", 1, 12_300)
    return commands


def test_decimals_are_those_of_the_moment(tmp_path, monkeypatch):
    """An instrument's decimals and lot may change while nothing rests in it."""
    monkeypatch.setattr(export_log, "CHUNK_ROWS", 3)
    changed = CommandBatch()
    changed.define_instrument(1, INSTRUMENTS[1], INSTRUMENTS[1], 2, 100, 3, lot_size=25)
    numbers = iter(range(1, 100))
    batches = [(trade(1, next(numbers)), START_NS + index) for index in range(8)]
    batches.append((changed, START_NS + 10))
    batches += [(trade(1, next(numbers)), START_NS + 20 + index) for index in range(8)]
    write_log(tmp_path, batches)
    old, new = (Decimal("1.2300"), Decimal(1)), (Decimal("123"), Decimal("0.025"))
    for what, times in (("trades", 1), ("orders", 2)):
        path = export(tmp_path, what)
        rows = pq.read_table(path).select(["price", "quantity"]).to_pydict()
        assert list(zip(*rows.values(), strict=True)) == [old] * 8 * times + [new] * 8 * times
        late = export(tmp_path, what, "--from", START_NS + 15)
        rows = pq.read_table(late).select(["price", "quantity"]).to_pydict()
        assert list(zip(*rows.values(), strict=True)) == [new] * 8 * times


def test_decimals_of_more_than_18_digits_make_wider_columns(tmp_path):
    """Narrow ones read faster; the file is made again when they don't do."""
    large = CommandBatch()
    large.define_instrument(1, INSTRUMENTS[1], INSTRUMENTS[1], 2, 100, 12, lot_size=10**13)
    write_log(tmp_path, [(large, START_NS), (trade(1, 1), START_NS + 1)])
    path = export(tmp_path, "trades")
    assert pq.read_table(path).column("quantity").to_pylist() == [Decimal(10)]
    assert pq.read_schema(path).field("quantity").type.precision == 18
    many = CommandBatch()
    for account_id, side in ((1, "S"), (2, "B")):
        many.enter(account_id, 9, 1, side, 10**6, 12_300)
    folder = tmp_path / "many"
    write_log(folder, [(large, START_NS), (many, START_NS + 1)])
    path = export(folder, "trades")
    assert pq.read_table(path).column("quantity").to_pylist() == [Decimal(10**7)]
    assert pq.read_schema(path).field("quantity").type.precision == 38


def test_duckdb_reads_it_with_its_types(traded):
    folder, log = traded
    path = export(folder, "candles", "--interval", "1h")
    found = duckdb.sql(f"""SELECT symbol, count(*), max(high), sum(volume), min(epoch_ns(open_time))
        FROM read_parquet('{path}') GROUP BY symbol ORDER BY symbol""").fetchall()
    model = [row for row in model_of(log).tables["candles"].values() if row["interval_s"] == 3600]
    for symbol, count, high, volume, first in found:
        rows = [row for row in model if row["symbol"] == symbol]
        assert count == len(rows)
        assert high == Decimal(max(row["high_units"] for row in rows)).scaleb(-4)
        assert volume == sum(row["volume_lots"] for row in rows)
        assert first == min(row["open_time_ns"] for row in rows)
    assert {row[0] for row in found} == {row["symbol"] for row in model}


def test_the_file_says_where_it_is_from(traded, capsys):
    folder, log = traded
    path = export(folder, "trades", "--from", START_NS)
    said = json.loads(capsys.readouterr().out)
    assert said["rows"] == pq.read_metadata(path).num_rows
    assert said["last_seq"] == log[-1].first_seq + log[-1].event_count - 1
    about = pq.read_schema(path).metadata
    assert about[b"matchd.table"] == b"trades"
    assert about[b"matchd.log_id"].decode() == said["log_id"]
    assert about[b"matchd.from_ns"] == str(START_NS).encode()


def test_an_older_file_stays_until_the_new_one_is_whole(traded, monkeypatch):
    folder, _ = traded
    path = folder / "out"
    path.write_text("older")

    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(ExportFile, "write", fail)
    assert cli.run(["export", "trades", "--data-dir", str(folder), "--output", str(path)]) == 1
    assert path.read_text() == "older"
    assert not list(folder.glob(".out*"))


@pytest.mark.parametrize(("arguments", "said"), [
    (["--from", "yesterday"], "is no time"), (["--to", "1969-12-31"], "before 1970"),
    (["--from", "2026-11-22", "--to", "2026-11-21"], "--to is not after --from"),
    (["--to", "0"], "--to is not after --from"), (["--from", "2026-13-01"], "is no time"),
    (["--from", str(2**63)], "times end in 2262"), (["--to", "9999-01-01"], "times end in 2262"),
    (["--output", "/nope/x"], "--output: there is no folder /nope"),
    (["--symbol", "NONE"], "it has ")])
def test_what_cannot_be_meant_is_refused(traded, capsys, arguments, said):
    folder, _ = traded
    assert cli.run(["export", "trades", "--data-dir", str(folder), "--output",
                    str(folder / "none"), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (folder / "none").exists()


def test_a_span_without_events_gives_an_empty_file(traded):
    folder, _ = traded
    path = export(folder, "trades", "--from", "2100-01-01T00:00:00Z")
    assert read_parquet(path, "trades") == []
    assert pq.read_schema(path).field("price").type.scale == 4


@pytest.mark.parametrize("span", [("--from", "2100-01-01T00:00:00Z"), ("--to", "1"),
                                  ("--from", str(START_NS + 10**8),
                                   "--to", str(START_NS + 2 * 10**8))])
def test_a_span_without_events_says_so(traded, capsys, span):
    folder, _ = traded
    for what in ("trades", "orders", "candles"):
        path = folder / f"nothing.{what}"
        asked = ["export", what, "--data-dir", str(folder), "--output", str(path), *span]
        assert cli.run(asked) == 0
        said = capsys.readouterr().out
        assert said == f"{path}: 0 {what}, the journal has no events in that time\n"
        assert cli.run([*asked, "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["rows"], said["first_seq"], said["last_seq"]) == (0, 0, 0)


def test_nanoseconds_begin_at_0(traded):
    folder, log = traded
    wanted = expected_rows(log, "trades", 0, 2**63)
    for text in ("0", "1", "123456789", str(START_NS - 1), "20260101", "19700101"):
        path = export(folder, "trades", "--from", text)
        assert (read_parquet(path, "trades") == wanted) == (text != "20260101")


def test_a_file_that_cannot_be_written_is_named(traded, tmp_path, capsys):
    folder, _ = traded
    taken = tmp_path / "taken"
    taken.mkdir()
    with pytest.raises(EngineError, match="taken can't be written: Is a directory"), \
            ExportFile(taken, "csv", "trades", []):
        pass
    assert list(tmp_path.iterdir()) == [taken] and not list(taken.iterdir())
    long = tmp_path / ("x" * 250)
    assert cli.run(["export", "trades", "--data-dir", str(folder), "--output", str(long)]) == 1
    assert capsys.readouterr().err == f"matchd: {long} can't be written: File name too long\n"


def test_times_are_understood_in_several_forms(traded):
    folder, log = traded
    moment = datetime.fromtimestamp(START_NS // 10**9 + 86_400, UTC)
    wanted = expected_rows(log, "trades", START_NS + 86_400 * 10**9, 2**63)
    for text in (moment.isoformat(), f"{moment:%Y-%m-%dT%H:%M:%S}", f"{moment:%Y%m%dT%H%M%SZ}",
                 f"{moment:%Y-%m-%d %H:%M:%S}+00:00", START_NS + 86_400 * 10**9):
        path = export(folder, "trades", "--from", text)
        assert read_parquet(path, "trades") == wanted


def test_beside_a_venue_that_trades(tmp_path):
    """What was acknowledged is in the file, and every file is whole."""
    daemon = Daemon(tmp_path).start()
    call = Caller(daemon.api_port)
    try:
        for number in range(60):
            answer = call("POST", "/v1/orders", {
                "symbol": "BTC-USDT", "side": "buy" if number % 2 else "sell",
                "quantity": "0.1", "price": "60000", "client_order_id": f"n{number}"})
            assert answer.status == 201, answer.body
            if number % 20 == 19:
                path = tmp_path / f"{number}.parquet"
                done = daemon.run("export", "trades", "--output", str(path))
                assert done.returncode == 0, done.stderr
                assert pq.read_metadata(path).num_rows == (number + 1) // 2
    finally:
        call.close()
        daemon.kill()


def test_a_log_whose_beginning_is_gone(traded, tmp_path):
    """Names come from a snapshot then."""
    folder, log = traded
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    storage = FileStorage(tmp_path)
    # As journal.retain_segments lets go of them: what a snapshot needs stays.
    for seq in snapshot_seqs(storage)[2:]:
        storage.unlink(snapshot_name(seq))
    needed = oldest_segment_needed(storage)
    for number in segment_numbers(storage):
        if number < needed:
            storage.unlink(segment_name(number))
    first = first_header(storage).first_seq
    assert first > 100
    found = read_parquet(export(tmp_path, "trades"), "trades")
    assert found == [row for row in model_of(log).rows("trades") if row[1] >= first]
    middle = log[-1].dicts()[0]["time_ns"] - 10**12
    found = read_parquet(export(tmp_path, "trades", "--from", middle), "trades")
    assert found == expected_rows(log, "trades", middle, 2**63)


def test_this_log_meets_everything(traded):
    _, log = traded
    model = model_of(log)
    assert {row["status"] for row in model.tables["orders"].values()} >= {
        "open", "partially_filled", "filled", "canceled"}
    assert len({row["symbol"] for row in model.tables["trades"].values()}) > 1
