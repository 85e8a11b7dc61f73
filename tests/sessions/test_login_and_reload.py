"""The table of accounts is read again while a password is being checked."""

from __future__ import annotations

import msgspec
import pytest

from cython_core.soupbin import build_login
from engine.accounts import Account
from engine.intake.session import State
from tests.sessions.test_session_fuzz import ACCOUNT, NOW_NS, feed, new_session


@pytest.mark.parametrize(("after", "answer"), [
    ([ACCOUNT], b"A"),
    ([msgspec.structs.replace(ACCOUNT, messages_per_second=5)], b"A"),
    ([], b"J"),
    ([msgspec.structs.replace(ACCOUNT, role="read-only")], b"J"),
    ([msgspec.structs.replace(ACCOUNT, password_hash="another")], b"J"),
    ([msgspec.structs.replace(ACCOUNT, id=9)], b"J"),
])
def test_a_login_that_is_checked_meanwhile(after: list[Account], answer: bytes) -> None:
    session, shell = new_session()
    feed(session, build_login(ACCOUNT.username, "demo"), [])
    assert shell.asked == [(ACCOUNT, "demo")]
    session._registry.replace(after)
    session.password_checked(ACCOUNT, NOW_NS)
    assert shell.written[2:3] == answer
    assert (session.state is State.OPEN) == (answer == b"A")
