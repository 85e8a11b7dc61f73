"""API keys: made and revoked by `matchd key`, checked by the gateway.

Nothing secret is kept per key. Each key's secret (for signatures) and token (for `Authorization:
Bearer`) are derived by HMAC from one master secret and the key's id, so a copy of `keys.json`
alone opens nothing, and losing the master secret ends all keys at once. Both files belong to the
daemon's user alone (mode 0600).
"""

from __future__ import annotations

import fcntl
import hmac
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from engine import clock
from engine.errors import EngineError

KEYS_NAME = "keys.json"
MASTER_NAME = "master.secret"
# Written beside each command into the log, which has 16 bytes for it.
KEY_ID_BYTES = 8
MASTER_BYTES = 32

Role = Literal["read-only", "trader", "admin"]
ROLES: tuple[Role, ...] = ("read-only", "trader", "admin")


class KeyFileError(EngineError):
    """A key or the master secret cannot be used as it is."""


class Key(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One key. Times are nanoseconds since 1970 UTC; 0 is never."""

    id: str
    account: str
    role: Role
    created: int
    note: str = ""
    expires: int = 0
    revoked: int = 0

    def state(self, now_ns: int) -> Literal["valid", "revoked", "expired"]:
        """What the key is good for at this moment."""
        if self.revoked:
            return "revoked"
        return "expired" if self.expires and now_ns >= self.expires else "valid"


class KeyFile:
    """`keys.json` of a data directory, and the master secret beside it or elsewhere."""

    def __init__(self, data_dir: Path, master_file: str = "") -> None:
        self.path = data_dir / KEYS_NAME
        self.master_path = Path(master_file) if master_file else data_dir / MASTER_NAME

    def read(self) -> list[Key]:
        """The keys, oldest first; none without a file. Raises KeyFileError for a broken one."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=list[Key])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.MsgspecError) as error:
            raise KeyFileError(f"{self.path} cannot be read: {error}") from error

    def stamp(self) -> tuple[int, int, int]:
        """Changes whenever the file does."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return (0, 0, 0)
        return (found.st_mtime_ns, found.st_ino, found.st_size)

    def make(self, account: str, role: Role, note: str = "", days: int = 0) -> Key:
        """Add a key that ends after so many days (0: never)."""
        now_ns = clock.now_ns()
        key = Key(secrets.token_hex(KEY_ID_BYTES), account, role, now_ns, note,
                  now_ns + days * clock.NS_PER_DAY if days else 0)
        with self._locked():
            self._write([*self.read(), key])
        return key

    def revoke(self, key_id: str) -> Key:
        """End a key for ever. Raises KeyFileError for one that is unknown."""
        with self._locked():
            keys = self.read()
            for index, key in enumerate(keys):
                if key.id == key_id:
                    if not key.revoked:
                        keys[index] = msgspec.structs.replace(key, revoked=clock.now_ns())
                        self._write(keys)
                    return keys[index]
        raise KeyFileError(f"there is no key {key_id!r}", "`matchd key list` shows those there are")

    def master(self, make: bool = False) -> bytes:
        """The master secret. With `make` it is made when there is none.

        Raises KeyFileError when it is missing, too short, or others may read it.
        """
        if make and not self.master_path.exists():
            _create(self.master_path, secrets.token_hex(MASTER_BYTES).encode() + b"\n")
        try:
            if self.master_path.stat().st_mode & 0o077:
                raise KeyFileError(f"{self.master_path} can be read by others than its owner",
                                f"chmod 600 {self.master_path}")
            text = self.master_path.read_bytes().strip()
        except OSError as error:
            raise KeyFileError(f"the master secret cannot be read: {error}",
                            "without it no key works") from error
        if len(text) < MASTER_BYTES:
            raise KeyFileError(f"{self.master_path} is too short for a master secret",
                            f"at least {MASTER_BYTES} characters")
        return text

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One change at a time, whatever process makes it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _write(self, keys: Iterable[Key]) -> None:
        data = msgspec.json.format(msgspec.json.encode(list(keys)), indent=2) + b"\n"
        temporary = self.path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        _create(temporary, data)
        temporary.replace(self.path)


def secret_of(master: bytes, key_id: str) -> str:
    """What a key's requests are signed with: 64 hex digits, used as text."""
    return _derive(master, "secret", key_id)


def token_of(master: bytes, key_id: str) -> str:
    """What stands after `Bearer`: the key's id, a dot, 64 hex digits."""
    return f"{key_id}.{_derive(master, 'token', key_id)}"


def _derive(master: bytes, purpose: str, key_id: str) -> str:
    return hmac.digest(master, f"matchd {purpose} {key_id}".encode(), "sha256").hex()


def _create(path: Path, data: bytes) -> None:
    """A new file of the owner alone, on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
