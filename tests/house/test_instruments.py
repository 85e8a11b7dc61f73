"""Instruments: the file, and exact decimals at the edge."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import instruments
from engine.errors import ConfigError
from engine.instruments import QUANTITY_LOTS_MAX, scaled, unscaled

FILE = Path(__file__).resolve().parents[2] / "config" / "instruments.toml"
ROW = """
[[instrument]]
id = 7
symbol = "X-Y"
price_decimals = 2
tick = "0.05"
quantity_decimals = 3
lot = "0.1"
"""


@pytest.fixture
def shipped():
    return instruments.by_symbol(instruments.load(FILE))


def load(tmp_path, text):
    path = tmp_path / "instruments.toml"
    path.write_text(text)
    return instruments.load(path)


def test_the_shipped_instruments_have_their_scales(shipped):
    btc, shib = shipped["BTC-USDT"], shipped["SHIB-USDT"]
    assert (btc.price_decimals, btc.tick_units, btc.quantity_decimals) == (2, 1, 6)
    assert (shib.price_decimals, shib.lot_size, shib.wire_symbol) == (8, 1000, "SHIBUSDT")
    for symbol in ("AAPL", "AMZN", "GOOG", "MSFT"):
        one = shipped[symbol]
        assert (one.price_decimals, one.tick_units, one.quantity_decimals, one.lot_size) == \
            (4, 100, 0, 1)
    assert {"ETH-USDT", "SOL-USDT"} < set(shipped)
    assert shipped["SHIBUSDT"] is shib


def test_the_quantity_limit_is_what_the_wire_can_carry(shipped):
    assert {one.quantity_max_lots for one in shipped.values()} == {QUANTITY_LOTS_MAX}


def test_prices_convert_exactly_or_are_refused(shipped):
    btc, goog = shipped["BTC-USDT"], shipped["GOOG"]
    assert btc.price_units("67500") == btc.price_units("67500.00") == 6_750_000
    assert goog.price_units("578.23") == 5_782_300
    assert goog.price_text(5_782_300) == "578.2300"
    for text in ("0", "1.001", "-1", "1e3", "", "1.", ".5", "20000000", "NaN", "1,5", " 1"):
        with pytest.raises(ValueError, match=r"."):
            btc.price_units(text)
    with pytest.raises(ValueError, match="not a multiple of 0.0100"):
        goog.price_units("578.235")


def test_quantities_convert_to_whole_lots_or_are_refused(shipped):
    shib = shipped["SHIB-USDT"]
    assert shib.quantity_lots("5000") == 5
    assert shib.quantity_text(5) == "5000"
    assert shipped["BTC-USDT"].quantity_lots("0.5") == 500_000
    for text in ("0", "1500", "0.5", "4294967296000"):
        with pytest.raises(ValueError, match=r"."):
            shib.quantity_lots(text)


@given(st.integers(0, 2**64 - 1), st.integers(0, 12))
def test_scaled_and_unscaled_are_inverse(value, decimals):
    assert scaled(unscaled(value, decimals), decimals) == value


def test_a_negative_value_keeps_its_sign():
    assert unscaled(-5, 2) == "-0.05"


def test_a_row_gives_wire_integers(tmp_path):
    one, = load(tmp_path, ROW + 'quantity_max = "100"\n')
    assert (one.tick_units, one.lot_size, one.quantity_max_lots) == (5, 100, 1000)
    assert one.wire_symbol == "X-Y"


def test_a_row_without_a_limit_has_the_wires(tmp_path):
    one, = load(tmp_path, ROW)
    assert one.quantity_max_lots == QUANTITY_LOTS_MAX


@pytest.mark.parametrize(("change", "message"), [
    (("id = 7", "id = 65536"), "id: expected an integer from 1 to 65535, found 65536"),
    (("X-Y", "x-y"), "symbol: expected 1 to 24 of"),
    (("X-Y", "LONGSYMBOL"), "wire_symbol: expected 1 to 8 characters"),
    (('"0.05"', "0.05"), "tick: expected a decimal in quotes"),
    (('"0.05"', '"0"'), "tick: expected a positive number of at most 2 decimals"),
    (('"0.05"', '"0.005"'), "tick: expected a positive number of at most 2 decimals"),
    (('"0.1"', '"0.0001"'), "lot: expected a positive number of at most 3 decimals"),
    (('lot = "0.1"', ""), "lot: expected a decimal in quotes"),
    (('lot = "0.1"', 'lot = "0.1"\nlots = 1'), "instrument[1].lots: expected one of id,"),
    (('lot = "0.1"', 'lot = "0.1"\nquantity_max = "0.15"'), "quantity_max: expected whole lots"),
    (("[[instrument]]", "[[instruments]]"), "instruments: expected only [[instrument]] tables"),
    (("[[instrument]]", "[instrument]"), "instrument: expected [[instrument]] tables"),
])
def test_mistakes_in_a_row_name_the_key(tmp_path, change, message):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, ROW.replace(*change))
    assert message in "\n".join(caught.value.problems)


def test_ids_and_symbols_are_given_once(tmp_path):
    again = ROW.replace("id = 7", "id = 8").replace("X-Y", "XYZ") + 'wire_symbol = "X-Y"\n'
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, ROW + ROW + again)
    text = "\n".join(caught.value.problems)
    assert "instrument[2].id: expected a value that instrument[1] has not, found 7" in text
    assert 'instrument[2].symbol: expected a value that instrument[1] has not, found "X-Y"' in text
    assert "instrument[3].wire_symbol: expected a value that instrument[1] has not" in text
