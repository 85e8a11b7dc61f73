"""`matchd peers`: the other instances of the venue."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine import config
from engine.cli import options, output
from engine.errors import EXIT_OTHER

if TYPE_CHECKING:
    from engine.api.peers import PeerPart


@click.group()
def peers() -> None:
    """The other instances of the venue (peers.urls).

    \b
    Example: matchd peers status
    """


@peers.command()
@click.argument("name", required=False)
@options.files
@options.as_json
def status(name: str | None, config_path: Path | None, data_dir: Path | None,
           as_json: bool) -> int:
    """Ask every peer, or the one with this NAME, for its health. The venue itself need not run.

    Exits with 1 when one of them does not answer, or is not well.

    \b
    Example: matchd peers status
             matchd peers status east --json
    """
    from engine import log

    loaded, _ = config.load(config_path, data_dir=data_dir)
    log.configure("error", loaded.log.format)
    urls = config.peer_urls(loaded.peers)
    if name is not None and name not in urls:
        raise click.UsageError(f"there is no peer {name}; there are {', '.join(urls) or 'none'}")
    parts = asyncio.run(_ask(loaded, name))
    rows = [_row(part, urls[part.peer]) for part in parts]
    head = ("peer", "state", "ms", "url", "error")
    text = output.table(head, [[str(row[column]) for column in head] for row in rows]) \
        if rows else "this venue has no peers: peers.urls is empty"
    output.answer({"peers": rows}, text, as_json)
    return 0 if all(row["state"] == "healthy" for row in rows) else EXIT_OTHER


async def _ask(loaded: config.Config, name: str | None) -> list[PeerPart]:
    from engine.api.peers import PROBE, Peers, speak_tls
    from engine.tls import client_context

    found = Peers(loaded.peers,
                  tls=client_context(loaded.tls, speak_tls(loaded.peers)))
    try:
        return await found.ask(PROBE, [name] if name is not None else ())
    finally:
        await found.close()


def _row(part: PeerPart, url: str) -> dict[str, Any]:
    import msgspec

    body = msgspec.json.decode(part.body) if isinstance(part.body, msgspec.Raw) else None
    state = body.get("status", "?") if isinstance(body, dict) else "?"
    if part.status is None:
        state = "down"
    reasons = body.get("reasons", []) if isinstance(body, dict) else []
    return {"peer": part.peer, "state": state, "ms": part.ms, "url": url,
            "error": part.error or "; ".join(map(str, reasons))}
