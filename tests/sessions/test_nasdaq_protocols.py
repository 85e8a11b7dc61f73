"""An independent client, nasdaq-protocols from PyPI, drives whole sessions."""

import asyncio

import pytest
from nasdaq_protocols import soup

from cython_core.ouch import decode
from tests.support.daemon import Daemon
from tests.support.wire import cancel, enter

FRAME_BYTES = 3


async def connect(daemon: Daemon, user: str = "MAKER1", password: str = "demo",
                  **more: object) -> soup.SoupClientSession:
    return await soup.connect_async(("127.0.0.1", daemon.port), user, password,
                                    client_heartbeat_interval=1, server_heartbeat_interval=2,
                                    **more)


async def messages(session: soup.SoupClientSession, count: int) -> list[dict]:
    found = []
    while len(found) < count:
        packet = await asyncio.wait_for(session.receive_msg(), 10)
        if isinstance(packet, soup.SequencedData):
            found.append(decode("out", packet.data))
    return found


async def test_login_orders_logout_and_replay(daemon: Daemon) -> None:
    session = await connect(daemon)
    for order in (enter(1, "S", 100), enter(2, symbol="NOPE"), enter(3, "B", 40), cancel(1)):
        session.send_unseq_data(order[FRAME_BYTES:])
    live = await messages(session, 6)
    assert "".join(one["type"] for one in live) == "AJAEEC"
    session.logout()

    again = await connect(daemon, sequence=1)
    assert await messages(again, 6) == live
    await again.close()

    last = await connect(daemon, sequence=6)
    assert await messages(last, 1) == live[5:]
    await last.close()


async def test_both_rejects(daemon: Daemon) -> None:
    with pytest.raises(ConnectionRefusedError):
        await connect(daemon, password="wrong")
    with pytest.raises(ConnectionRefusedError):
        await connect(daemon, session_id="NOSUCHONE")
    with pytest.raises(ConnectionRefusedError):
        await connect(daemon, sequence=99)


async def test_a_session_is_kept_alive_by_its_heartbeats(daemon: Daemon) -> None:
    session = await connect(daemon)
    await asyncio.sleep(3)
    session.send_unseq_data(enter(1)[FRAME_BYTES:])
    assert (await messages(session, 1))[0]["type"] == "A"
    await session.close()
