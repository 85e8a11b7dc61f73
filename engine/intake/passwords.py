"""Checks passwords beside the loop: scrypt is slow on purpose.

A few threads and a queue in front of them: a flood of logins costs its senders time and nobody
else. An unknown user takes as long as a wrong password, so names cannot be guessed by the clock.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from engine.accounts import Account, hash_password, verify_password

# scrypt holds 16 MiB for each check that runs.
THREADS = 2


class PasswordChecker:
    """Runs password checks in its own threads."""

    def __init__(self, threads: int = THREADS) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="password")
        self._nobody = hash_password("nobody")

    async def check(self, account: Account | None, password: str) -> bool:
        """Whether `password` is the account's; False for no account, after the same time."""
        stored = account.password_hash if account else self._nobody
        loop = asyncio.get_running_loop()
        right = await loop.run_in_executor(self._threads, verify_password, stored, password)
        return right and account is not None

    def close(self) -> None:
        """Let the threads go; checks that wait are dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
