"""What is encoded is read again, by others too: whole or in parts, compressed or not."""

from __future__ import annotations

import json
from typing import Any

import lz4.block
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.redis_values import Coder, Keys, decode, position_of, position_text

ROWS = st.lists(st.lists(st.one_of(st.none(), st.text(max_size=5), st.integers(0, 2**63 - 1)),
                         max_size=4), max_size=40)


@given(ROWS, st.sampled_from(("json", "msgpack")), st.sampled_from((0, 1, 100)))
def test_values(rows: list[Any], encoding: Any, above: int) -> None:
    coder = Coder(encoding, above)
    assert decode(coder.value(rows)) == rows
    assert decode(coder.value({"rows": rows})) == {"rows": rows}


@given(ROWS, st.integers(1, 20), st.sampled_from(("json", "msgpack")))
def test_a_list_out_of_parts_is_the_same_value(rows: list[Any], step: int, encoding: Any) -> None:
    coder = Coder(encoding, 0)
    parts = [coder.part(rows[at:at + step]) for at in range(0, len(rows), step)]
    assert coder.joined(parts, len(rows)) == coder.value(rows)


def test_long_lists() -> None:
    coder = Coder("msgpack", 0)
    for count in (15, 16, 65_535, 65_536):
        rows = list(range(count))
        assert msgpack.unpackb(coder.joined([coder.part(rows[:7]), coder.part(rows[7:])],
                                            count)) == rows


def test_the_framing_is_the_feeds() -> None:
    body = {"symbol": "BTC-USDT", "bids": [["1.00", "2", 3]] * 50}
    large = Coder("msgpack", 100).value(body)
    assert large[:1] == b"\x01" and msgpack.unpackb(lz4.block.decompress(large[1:])) == body
    small = Coder("json", 100).value({"a": 1})
    assert small[:1] == b"\x00" and json.loads(small[1:]) == {"a": 1}


@pytest.mark.parametrize("value", [b"", b"\x00", b"\x01abc", b"\xc1", b"{", b"\x01"])
def test_what_is_no_value(value: bytes) -> None:
    with pytest.raises(ValueError, match="no value"):
        decode(value)


def test_positions() -> None:
    text = position_text(b"\x01" * 16, 7, 2**60)
    assert text == "01" * 16 + f"-7:{2**60}"
    assert position_of(text.encode()) == (b"\x01" * 16, 7, 2**60)
    for wrong in (b"", b"x-1:1", b"01-:1", b"01-1:", b"01:1", b"\xff-1:1"):
        with pytest.raises(ValueError):
            position_of(wrong)


def test_a_markets_keys_are_in_one_slot() -> None:
    keys = Keys("venue7:")
    assert keys.book("BTC-USDT") == "venue7:book:{BTC-USDT}"
    for name in (keys.book, keys.trades, keys.ticker, keys.position, keys.channel):
        assert keys.symbol_of(name("A-B")) == "A-B"
