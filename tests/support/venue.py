"""A venue inside the test's own process and loop, with real sockets and a real journal."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from cython_core.event import CommandBatch
from engine import config, lifecycle
from engine.accounts import hash_password
from engine.app import App
from engine.stopping import Stop

# Hashes for tests are cheap: a login takes no time.
_COST_LOG2 = 4

INSTRUMENTS = """
[[instrument]]
id = 1
symbol = "AAPL"
price_decimals = 4
tick = "0.01"
quantity_decimals = 0
lot = "1"

[[instrument]]
id = 2
symbol = "BTC-USDT"
price_decimals = 2
tick = "0.01"
quantity_decimals = 6
lot = "0.000001"
quantity_max = "1000"
"""

USERS = ("MAKER1", "MAKER2", "TAKER1", "TAKER2")


def write_config(folder: Path, instruments: str = INSTRUMENTS,
                 limits: dict[str, dict[str, object]] | None = None) -> Path:
    """Write the three files; `limits` adds keys to accounts by user name. Returns matchd.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "matchd.toml").write_text("")
    (folder / "instruments.toml").write_text(instruments)
    secret = hash_password("demo", _COST_LOG2)
    rows = []
    for number, name in enumerate(USERS, 1):
        more = "".join(f'{key} = "{value}"\n' if isinstance(value, str) else f"{key} = {value}\n"
                       for key, value in (limits or {}).get(name, {}).items())
        rows.append(f'[[account]]\nid = {number}\nusername = "{name}"\n'
                    f'password_hash = "{secret}"\n{more}')
    (folder / "accounts.toml").write_text("\n".join(rows))
    return folder / "matchd.toml"


class Venue:
    """Runs `lifecycle.serve` as a task. Settings are named as for `Daemon`."""

    def __init__(self, folder: Path, limits: dict[str, dict[str, object]] | None = None,
                 instruments: str = INSTRUMENTS, **settings: object) -> None:
        self._path = write_config(folder, instruments, limits)
        small = {"journal__segment_bytes": 2**22, "journal__first_segment_bytes": 2**20,
                 "order_entry__tcp_port": 0, "order_entry__udp_port": 0,
                 "feed__port": 0, "api__port": 0,
                 # Most tests are about something else.
                 "sqlite__enabled": False}
        self._env = {f"MATCHD_{key.upper()}": str(value)
                     for key, value in (small | settings).items()}
        self.data_dir = folder / "data"
        self.port = 0
        self._app: App | None = None
        self._stop = Stop()
        self._task: asyncio.Task[None] | None = None

    @property
    def app(self) -> App:
        """The running app."""
        assert self._app is not None
        return self._app

    @property
    def udp_port(self) -> int:
        """The port of order entry over UDP."""
        return self.app.ports["order_entry_udp"]

    async def start(self) -> Venue:
        """Start, and return when it listens. Raises what the venue raises."""
        settings = config.load_settings(self._path, self._env, self.data_dir)
        ready: asyncio.Future[tuple[App, int]] = asyncio.get_running_loop().create_future()
        self._stop.clear()
        self._task = asyncio.create_task(lifecycle.serve(
            settings, self._stop, lambda app, port: ready.set_result((app, port))))
        await asyncio.wait([self._task, ready], return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            await self._task
        self._app, self.port = ready.result()
        return self

    async def ended(self) -> None:
        """Wait until the venue ends by itself. Raises what it raises."""
        assert self._task is not None
        await asyncio.wait_for(asyncio.shield(self._task), 10)

    async def stop(self) -> None:
        """Stop as SIGTERM does."""
        self._stop.set()
        if self._task is not None:
            await self._task

    async def restart(self) -> Venue:
        """Stop, then start over the same data directory."""
        await self.stop()
        return await self.start()

    def inside(self, fill: Any) -> None:
        """Put commands born inside on the queue: `fill` gets an empty batch."""
        batch = CommandBatch()
        fill(batch)
        self.app.commands.put_inside(batch)
