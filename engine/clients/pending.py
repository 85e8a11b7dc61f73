"""Requests that wait for their answers.

The venue answers in the order of asking, but not everything: a cancel of an order that is gone,
or a message that it has seen before, is ignored without a word. So the client sends a fence behind
such requests, an account query, which is always answered: what was asked before the fence and is
not answered when the fence is, never will be.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Generic, TypeVar

from engine.clients.executions import Execution

Value = TypeVar("Value")
Kinds = tuple[type[Execution], ...]


class Answer(Generic[Value]):
    """What a request will be answered; await it. `user_ref_num` is the request's number.

    Awaiting raises AnswerTimeoutError, SessionOverError, ConnectionLostError or
    RequestIgnoredError; the request may have been carried out all the same.
    """

    __slots__ = ("_future", "user_ref_num")

    def __init__(self, user_ref_num: int) -> None:
        self.user_ref_num = user_ref_num
        self._future: asyncio.Future[Value] = asyncio.get_running_loop().create_future()
        # An answer that nobody waits for is no fault worth a line in the log.
        self._future.add_done_callback(_retrieve)

    def __await__(self) -> Generator[Any, None, Value]:
        # Shielded: who stops waiting does not take the answer away from others.
        return asyncio.shield(self._future).__await__()

    def done(self) -> bool:
        """Whether it is there."""
        return self._future.done()

    def give(self, value: Value) -> None:
        """Called by the client."""
        if not self._future.done():
            self._future.set_result(value)

    def fail(self, error: Exception) -> None:
        """Called by the client."""
        if not self._future.done():
            self._future.set_exception(error)


def _retrieve(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()


class Request:
    """One message on its way, and what would answer it: message types by UserRefNum."""

    __slots__ = ("answer", "answered_by", "at_fence", "deadline", "fenced", "ignored", "names",
                 "number", "packet", "said", "takes")

    def __init__(self, number: int, packet: bytes, answered_by: Mapping[int, Kinds],
                 answer: Answer[Any], deadline: float, ignored: Callable[[], Any], *,
                 takes: int = 0, names: int = 0, fenced: bool = True) -> None:
        self.number = number
        self.packet = packet
        self.answered_by = answered_by
        self.answer = answer
        self.deadline = deadline
        # What it means that the venue said nothing: a value, or an exception to raise.
        self.ignored = ignored
        # The UserRefNum that it uses up, and the order that it is about; 0 for none.
        self.takes = takes
        self.names = names
        # Whether the venue may ignore it, so that it needs a fence behind it.
        self.fenced = fenced
        # Whether it is answered by what was said last before its fence, not by what is said first.
        self.at_fence = False
        self.said: Execution | None = None

    @property
    def kind(self) -> bytes:
        """The letter of the OUCH message."""
        return self.packet[3:4]


class Pending:
    """The unanswered requests, in the order of asking."""

    def __init__(self, on_removed: Callable[[Request], None]) -> None:
        """`on_removed` is told of each request that waits no more."""
        self._requests: OrderedDict[int, Request] = OrderedDict()
        self._by_ref: dict[int, list[Request]] = {}
        self._on_removed = on_removed

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self._requests.values()))

    def add(self, request: Request) -> None:
        self._requests[request.number] = request
        for user_ref_num in request.answered_by:
            self._by_ref.setdefault(user_ref_num, []).append(request)

    def remove(self, request: Request) -> None:
        del self._requests[request.number]
        for user_ref_num in request.answered_by:
            waiting = self._by_ref[user_ref_num]
            waiting.remove(request)
            if not waiting:
                del self._by_ref[user_ref_num]
        self._on_removed(request)

    def resolve(self, message: Execution, user_ref_num: int) -> None:
        """Give the message to the first request that it answers, if there is one."""
        for request in self._by_ref.get(user_ref_num, ()):
            if isinstance(message, request.answered_by[user_ref_num]):
                if request.at_fence:
                    request.said = message
                    return
                self.remove(request)
                request.answer.give(message)
                return

    def resolve_fenced(self, request: Request) -> None:
        """A fence behind the request was answered: it was ignored, or its answer is the last
        that was said."""
        self.remove(request)
        outcome = request.said or request.ignored()
        if isinstance(outcome, Exception):
            request.answer.fail(outcome)
        else:
            request.answer.give(outcome)

    def resolve_before(self, number: int) -> None:
        """A fence was answered: requests before it that still wait were ignored."""
        while self._requests:
            request = next(iter(self._requests.values()))
            if request.number >= number:
                return
            self.resolve_fenced(request)

    def expire(self, now: float, error: Callable[[], Exception]) -> None:
        """Fail the requests whose time is over; deadlines ascend with the order of asking."""
        while self._requests:
            request = next(iter(self._requests.values()))
            if request.deadline > now:
                return
            self.remove(request)
            request.answer.fail(error())

    def fail_all(self, error: Exception) -> None:
        for request in self:
            self.remove(request)
            request.answer.fail(error)
