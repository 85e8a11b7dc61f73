"""The client's side of a SoupBinTCP session over one connection, without a socket.

Bytes go in, sequenced messages come out with their numbers; a number is never on the wire, so the
session counts (PROTOCOLS section 1.3).
"""

from typing import NamedTuple

from cython_core import soupbin
from engine.clients.errors import LoginRejectedError
from engine.errors import ProtocolError

_REASONS = {
    "A": ("the venue does not know this user name or password",
          "see accounts.toml; the demo accounts have the password demo"),
    "S": ("the venue does not have the requested session or sequence number",
          "log in to the blank session, with sequence 0 for new messages only; if that was "
          "refused, the account is logged in elsewhere (order_entry.second_login), or the venue is "
          "full"),
}


def login_refused(payload: bytes) -> LoginRejectedError:
    """What a `J` packet says. Raises soupbin.WireError when it is none."""
    reason = soupbin.parse_login_rejected(payload)
    return LoginRejectedError(*_REASONS[reason], reason)


class Sequenced(NamedTuple):
    """One sequenced message and its number in the session."""

    number: int
    payload: bytes


class SoupSession:
    """Counts the messages of one session. `session` and the sequence numbers are valid
    once `logged_in`; `ended` says that the venue sent End of Session, `fault` why it can't go on
    (a LoginRejectedError or a ProtocolError)."""

    def __init__(self) -> None:
        self.session = ""
        self.first_sequence = 0
        self.next_sequence = 0
        self.logged_in = False
        self.ended = False
        self.fault: LoginRejectedError | ProtocolError | None = None
        self._reader = soupbin.PacketReader("server")

    def feed(self, data: bytes) -> list[Sequenced]:
        """The sequenced messages that `data` completes, those before a fault too."""
        messages: list[Sequenced] = []
        if self.fault is not None:
            return messages
        try:
            for kind, payload in self._reader.feed(data):
                if kind == "S" and self.logged_in:
                    messages.append(Sequenced(self.next_sequence, payload))
                    self.next_sequence += 1
                else:
                    self._control(kind, payload)
        except soupbin.WireError as error:
            self.fault = ProtocolError(f"the venue's bytes are not SoupBinTCP: {error}")
        except (LoginRejectedError, ProtocolError) as error:
            self.fault = error
        return messages

    def _control(self, kind: str, payload: bytes) -> None:
        if kind == "A" and not self.logged_in:
            self.session, self.first_sequence = soupbin.parse_login_accepted(payload)
            self.next_sequence = self.first_sequence
            self.logged_in = True
        elif kind == "J" and not self.logged_in:
            raise login_refused(payload)
        elif kind == "Z":
            self.ended = True
        elif kind not in "H+U":
            raise ProtocolError(f"the venue sent a packet of type {kind!r} out of place")
