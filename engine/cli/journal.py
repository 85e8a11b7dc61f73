"""`matchd journal`: looks at the event log, checks it, cuts it."""

from pathlib import Path

import click

from engine import config
from engine.cli import options, output


@click.group()
def journal() -> None:
    """Look at the event log, check it, cut it.

    \b
    Example: matchd journal verify --data-dir /var/lib/matchd
    """


@journal.command()
@click.option("--from", "from_seq", type=click.IntRange(1), metavar="SEQ",
              help="Begin with this event, in place of the oldest.")
@click.option("--to", "to_seq", type=click.IntRange(1), metavar="SEQ",
              help="End with this event, in place of the newest.")
@options.files
@options.as_json
def dump(from_seq: int | None, to_seq: int | None, config_path: Path | None,
         data_dir: Path | None, as_json: bool) -> None:
    """Print the events, one JSON object per line (with and without --json).

    Reads only, so the venue may be running.

    \b
    Example: matchd journal dump --from 1000 --to 1100
    """
    where = _data_dir(config_path, data_dir)
    from engine.journal.dump import dump_lines

    for line in dump_lines(where, from_seq, to_seq):
        output.say(line)


@journal.command()
@options.files
@options.as_json
def verify(config_path: Path | None, data_dir: Path | None, as_json: bool) -> int:
    """Check every block, and run the commands of the log through a fresh matcher.

    The events must come out the same, byte for byte, and the snapshots must be the states that the
    log gives. Reads only, so the venue may be running. Exits with 4 when something is damaged, with
    3 when the log was written by other rules of matching.

    \b
    Example: matchd journal verify
    """
    where = _data_dir(config_path, data_dir)
    from engine.journal.verify import verify as check

    with output.Progress("verifying") as progress:
        report = check(where, progress.at)
    verdict = {0: "good", 3: "blocks good, events not comparable"}.get(report.exit_code, "damaged")
    lines = [f"{verdict}: seq {report.first_seq} to {report.last_seq}, {report.events} events in "
             f"{report.blocks} blocks ({report.bytes} bytes), {report.compared} events compared, "
             f"{report.snapshots} snapshots",
             f"state {report.state_hash}"]
    lines += [f"problem: {problem}" for problem in report.problems]
    lines += [f"note: {note}" for note in report.notes]
    output.answer({"verdict": verdict, **report._asdict()}, "\n".join(lines), as_json)
    return report.exit_code


@journal.command()
@options.files
@options.as_json
def stats(config_path: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Show what is in the log: events by kind, blocks, bytes, segments, snapshots.

    Reads only, so the venue may be running.

    \b
    Example: matchd journal stats --json
    """
    where = _data_dir(config_path, data_dir)
    from engine.journal.stats import stats as count

    with output.Progress("counting") as progress:
        found = count(where, progress.at)
    names = ("log_id", "incarnation", "first_seq", "last_seq", "events", "blocks", "bytes",
             "bytes_per_event")
    fields = found._asdict()
    lines = [f"{name} {fields[name]}" for name in names]
    lines += [f"  {kind} {events}" for kind, events in found.events_by_kind.items()]
    lines += [f"{one.file}: from seq {one.first_seq}, {one.events} events, {one.used_bytes} of "
              f"{one.size_bytes} bytes" for one in found.segments]
    lines += [f"snapshot at seq {seq}" for seq in found.snapshot_seqs]
    lines += [f"note: {note}" for note in found.notes]
    fields["segments"] = [one._asdict() for one in found.segments]
    output.answer(fields, "\n".join(lines), as_json)


@journal.command()
@click.option("--seq", type=click.IntRange(1), metavar="SEQ",
              help="Cut before the block that holds this event.")
@click.option("--file", metavar="SEGMENT", help="Cut in this segment ...")
@click.option("--offset", type=click.IntRange(0), metavar="BYTES",
              help="... before the block at this byte.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@options.files
@options.as_json
def repair(seq: int | None, file: str | None, offset: int | None, yes: bool,
           config_path: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Cut a damaged log: what stands before the place you name stays, the rest is put aside.

    What is cut was acknowledged to somebody, so it is your decision; it is kept in a folder of the
    data directory. The venue must not be running.

    \b
    Example: matchd journal repair --seq 120034
             matchd journal repair --file 00000002.log --offset 81920 --yes
    """
    if (seq is None) == (file is None or offset is None):
        raise click.UsageError("name the place: --seq, or --file and --offset")
    where = _data_dir(config_path, data_dir)
    place = f"seq {seq}" if seq is not None else f"byte {offset} of {file}"
    if not yes:
        click.confirm(f"Cut the log in {where} before {place}?", abort=True, err=True)
    from engine.journal.repair import repair as cut

    report = cut(where, seq=seq, file=file, offset=offset)
    output.answer(report._asdict(),
                  f"the log ends at seq {report.last_seq} now ({report.file}, byte "
                  f"{report.offset}), incarnation {report.incarnation}; what was cut is in "
                  f"{report.kept_in}", as_json)


def _data_dir(config_path: Path | None, data_dir: Path | None) -> Path:
    loaded, _ = config.load(config_path, data_dir=data_dir)
    return loaded.data_dir
