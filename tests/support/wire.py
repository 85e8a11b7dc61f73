"""A bare SoupBinTCP and OUCH client for tests: it sees every packet, and sends what it is told."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from cython_core.ouch import decode, encode_inbound
from cython_core.soupbin import (
    CLIENT_HEARTBEAT,
    LOGOUT_REQUEST,
    LoginAccepted,
    PacketReader,
    build_login,
    build_unsequenced,
    parse_login_accepted,
)

WAIT_S = 60.0


def enter(number: int, side: str = "B", quantity: int = 100, price: int = 1_000_000,
          symbol: str = "AAPL", tif: str = "0", **options: Any) -> bytes:
    """A framed Enter Order; `options` are other fields and tags by name."""
    fields = {"display": "Y", "capacity": "P", "iso": "N", "cross_type": "N",
              "client_order": f"o{number}"} | options
    return build_unsequenced(encode_inbound(
        "O", user_ref_num=number, side=side, quantity_lots=quantity, symbol=symbol,
        price_units=price, time_in_force=tif, **fields))


def replace(original: int, number: int, quantity: int = 100, price: int = 1_000_000,
            tif: str = "0", **options: Any) -> bytes:
    """A framed Replace."""
    fields = {"display": "Y", "iso": "N", "client_order": ""} | options
    return build_unsequenced(encode_inbound(
        "U", orig_user_ref_num=original, user_ref_num=number, quantity_lots=quantity,
        price_units=price, time_in_force=tif, **fields))


def cancel(number: int, quantity: int = 0) -> bytes:
    """A framed Cancel."""
    return build_unsequenced(encode_inbound("X", user_ref_num=number, quantity_lots=quantity))


def message(letter: str, **fields: Any) -> bytes:
    """Any framed message."""
    return build_unsequenced(encode_inbound(letter, **fields))


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._packets = PacketReader("server")
        self._waiting: list[tuple[str, bytes]] = []
        self.heartbeats = 0
        self.raw: list[bytes] = []
        self.session = ""
        self.next_number = 0

    @classmethod
    async def open(cls, port: int) -> Self:
        """Connect, without a login."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    @classmethod
    async def logged_in(cls, port: int, username: str, password: str = "demo",
                        **login: Any) -> Self:
        """Connect and log in; fails when that is refused."""
        wire = await cls.open(port)
        answer = await wire.login(username, password, **login)
        assert isinstance(answer, LoginAccepted), answer
        return wire

    async def login(self, username: str, password: str = "demo", session: str = "",
                    sequence: int = 1, **more: Any) -> LoginAccepted | str:
        """Log in; returns the acceptance or the reject's letter."""
        self.send(build_login(username, password, session, sequence, **more))
        kind, payload = await self.packet()
        if not kind:
            raise ConnectionResetError("closed in place of an answer to the login")
        if kind == "J":
            return payload.decode()
        assert kind == "A", kind
        accepted = parse_login_accepted(payload)
        self.session, self.next_number = accepted
        return accepted

    def send(self, *packets: bytes) -> None:
        """Send framed packets in one piece."""
        self.writer.write(b"".join(packets))

    def heartbeat(self) -> None:
        """Send a client heartbeat."""
        self.send(CLIENT_HEARTBEAT)

    def logout(self) -> None:
        """Send a logout request."""
        self.send(LOGOUT_REQUEST)

    async def packet(self, timeout_s: float = WAIT_S) -> tuple[str, bytes]:
        """The next packet that is no heartbeat; ("", b"") when the server closed."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while not self._waiting:
            try:
                data = await asyncio.wait_for(self._reader.read(2**16), deadline_s - loop.time())
            except ConnectionError:
                return "", b""
            if not data:
                return "", b""
            for kind, payload in self._packets.feed(data):
                if kind == "H":
                    self.heartbeats += 1
                else:
                    self._waiting.append((kind, payload))
        return self._waiting.pop(0)

    async def message(self, timeout_s: float = WAIT_S) -> dict[str, Any]:
        """The next sequenced message, decoded; its bytes are added to `raw`."""
        kind, payload = await self.packet(timeout_s)
        assert kind == "S", f"packet {kind!r} in place of sequenced data"
        self.raw.append(payload)
        self.next_number += 1
        return decode("out", payload)

    async def messages(self, count: int) -> list[dict[str, Any]]:
        """The next `count` sequenced messages."""
        return [await self.message() for _ in range(count)]

    async def types(self, count: int) -> str:
        """The letters of the next `count` messages."""
        return "".join([(await self.message())["type"] for _ in range(count)])

    async def closed(self, timeout_s: float = WAIT_S) -> bool:
        """Whether the next thing that comes is the end of the connection."""
        return (await self.packet(timeout_s)) == ("", b"")

    async def silent(self, for_s: float = 0.1) -> bool:
        """Whether nothing but heartbeats comes for a while."""
        try:
            await self.packet(for_s)
        except TimeoutError:
            return True
        return False

    async def close(self) -> None:
        """Close the connection."""
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass
