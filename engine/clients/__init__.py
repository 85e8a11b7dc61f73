"""Users of the wire: the Python clients of order entry and feed, and the replay of recorded days.

They import no stage of the engine; what they know of the venue comes over TCP.
"""

from engine.clients.errors import (
    AnswerTimeoutError,
    BookMismatchError,
    ClientError,
    ConnectionLostError,
    FeedGapError,
    FeedRefusedError,
    LoginRejectedError,
    RequestIgnoredError,
    ResumeError,
    SessionOverError,
    TooManyInFlightError,
)
from engine.clients.executions import (
    Accepted,
    AccountQueried,
    AiqCanceled,
    BrokenTrade,
    Canceled,
    CancelPending,
    CancelRejected,
    EntryDisabled,
    EntryEnabled,
    Executed,
    Execution,
    MassCanceled,
    Modified,
    PriorityUpdated,
    Rejected,
    Replaced,
    Restated,
    SessionEnded,
    SystemEvent,
)
from engine.clients.feed import FeedClient
from engine.clients.local_book import LocalBook, LocalOrders
from engine.clients.order_entry import OrderEntryClient
from engine.clients.pending import Answer
from engine.clients.terms import Side, TimeInForce

__all__ = [
    "Accepted",
    "AccountQueried",
    "AiqCanceled",
    "Answer",
    "AnswerTimeoutError",
    "BookMismatchError",
    "BrokenTrade",
    "CancelPending",
    "CancelRejected",
    "Canceled",
    "ClientError",
    "ConnectionLostError",
    "EntryDisabled",
    "EntryEnabled",
    "Executed",
    "Execution",
    "FeedClient",
    "FeedGapError",
    "FeedRefusedError",
    "LocalBook",
    "LocalOrders",
    "LoginRejectedError",
    "MassCanceled",
    "Modified",
    "OrderEntryClient",
    "PriorityUpdated",
    "Rejected",
    "Replaced",
    "RequestIgnoredError",
    "Restated",
    "ResumeError",
    "SessionEnded",
    "SessionOverError",
    "Side",
    "SystemEvent",
    "TimeInForce",
    "TooManyInFlightError",
]
