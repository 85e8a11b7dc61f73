"""What a user of the wire may meet. A rejected order is none of these: it is an answer."""

from engine.errors import EngineError


class ClientError(EngineError):
    """The base of what a client of the venue raises."""


class LoginRejectedError(ClientError):
    """The venue refused the login; `reason` is SoupBinTCP's letter, A or S."""

    def __init__(self, detail: str, hint: str, reason: str) -> None:
        super().__init__(detail, hint)
        self.reason = reason


class ConnectionLostError(ClientError):
    """The venue can't be reached, and the time to try again is over."""


class SessionOverError(ClientError):
    """The session rolled before this request was answered; whether it was taken is not known
    here: the old session's messages tell, where they came."""


class ResumeError(ClientError):
    """The venue no longer keeps the messages that this client has not seen yet."""


class AnswerTimeoutError(ClientError):
    """No answer came in time. The request may still be carried out."""


class TooManyInFlightError(ClientError):
    """More requests are unanswered than `in_flight_max` allows."""


class RequestIgnoredError(ClientError):
    """The venue took the request for one that it had seen before: its number was used already,
    by another program on the same account."""


class FeedRefusedError(ClientError):
    """The feed refused a request; `code` says why in one word."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, "docs/feed.md lists the codes")
        self.code = code


class FeedGapError(ClientError):
    """A message of the feed is missing before the one that came."""


class BookMismatchError(ClientError):
    """What a subscriber was told does not add up to the venue's book."""
