"""Checks passwords beside the loop: scrypt is slow on purpose.

A few threads and a queue in front of them: a flood of logins costs its senders time and nobody
else. An unknown user takes as long as a wrong password, so names cannot be guessed by the clock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from engine.accounts import Account, unknown_hash, verify_password

# scrypt holds 16 MiB for each check that runs.
THREADS = 2


class PasswordChecker:
    """Runs password checks in its own threads."""

    def __init__(self, threads: int = THREADS) -> None:
        self.turns = Turns(threads)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="password")
        self._nobody = unknown_hash()

    async def check(self, account: Account | None, password: str) -> bool:
        """Whether `password` is the account's; False for no account, after the same time."""
        stored = account.password_hash if account else self._nobody
        loop = asyncio.get_running_loop()
        right = await loop.run_in_executor(self._threads, verify_password, stored, password)
        return right and account is not None

    def close(self) -> None:
        """Let the threads go; checks that wait are dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Turns:
    """So many at once. The others wait in the order they came, but those who are `first` go before
    all who aren't."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._first: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()

    async def take(self, first: bool = False) -> None:
        """Wait for a turn; it is given back with `give`."""
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._first if first else self._others).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # It came in the very moment in which nobody wanted it any more.
                self.give()
            raise

    def give(self) -> None:
        """A turn is over: the next one's begins."""
        for waiting in (self._first, self._others):
            while waiting:
                turn = waiting.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._free += 1
