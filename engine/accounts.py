"""Who trades: `accounts.toml`, password hashes and limits.

Passwords are kept as scrypt hashes. SoupBinTCP says that user names and passwords do not
distinguish case, so both are folded to upper case first.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from engine.tables import Problems, check_table, check_unique, read_rows, show

DEMO_PASSWORD = "demo"  # noqa: S105 - it is meant to be known
# A login packet has ten bytes for the password.
PASSWORD_LENGTH_MAX = 10
# 2**14 rounds of scrypt take 16 MiB and some 30 ms: nothing for a login, much for a guesser.
COST_LOG2 = 14
_HASH = re.compile(r"scrypt\$([0-9]{1,7})\$([0-9]{1,2})\$([0-9]{1,2})\$([A-Za-z0-9+/=]{8,})"
                   r"\$([A-Za-z0-9+/=]{8,})")
_NAME = re.compile(r"CN=.{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

ROLES = {"trader": 0, "read-only": 1, "admin": 2}

Limit = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Limit32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]


class Certificate(NamedTuple):
    """What TLS has verified of a client: its common name, and the SHA-256 of all of it."""

    common_name: str
    sha256: str

    def is_called(self, name: str) -> bool:
        """Whether accounts.toml means this one by `name`: "CN=..." or a fingerprint."""
        if name.startswith("CN="):
            return bool(self.common_name) and name[3:] == self.common_name
        return hmac.compare_digest(_fingerprint(name), self.sha256)


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[account]]`. Limits of 0 are off."""

    id: Annotated[int, Meta(ge=1, le=2**32 - 1)]
    username: Annotated[str, Meta(pattern=r"^[A-Z0-9]{1,6}$",
                                  description="1 to 6 of A-Z 0-9")]
    password_hash: str
    firm: Annotated[str, Meta(pattern=r"^[A-Z]{0,4}$", description="up to 4 of A-Z")] = ""
    role: Literal["trader", "read-only", "admin"] = "trader"
    quantity_max_lots: Limit = 0
    notional_max: Limit = 0
    open_orders_max: Limit32 = 0
    collar_bps: Limit32 = 0
    messages_per_second: Limit32 = 0
    addresses: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()

    def admits_host(self, host: str) -> bool:
        """Whether somebody at this IP address may act for the account."""
        return not self.addresses or _within(host, self.addresses)

    def admits(self, host: str, certificate: Certificate | None = None) -> bool:
        """The same for a login to order entry, with this certificate of TLS. An account that
        names no certificates asks for none."""
        return self.admits_host(host) and (not self.certificates or (
            certificate is not None and any(map(certificate.is_called, self.certificates))))

    @property
    def role_code(self) -> int:
        """The role as the event log writes it."""
        return ROLES[self.role]


def load(path: Path, problems: Problems | None = None) -> list[Account]:
    """The accounts of a file, by id. Mistakes are noted in `problems`; without one they are
    raised together as ConfigError."""
    found = Problems() if problems is None else problems
    rows = read_rows(path, "account", found)
    accounts = [check_table(Account, row, path, where, found) for where, row in rows]
    for account, (where, _) in zip(accounts, rows, strict=True):
        if account is not None and _parse_hash(account.password_hash) is None:
            # It may be the password itself: it is not shown.
            found.note(path, f"{where}.password_hash", "what `matchd hash-password` prints",
                       "another text")
        if account is not None:
            _check_admission(account, path, where, found)
    for key in ("id", "username"):
        check_unique(rows, key, path, found)
    if problems is None:
        found.raise_all()
    return sorted((one for one in accounts if one is not None), key=lambda one: one.id)


def _check_admission(account: Account, path: Path, where: str, found: Problems) -> None:
    for text in account.addresses:
        if _network(text) is None:
            found.note(path, f"{where}.addresses", 'IP addresses and networks, like "10.0.0.0/8"',
                       show(text))
    for text in account.certificates:
        if _NAME.fullmatch(text) is None and _SHA256.fullmatch(_fingerprint(text)) is None:
            found.note(path, f"{where}.certificates", '"CN=name" or a SHA-256 fingerprint',
                       show(text))


class AccountTable:
    """The accounts in force, by name and by id. Who needs them keeps this table, and sees what a
    reload changes."""

    def __init__(self, accounts: Iterable[Account]) -> None:
        self.by_name: dict[str, Account] = {}
        self.by_id: dict[int, Account] = {}
        self.replace(accounts)

    @staticmethod
    def of(accounts: Iterable[Account]) -> AccountTable:
        """The table itself, or one of these accounts."""
        return accounts if isinstance(accounts, AccountTable) else AccountTable(accounts)

    def __iter__(self) -> Iterator[Account]:
        return iter(list(self.by_id.values()))

    def replace(self, accounts: Iterable[Account]) -> None:
        """Have these accounts in force, and no others."""
        self.by_id.clear()
        self.by_id.update((account.id, account) for account in accounts)
        self.by_name.clear()
        self.by_name.update((account.username, account) for account in self.by_id.values())


def fold_username(username: str) -> str:
    """A user name as accounts.toml writes it: no padding, upper case."""
    return username.strip(" \0").upper()


def hash_password(password: str, cost_log2: int = COST_LOG2) -> str:
    """A hash for accounts.toml: `scrypt$N$r$p$salt$key`. Raises ValueError for a password that a
    login packet can't carry."""
    folded = _fold(password)
    if not 1 <= len(folded) <= PASSWORD_LENGTH_MAX or not folded.isascii():
        raise ValueError(f"a password has 1 to {PASSWORD_LENGTH_MAX} ASCII characters")
    if not folded.isprintable() or " " in folded:
        raise ValueError("a password has no spaces and no control characters")
    salt = secrets.token_bytes(16)
    key = _scrypt(folded, salt, 1 << cost_log2, 8, 1)
    return f"scrypt${1 << cost_log2}$8$1${_text(salt)}${_text(key)}"


def unknown_hash() -> str:
    """A hash that no password has, as slow to check as any other."""
    salt, key = secrets.token_bytes(16), secrets.token_bytes(32)
    return f"scrypt${1 << COST_LOG2}$8$1${_text(salt)}${_text(key)}"


def verify_password(password_hash: str, password: str) -> bool:
    """Whether `password` is the one that was hashed. Takes tens of ms on purpose: call it in a
    thread. Raises ValueError for a hash that is none."""
    parsed = _parse_hash(password_hash)
    if parsed is None:
        raise ValueError("not a password hash")
    cost, block, parallel, salt, key = parsed
    return hmac.compare_digest(_scrypt(_fold(password), salt, cost, block, parallel), key)


def demo_accounts(accounts: Iterable[Account]) -> list[Account]:
    """The accounts that still have the demo password. As slow as one login for each."""
    return [one for one in accounts if verify_password(one.password_hash, DEMO_PASSWORD)]


@lru_cache(4_096)
def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


@lru_cache(4_096)
def _within(host: str, networks: tuple[str, ...]) -> bool:
    """Whether an IP address is in one of these. One of IPv4 in IPv6's clothes counts as IPv4."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any(network is not None and (mapped or address) in network
               for network in map(_network, networks))


def _fingerprint(text: str) -> str:
    return text.replace(":", "").lower()


def _fold(password: str) -> str:
    return password.strip(" \0").upper()


def _parse_hash(text: str) -> tuple[int, int, int, bytes, bytes] | None:
    """Cost, block size, parallelism, salt and key of a hash; None when it is none."""
    match = _HASH.fullmatch(text)
    if match is None:
        return None
    cost, block, parallel = int(match[1]), int(match[2]), int(match[3])
    if cost < 2 or cost & (cost - 1) or cost > 2**20 or not 1 <= block <= 8 or parallel != 1:
        return None
    try:
        return (cost, block, parallel, base64.b64decode(match[4], validate=True),
                base64.b64decode(match[5], validate=True))
    except binascii.Error:
        return None


def _scrypt(folded: str, salt: bytes, cost: int, block: int, parallel: int) -> bytes:
    memory_bytes = 128 * block * (cost + parallel + 2)
    return hashlib.scrypt(folded.encode("utf-8"), salt=salt, n=cost, r=block, p=parallel,
                          maxmem=memory_bytes + 2**20, dklen=32)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
