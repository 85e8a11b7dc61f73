"""What anybody may be told of an error behind the venue: a few words of ours.

The whole text of a server, a client or the system may name hosts, users, databases and files. It
is for operators: the log, `matchd store status`, and administrators.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator

from engine.errors import JournalError, StoreError
from engine.redis_errors import words_of

# Of PostgreSQL: an error's own code before its class, the first two letters.
_SQLSTATES = {
    "23514": "a partition is missing", "25006": "read-only", "28P01": "wrong password",
    "3F000": "a table is missing", "42501": "no rights", "42703": "a column is missing",
    "42P01": "a table is missing", "53100": "no room on the disk",
    "53300": "too many connections", "57014": "no answer in time",
    "08": "connection lost", "22": "it refuses the data", "23": "it refuses the data",
    "25": "it takes no changes", "28": "login refused", "3D": "unknown database",
    "40": "in conflict with another transaction", "53": "out of resources", "55": "locked",
    "57": "the server stops or starts",
}
_SQLITE = {
    "SQLITE_BUSY": "locked", "SQLITE_CANTOPEN": "the file can't be opened",
    "SQLITE_CORRUPT": "the file is damaged", "SQLITE_FULL": "no room on the disk",
    "SQLITE_IOERR": "the disk fails", "SQLITE_LOCKED": "locked",
    "SQLITE_NOTADB": "the file is no database", "SQLITE_PERM": "no rights",
    "SQLITE_READONLY": "read-only",
}
_SYSTEM = {
    errno.ECONNREFUSED: "connection refused", errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable", errno.ENOSPC: "no room on the disk",
    errno.EDQUOT: "no room on the disk", errno.EROFS: "read-only", errno.EACCES: "no rights",
    errno.EPERM: "no rights", errno.ENOENT: "not there", errno.EIO: "the disk fails",
    errno.EMFILE: "too many open files", errno.ETIMEDOUT: "no answer in time",
}
_CLASSES: tuple[tuple[type[BaseException], str], ...] = (
    (ssl.SSLCertVerificationError, "its certificate is not trusted"), (ssl.SSLError, "TLS failed"),
    (socket.gaierror, "unknown host"), (TimeoutError, "no answer in time"),
    (ConnectionError, "connection lost"), (JournalError, "the log can't be read"),
)
# Errors of clients that are not imported here.
_NAMES = {"TimeoutError": "no answer in time", "ConnectionError": "connection lost",
          "InterfaceError": "connection lost", "MasterNotFoundError": "no master is known",
          "SlaveNotFoundError": "no master is known"}


def brief(error: BaseException) -> str:
    """A few words about an error, without names or texts of others: what it was told to say, else
    what it or the first of its causes is known for."""
    for one in _causes(error):
        found = _words(one)
        if found:
            return found
    return next((_NAMES[name] for one in _causes(error)
                 if (name := type(one).__name__) in _NAMES), "failed")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from, the cause nearest to it first."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _words(error: BaseException) -> str:
    if isinstance(error, StoreError):
        return error.public
    if type(error).__module__.startswith("redis."):
        return words_of(error)
    code = getattr(error, "sqlstate", None) or ""
    if code:
        return _SQLSTATES.get(code) or _SQLSTATES.get(code[:2], "")
    name = getattr(error, "sqlite_errorname", None) or ""
    if name:
        # An extended code begins with the code.
        return _SQLITE.get("_".join(name.split("_")[:2]), "")
    found = next((words for kind, words in _CLASSES[:3] if isinstance(error, kind)), "")
    if not found and isinstance(error, OSError):
        found = _SYSTEM.get(error.errno or 0, "")
    return found or next((words for kind, words in _CLASSES if isinstance(error, kind)), "")
