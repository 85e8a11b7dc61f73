"""The proxy of the tests fails as it is told, and only then."""

import asyncio

import pytest

from tests.support.flaky_proxy import FlakyProxy


@pytest.fixture
async def echo():
    """(proxy in front of a server that echoes)."""

    async def answer(reader, writer):
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    proxy = FlakyProxy(server.sockets[0].getsockname()).start()
    yield proxy
    proxy.close()
    server.close()


async def opened(proxy):
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def said(reader, timeout_s=5.0):
    return await asyncio.wait_for(reader.read(1000), timeout_s)


async def test_it_passes_bytes_both_ways_and_counts_them(echo):
    reader, writer = await opened(echo)
    writer.write(b"hello")
    assert await said(reader) == b"hello"
    assert (echo.accepted, echo.bytes_up, echo.bytes_down) == (1, 5, 5)
    writer.close()


async def test_a_cut_resets_what_is_open_and_takes_new_connections(echo):
    reader, writer = await opened(echo)
    writer.write(b"a")
    await said(reader)
    echo.cut()
    with pytest.raises(ConnectionError):
        assert not await said(reader)
        raise ConnectionError
    reader, writer = await opened(echo)
    writer.write(b"b")
    assert await said(reader) == b"b"
    writer.close()


async def test_refused_until_healed(echo):
    echo.refuse()
    with pytest.raises(OSError):
        await opened(echo)
    echo.heal()
    reader, writer = await opened(echo)
    writer.write(b"b")
    assert await said(reader) == b"b"
    writer.close()


async def test_a_stall_holds_bytes_back_and_loses_none(echo):
    reader, writer = await opened(echo)
    echo.stall(up=False)
    writer.write(b"late")
    with pytest.raises(TimeoutError):
        await said(reader, 0.1)
    assert echo.bytes_up == 4
    echo.heal()
    assert await said(reader) == b"late"
    writer.close()


async def test_a_cut_in_the_middle_of_a_message(echo):
    reader, writer = await opened(echo)
    echo.cut_after(3)
    writer.write(b"hello")
    with pytest.raises(ConnectionError):
        while await said(reader):
            pass
        raise ConnectionError
    assert echo.bytes_up == 3
    writer.close()
