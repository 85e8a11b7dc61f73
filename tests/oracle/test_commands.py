"""The units packed here and those of the core's own builders are the same bytes."""

from cython_core.event import CommandBatch
from cython_core.model import Act, Flag, Kind, Source
from tests.oracle.commands import (
    Command,
    command_batch,
    define_account,
    define_instrument,
    set_rules,
)


def test_packed_commands_equal_those_of_the_builders():
    built = CommandBatch()
    built.define_instrument(7, "GOOG", "GOOG", 4, 100, 0, quantity_max_lots=999_999)
    built.define_account(3, "MAKER1", "FIRM", notional_max=10**15, open_orders_max=4,
                         collar_bps=50, quantity_max_lots=9, messages_per_second=2)
    built.enter(3, 1, 7, "T", 100, 5_000_000, "3", "order 1", user_ref_idx=2, post_only=True,
                min_quantity_lots=40, display="N", capacity="R", firm="FIRM")
    built.replace(3, 1, 2, 2**32 - 1, 0x7FFFFFFF, "4", "order 2", user_ref_idx=2, side="E",
                  post_only=False, source=Source.UDP)
    built.cancel(3, 2, 50, user_ref_idx=2)
    built.modify(3, 2, "T", 50)
    built.mass_cancel(3, 3, "FIRM", 7, "GOOG", "B", group_id=12)
    built.order_entry(3, 4, enable=False, firm="FIRM")
    built.order_entry(3, 5, enable=True)
    built.account_query(3, 9)
    built.session_roll()
    built.enter(3, 0, 7, "B", 5, 100, "1", client_order_id="an id of thirty-six characters, full",
                min_quantity_lots=2, capacity="A", source=Source.HTTP, request_id=77,
                actor_account_id=9, key="0123456789abcdef", reason="x" * 24)
    built.replace(3, 0, 0, 6, 200, source=Source.REDIS, order_id=2**64 - 1, client_order_id="b")
    built.cancel(3, 0, 2**40, source=Source.HTTP, order_id=12, request_id=2**32 - 1)
    built.mass_cancel(3, 0, source=Source.ADMIN, actor_account_id=1, key="k", reason="why")
    built.halt_instrument(7, reason="news", request_id=5)
    built.resume_instrument(7, key="ops")
    built.admin_act(Act.DISCONNECT, account_id=3, reason="asked for")
    built.set_rules(2**64 - 1, 2**63, 2**64 - 2)
    built.set_rules(0, 0, 0, 1_024)
    packed = command_batch([
        define_instrument(7, "GOOG", 100, 999_999),
        define_account(3, "MAKER1", "FIRM", notional_max=10**15, open_orders_max=4, collar_bps=50,
                       quantity_max_lots=9, messages_per_second=2),
        Command(Kind.CMD_ENTER, 3, 1, 2, 7, "T", 100, 5_000_000, "3", "N", "R",
                client_order="order 1", flags=Flag.POST_ONLY | Flag.POST_ONLY_SET,
                options={"min_quantity_lots": 40, "firm": "FIRM"}),
        Command(Kind.CMD_REPLACE, 3, 2, 2, quantity_lots=2**32 - 1, price_units=0x7FFFFFFF,
                time_in_force="4", client_order="order 2", source=Source.UDP,
                flags=Flag.POST_ONLY_SET, orig_user_ref_num=1, command_side="E"),
        Command(Kind.CMD_CANCEL, 3, 2, 2, quantity_lots=50),
        Command(Kind.CMD_MODIFY, 3, 2, side="T", quantity_lots=50),
        Command(Kind.CMD_MASS_CANCEL, 3, 3, instrument_id=7, side="B", firm="FIRM", symbol="GOOG",
                group_id=12),
        Command(Kind.CMD_DISABLE_ENTRY, 3, 4, firm="FIRM"),
        Command(Kind.CMD_ENABLE_ENTRY, 3, 5),
        Command(Kind.CMD_ACCOUNT_QUERY, 3, 0, 9),
        Command(Kind.CMD_SESSION_ROLL, source=Source.ADMIN),
        Command(Kind.CMD_ENTER, 3, 0, 0, 7, "B", 5, 100, "1", source=Source.HTTP,
                client_order_id="an id of thirty-six characters, full", request_id=77,
                options={"min_quantity_lots": 2}, actor_account_id=9, key="0123456789abcdef",
                reason="x" * 24),
        Command(Kind.CMD_REPLACE, 3, quantity_lots=6, price_units=200, time_in_force="0",
                source=Source.REDIS, order_id=2**64 - 1, client_order_id="b"),
        Command(Kind.CMD_CANCEL, 3, quantity_lots=2**40, source=Source.HTTP, order_id=12,
                request_id=2**32 - 1),
        Command(Kind.CMD_MASS_CANCEL, 3, source=Source.ADMIN, actor_account_id=1, key="k",
                reason="why"),
        Command(Kind.CMD_HALT_INSTRUMENT, instrument_id=7, source=Source.ADMIN, reason="news",
                request_id=5),
        Command(Kind.CMD_RESUME_INSTRUMENT, instrument_id=7, source=Source.ADMIN, key="ops"),
        Command(Kind.CMD_ADMIN_ACT, 3, source=Source.ADMIN, act=Act.DISCONNECT,
                reason="asked for"),
        set_rules(2**64 - 1, 2**63, 2**64 - 2),
        set_rules(0, 0, 0, 1_024),
    ], 1)
    assert packed.dicts() == built.dicts()
    assert bytes(packed) == bytes(built)


def test_every_option_is_read_back_as_it_was_packed():
    options = {
        "firm": "ABCD", "min_quantity_lots": 5, "customer_type": "R", "display_quantity_lots": 6,
        "price_type": "L", "peg_offset_units": -7, "discretion_price_units": 8,
        "discretion_price_type": "L", "post_only_tag": True, "random_reserves": 9,
        "expire_time_s": 10, "trade_now": "Y", "handle_inst": " ", "group_id": 11,
        "shares_located": "Y", "locate_broker": "BRKR", "aiq_strategy": "O", "aiq_group": "AB",
    }
    command = Command(Kind.CMD_ENTER, 1, 1, options=options, raw=bytes(range(100)))
    (read,) = command_batch([command], 1).dicts()
    assert read["options"] == options
    assert bytes.fromhex(read["raw"]) == bytes(range(100))
