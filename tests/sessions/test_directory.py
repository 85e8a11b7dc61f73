"""The tables of the files against those of the log, at every start."""

import pytest

from engine.errors import ConfigError
from tests.sessions.conftest import StartVenue
from tests.support.venue import INSTRUMENTS, Venue, write_config
from tests.support.wire import Wire, enter


async def rest_one_order(venue: Venue) -> None:
    wire = await Wire.logged_in(venue.port, "MAKER1")
    wire.send(enter(1))
    await wire.message()
    await wire.close()
    await venue.stop()


def edit(venue: Venue, old: str, new: str) -> None:
    """Change the instrument file of a stopped venue."""
    write_config(venue.data_dir.parent, INSTRUMENTS.replace(old, new))


async def test_a_second_start_defines_nothing_again(venue: Venue) -> None:
    seq = venue.app.matcher.next_seq
    assert seq == 8
    await venue.restart()
    assert venue.app.matcher.next_seq == seq


async def test_a_new_instrument_is_an_event_and_tradable(venue: Venue) -> None:
    await venue.stop()
    edit(venue, "[[instrument]]\nid = 2", INSTRUMENTS.split("\n\n")[0].replace(
        "id = 1", "id = 3").replace("AAPL", "NEW") + "\n\n[[instrument]]\nid = 2")
    await venue.start()
    wire = await Wire.logged_in(venue.port, "MAKER1")
    wire.send(enter(1, symbol="NEW"))
    assert (await wire.message())["symbol"] == "NEW"


async def test_new_limits_of_an_account_hold_from_the_next_start(venue: Venue) -> None:
    await venue.stop()
    write_config(venue.data_dir.parent, limits={"MAKER1": {"quantity_max_lots": 5}})
    await venue.start()
    wire = await Wire.logged_in(venue.port, "MAKER1")
    wire.send(enter(1, quantity=6))
    assert (await wire.message())["reject_reason"] == 0x0031


async def test_the_tick_may_change_only_while_no_order_rests(venue: Venue) -> None:
    await venue.stop()
    edit(venue, 'tick = "0.01"\nquantity_decimals = 0', 'tick = "0.05"\nquantity_decimals = 0')
    await venue.start()
    await rest_one_order(venue)
    edit(venue, 'tick = "0.01"\nquantity_decimals = 0', 'tick = "0.02"\nquantity_decimals = 0')
    with pytest.raises(ConfigError, match="tick_units: expected 500 while orders rest"):
        await venue.start()


@pytest.mark.parametrize(("old", "new", "message"), [
    ("AAPL", "OTHER", "an id that was never used"),
    ("id = 2", "id = 5", "which the log knows it by"),
    ('symbol = "AAPL"', 'symbol = "AAPL"\nwire_symbol = "APPLE"', "wire_symbol"),
])
async def test_an_identity_never_changes(venue: Venue, old: str, new: str, message: str) -> None:
    await venue.stop()
    edit(venue, old, new)
    with pytest.raises(ConfigError, match=message):
        await venue.start()


async def test_an_account_id_is_never_used_again(start_venue: StartVenue) -> None:
    venue = await start_venue()
    await venue.stop()
    path = venue.data_dir.parent / "accounts.toml"
    path.write_text(path.read_text().replace("TAKER2", "SOMEBD"))
    with pytest.raises(ConfigError, match="an id that was never used"):
        await venue.start()


async def test_orders_of_an_instrument_that_left_the_file_may_be_canceled(venue: Venue) -> None:
    await rest_one_order(venue)
    edit(venue, INSTRUMENTS.split("\n\n")[0], "")
    await venue.start()
    wire = await Wire.logged_in(venue.port, "MAKER1")
    assert (await wire.message())["symbol"] == "AAPL"
    wire.send(enter(2))
    assert (await wire.message())["reject_reason"] == 0x0007


async def test_rules_are_in_the_log_when_they_differ(venue: Venue) -> None:
    day = {"window_ns": 86_400 * 10**9, "kept_min": 100_000, "kept_max": 10_000_000,
           "udp_window": 1_024}
    assert venue.app.matcher.rules() == day
    await venue.stop()
    (venue.data_dir.parent / "matchd.toml").write_text(
        "[api]\nclient_id_window_s = 60\nclient_ids_kept_min = 5\n"
        "[order_entry]\nudp_window = 0\n")
    await venue.start()
    assert venue.app.matcher.rules() == {**day, "window_ns": 60 * 10**9, "kept_min": 5,
                                         "udp_window": 0}
    seq = venue.app.matcher.next_seq
    await venue.restart()
    assert venue.app.matcher.next_seq == seq
