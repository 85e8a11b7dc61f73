"""What can go wrong, by who is to blame.

A user's mistake in an order is no exception: it is an event with a reject reason. These are for
the rest: a wrong configuration, bytes that are not the protocol, a disk that fails. `detail` says
what happened, `hint` what to do about it; `exit_code` is what the command line returns.
"""

EXIT_OTHER = 1
EXIT_CONFIG = 2
EXIT_NOT_COMPARABLE = 3
EXIT_CORRUPT = 4
EXIT_DISK = 5


class EngineError(Exception):
    """The base of all errors of the venue."""

    exit_code = EXIT_OTHER

    def __init__(self, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.detail} ({self.hint})" if self.hint else self.detail


class ConfigError(EngineError):
    """The configuration is wrong; `problems` has one line for each mistake."""

    exit_code = EXIT_CONFIG

    def __init__(self, detail: str, hint: str = "", problems: tuple[str, ...] = ()) -> None:
        super().__init__(detail, hint)
        self.problems = problems or (str(self),)


class ProtocolError(EngineError):
    """The peer's bytes are not the protocol: its session is closed, nobody else notices."""


class JournalError(EngineError):
    """The journal cannot be written or read as it should."""


class NotKeptError(JournalError):
    """What was asked for is so long ago that it is not kept, or not to be had in bounded time."""


class DiskError(JournalError):
    """A write or a sync failed: nothing more may be acknowledged."""

    exit_code = EXIT_DISK


class CorruptError(JournalError):
    """Bytes that were known to be on disk are damaged: an operator has to decide."""

    exit_code = EXIT_CORRUPT


class NotComparableError(JournalError):
    """The log was written by another version of the matcher's rules."""

    exit_code = EXIT_NOT_COMPARABLE


class StoreError(EngineError):
    """A store behind the venue failed; trading goes on. `public` are a few words that anybody may
    be told, without names of hosts, users or files; empty where the cause gives them."""

    def __init__(self, detail: str, hint: str = "", public: str = "") -> None:
        super().__init__(detail, hint)
        self.public = public
