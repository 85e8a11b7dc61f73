"""The feed's client against a venue that does what it is told to, also what no venue should do."""

import asyncio
import contextlib
import json

import lz4.block
import msgpack
import pytest
import websockets

from engine.clients import (
    AnswerTimeoutError,
    BookMismatchError,
    ConnectionLostError,
    FeedClient,
    FeedGapError,
    FeedRefusedError,
)
from engine.errors import ProtocolError
from engine.instruments import Instrument

INSTRUMENTS = [Instrument(1, "BTC-USDT", "BTC-USDT", 2, 1, 6, 1)]
ASKS, BIDS = [["60010.00", "0.500000", 1]], [["60000.00", "0.100000", 2]]
CRC = 397_708_106


def book(kind, seq, prev_seq, **fields):
    return {"channel": "book", "symbol": "BTC-USDT", "seq": seq, "prev_seq": prev_seq, "time": 5,
            "type": kind, "bids": [], "asks": [], "crc": CRC, **fields}


def trades(seq, prev_seq, kind="update"):
    return {"channel": "trades", "symbol": "BTC-USDT", "seq": seq, "prev_seq": prev_seq,
            "time": 5, "type": kind, "trades": []}


class Venue:
    """Answers requests, and sends what a test puts behind each answer."""

    def __init__(self):
        self.requests = []
        self.scripts = []
        self.sockets = []
        self.paths = []
        self.port = 0
        self.silent = False

    async def handle(self, socket):
        self.sockets.append(socket)
        self.paths.append(socket.request.path)
        encoding = socket.request.path.rpartition("=")[2]
        # Like any peer, it may be gone at any moment.
        with contextlib.suppress(websockets.ConnectionClosed):
            async for data in socket:
                request = json.loads(data) if isinstance(data, str) else msgpack.unpackb(data)
                self.requests.append(request)
                if self.silent:
                    continue
                script = self.scripts.pop(0) if self.scripts else {}
                answer, *messages = script if isinstance(script, list) else [script]
                good = {"ok": True}
                if request["op"] == "subscribe":
                    good |= {"channel": request["channel"], "symbols": ["BTC-USDT"],
                             "log": "abc-1", "seq": 10}
                await socket.send(encode({"id": request["id"], **good, **answer}, encoding))
                for message in messages:
                    if message == "break":
                        socket.transport.abort()
                    elif isinstance(message, bytes):
                        await socket.send(message)
                    else:
                        await socket.send(encode(message, encoding))


def encode(body, encoding):
    if encoding == "json":
        return json.dumps(body)
    packed = msgpack.packb(body)
    if encoding == "msgpack":
        return packed
    if len(packed) > 100:
        return b"\x01" + lz4.block.compress(packed)
    return b"\x00" + packed


@contextlib.asynccontextmanager
async def running(*scripts):
    venue = Venue()
    venue.scripts = list(scripts)
    async with websockets.serve(venue.handle, "127.0.0.1", 0) as server:
        venue.port = server.sockets[0].getsockname()[1]
        yield venue


def client_of(venue, **terms):
    return FeedClient("127.0.0.1", venue.port, instruments=INSTRUMENTS, **terms)


async def read(client, count):
    found = []
    async with asyncio.timeout(10):
        async for message in client:
            found.append(message)
            if len(found) == count:
                return found
    return found


SNAPSHOT = book("snapshot", 10, 0, bids=BIDS, asks=ASKS)


@pytest.mark.parametrize("encoding", ["json", "msgpack", "msgpack-lz4"])
async def test_messages_come_in_each_encoding(encoding):
    more = book("delta", 12, 10, bids=[["59000.00", "1.000000", 1]],
                crc=2_034_412_461)
    async with running([{}, SNAPSHOT, more], {"time": 5, "seq": 12}) as venue, \
            client_of(venue, encoding=encoding) as client:
        answer = await client.subscribe("book", "BTC-USDT")
        assert (answer["symbols"], client.log_id) == (["BTC-USDT"], "abc-1")
        assert await read(client, 1) == [SNAPSHOT]
        assert client.book("BTC-USDT").bids == BIDS
        with pytest.raises(BookMismatchError):
            client.book("BTC-USDT").apply(more)
        assert client.position("book", "BTC-USDT") == 12
        assert (await client.ping())["seq"] == 12
        assert venue.paths == [f"/?encoding={encoding}"]


async def test_a_gap_is_subscribed_anew():
    late = book("snapshot", 30, 0, bids=BIDS, asks=ASKS)
    async with running([{}, SNAPSHOT, book("delta", 20, 15), book("delta", 21, 20)],
                       [{}, late]) as venue, client_of(venue) as client:
        await client.subscribe("book", "BTC-USDT", depth=10)
        assert await read(client, 2) == [SNAPSHOT, late]
        assert client.repairs == 1
        again = venue.requests[1]
        assert (again["op"], again["depth"], "resume_from" in again) == ("subscribe", 10, False)


async def test_a_gap_is_raised_where_that_is_wanted():
    async with running([{}, trades(10, 0, "snapshot"), trades(20, 15)]) as venue, \
            client_of(venue, repair=False) as client:
        await client.subscribe("trades", "BTC-USDT")
        with pytest.raises(FeedGapError, match="follows seq 15, the last one here is 10"):
            await read(client, 2)


async def test_a_wrong_checksum_is_subscribed_anew():
    wrong = book("delta", 11, 10, asks=[["60010.00", "0.400000", 1]])
    async with running([{}, SNAPSHOT, wrong, book("delta", 12, 11)],
                       [{}, book("snapshot", 13, 0, bids=BIDS, asks=ASKS)]) as venue, \
            client_of(venue) as client:
        await client.subscribe("book", "BTC-USDT")
        assert [one["seq"] for one in await read(client, 2)] == [10, 13]
        assert (client.repairs, client.book("BTC-USDT").asks) == (1, ASKS)


async def test_a_wrong_checksum_is_raised_where_that_is_wanted():
    async with running([{}, book("snapshot", 10, 0, bids=BIDS)]) as venue, \
            client_of(venue, repair=False) as client:
        await client.subscribe("book", "BTC-USDT")
        with pytest.raises(BookMismatchError, match="BTC-USDT at seq 10"):
            await read(client, 1)


@pytest.mark.parametrize("encoding", ["json", "msgpack", "msgpack-lz4"])
async def test_what_is_no_message_ends_the_connection(encoding):
    broken = {"json": b"{", "msgpack": b"\x81", "msgpack-lz4": b"\x01\xff\xff\xff\xff\xff"}
    async with running([{}, broken[encoding]]) as venue, \
            client_of(venue, encoding=encoding) as client:
        await client.ping()
        with pytest.raises(ProtocolError, match=f"not {encoding}"):
            await read(client, 1)
        with pytest.raises(ProtocolError):
            await client.ping()


async def test_a_refusal_has_its_code():
    async with running({"ok": False, "code": "unknown_symbol", "message": "none like it"}) \
            as venue, client_of(venue) as client:
        with pytest.raises(FeedRefusedError, match="none like it") as caught:
            await client.subscribe("book", "NOSUCH")
        assert caught.value.code == "unknown_symbol"
        with pytest.raises(KeyError):
            client.book("NOSUCH")


async def test_a_broken_connection_goes_on_where_it_was():
    async with running([{}], [{}, trades(10, 0, "snapshot"), trades(12, 10), "break"],
                       [{}], [{}, trades(15, 12)]) as venue, \
            client_of(venue, token="secret") as client:
        await client.subscribe("trades", "BTC-USDT")
        assert [one["seq"] for one in await read(client, 3)] == [10, 12, 15]
        assert client.reconnects == 1
        assert [one["op"] for one in venue.requests] == ["auth", "subscribe"] * 2
        assert (venue.requests[3]["resume_from"], venue.requests[3]["log"]) == (12, "abc-1")


async def test_what_came_before_the_break_does_not_come_twice():
    """One event made two messages, and the connection broke between them."""
    def fill(seq, prev_seq, role):
        return {**trades(seq, prev_seq), "channel": "executions", "liquidity": role}

    async with running([{}, trades(10, 0, "snapshot") | {"channel": "executions"},
                        fill(11, 10, "maker"), fill(11, 11, "taker"), "break"],
                       [{}, fill(11, 11, "maker"), fill(11, 11, "taker"), fill(12, 11, "maker"),
                        fill(14, 12, "maker"), fill(14, 14, "maker")]) as venue, \
            client_of(venue) as client:
        await client.subscribe("executions", "BTC-USDT")
        told = [(one["seq"], one.get("liquidity")) for one in await read(client, 6)]
        assert told == [(10, None), (11, "maker"), (11, "taker"), (12, "maker"), (14, "maker"),
                        (14, "maker")]


async def test_a_reset_empties_the_book_until_the_snapshot():
    reset = {**book("reset", 20, 0), "reason": "the position is older than the resume window"}
    async with running([{}, SNAPSHOT, "break"],
                       [{}, reset, book("snapshot", 20, 0, bids=BIDS, asks=ASKS)]) as venue, \
            client_of(venue) as client:
        await client.subscribe("book", "BTC-USDT")
        seen = []
        async for message in client:
            seen.append((message["type"], client.book("BTC-USDT").ready))
            if len(seen) == 3:
                break
        assert seen == [("snapshot", True), ("reset", False), ("snapshot", True)]


async def test_a_request_is_made_again_on_a_new_connection():
    async with running([{}, "break"]) as venue, client_of(venue) as client:
        await client.ping()
        assert (await client.ping())["ok"]


async def test_too_many_requests_on_a_reconnect_are_made_later(monkeypatch):
    monkeypatch.setattr("engine.clients.feed.RATE_DELAY_S", 0.01)
    refused = {"ok": False, "code": "rate_limited", "message": "slower"}
    async with running([{}, trades(10, 0, "snapshot"), "break"], refused, refused,
                       [{}, trades(11, 10)]) as venue, client_of(venue) as client:
        await client.subscribe("trades", "BTC-USDT")
        assert [one["seq"] for one in await read(client, 2)] == [10, 11]


async def test_a_venue_that_does_not_come_back_is_given_up():
    async with running([{}, "break"]) as venue, \
            client_of(venue, reconnect_for_s=0.2) as client:
        venue.sockets[0].server.close()
        with contextlib.suppress(ConnectionLostError):
            await client.ping()
        with pytest.raises(ConnectionLostError):
            await read(client, 1)
        with pytest.raises(ConnectionLostError):
            await client.ping()


async def test_no_venue_at_all():
    with pytest.raises(ConnectionLostError, match="no feed at 127.0.0.1:1"):
        await FeedClient("127.0.0.1", 1, instruments=[]).connect()
    with pytest.raises(ValueError, match="encoding is one of json"):
        FeedClient("127.0.0.1", 1, encoding="xml")


async def test_a_venue_that_does_not_answer():
    async with running() as venue, client_of(venue, answer_timeout_s=0.1) as client:
        venue.silent = True
        with pytest.raises(AnswerTimeoutError, match="no answer to ping"):
            await client.ping()


async def test_who_closes_a_client_sees_the_end_of_its_messages():
    async with running([{}, trades(10, 0, "snapshot")]) as venue:
        client = client_of(venue)
        await client.connect()
        await client.subscribe("trades", "BTC-USDT")
        reader = asyncio.create_task(read(client, 5))
        await asyncio.sleep(0.05)
        await client.close()
        assert [one["seq"] for one in await reader] == [10]


async def test_a_slow_reader_stops_the_socket_and_loses_nothing():
    many = [trades(seq, seq - 1) for seq in range(11, 3_000)]
    async with running([{}, trades(10, 0, "snapshot"), *many]) as venue, \
            client_of(venue, backlog_max=50) as client:
        await client.subscribe("trades", "BTC-USDT")
        seen = []
        async with asyncio.timeout(20):
            async for message in client:
                seen.append(message["seq"])
                if len(seen) % 500 == 1:
                    await asyncio.sleep(0.02)
                if seen[-1] == 2_999:
                    break
        assert seen == list(range(10, 3_000))


async def test_unsubscribed_is_forgotten():
    async with running([{}, SNAPSHOT], [{"channel": "book", "symbols": ["BTC-USDT"]},
                                        book("delta", 11, 10)],
                       {"subscriptions": []}) as venue, client_of(venue) as client:
        await client.subscribe("book", "BTC-USDT")
        await client.unsubscribe("book", "BTC-USDT")
        assert await client.subscriptions() == []
        with pytest.raises(KeyError):
            client.book("BTC-USDT")
