from collections.abc import Iterator
from typing import Any

from typing_extensions import Buffer

UNIT_BYTES: int

class UnitBuffer:
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __release_buffer__(self, buffer: memoryview, /) -> None: ...
    def extend_bytes(self, data: Buffer) -> None: ...
    def clear(self) -> None: ...

class EventBatch(UnitBuffer):
    first_seq: int
    event_count: int
    @staticmethod
    def from_bytes(data: Buffer, first_seq: int) -> EventBatch: ...
    def dicts(self) -> list[dict[str, Any]]: ...

class CommandBatch(UnitBuffer):
    command_count: int
    generation: int
    def mark(self) -> tuple[int, int]: ...
    def undo(self, mark: tuple[int, int]) -> None: ...
    def dicts(self) -> list[dict[str, Any]]: ...
    def enter(
        self, account_id: int, user_ref_num: int, instrument_id: int, side: str,
        quantity_lots: int, price_units: int, time_in_force: str = "0", client_order: str = "",
        user_ref_idx: int = 0, post_only: bool = False, min_quantity_lots: int = 0,
        source: int = ..., flags: int = 0, display: str = "Y", capacity: str = "P",
        firm: str = "", request_id: int = 0, order_id: int = 0,
        actor_account_id: int = 0, key: str = "", reason: str = "",
        client_order_id: str = "",
    ) -> None: ...
    def replace(
        self, account_id: int, orig_user_ref_num: int, user_ref_num: int, quantity_lots: int,
        price_units: int, time_in_force: str = "0", client_order: str = "",
        user_ref_idx: int = 0, side: str = "", post_only: bool | None = None,
        min_quantity_lots: int = 0, source: int = ..., flags: int = 0, display: str = "Y",
        request_id: int = 0, order_id: int = 0,
        actor_account_id: int = 0, key: str = "", reason: str = "",
        client_order_id: str = "",
    ) -> None: ...
    def cancel(
        self, account_id: int, user_ref_num: int, quantity_lots: int = 0, user_ref_idx: int = 0,
        source: int = ..., request_id: int = 0, order_id: int = 0,
        actor_account_id: int = 0, key: str = "", reason: str = "",
    ) -> None: ...
    def modify(
        self, account_id: int, user_ref_num: int, side: str, quantity_lots: int,
        user_ref_idx: int = 0, source: int = ..., request_id: int = 0, order_id: int = 0,
        actor_account_id: int = 0, key: str = "", reason: str = "",
    ) -> None: ...
    def mass_cancel(
        self, account_id: int, user_ref_num: int, firm: str = "", instrument_id: int = 0,
        symbol: str = "", side: str = "", group_id: int | None = None, user_ref_idx: int = 0,
        source: int = ..., request_id: int = 0, order_id: int = 0,
        actor_account_id: int = 0, key: str = "", reason: str = "",
    ) -> None: ...
    def order_entry(
        self, account_id: int, user_ref_num: int, enable: bool, firm: str = "",
        user_ref_idx: int = 0, source: int = ..., request_id: int = 0, order_id: int = 0,
        actor_account_id: int = 0, key: str = "", reason: str = "",
    ) -> None: ...
    def account_query(
        self, account_id: int, user_ref_idx: int = 0, source: int = ...,
        request_id: int = 0, order_id: int = 0,
        actor_account_id: int = 0, key: str = "", reason: str = "",
    ) -> None: ...
    def session_roll(
        self, source: int = ..., request_id: int = 0, order_id: int = 0,
        actor_account_id: int = 0, key: str = "", reason: str = "",
    ) -> None: ...
    def halt_instrument(
        self, instrument_id: int, source: int = ..., request_id: int = 0, order_id: int = 0,
        actor_account_id: int = 0, key: str = "", reason: str = "",
    ) -> None: ...
    def resume_instrument(
        self, instrument_id: int, source: int = ..., request_id: int = 0, order_id: int = 0,
        actor_account_id: int = 0, key: str = "", reason: str = "",
    ) -> None: ...
    def admin_act(
        self, act: int, account_id: int = 0, instrument_id: int = 0, source: int = ...,
        request_id: int = 0, order_id: int = 0,
        actor_account_id: int = 0, key: str = "", reason: str = "",
    ) -> None: ...
    def set_rules(
        self, window_ns: int, kept_min: int, kept_max: int, udp_window: int = 0,
        source: int = ..., request_id: int = 0, order_id: int = 0,
        actor_account_id: int = 0, key: str = "", reason: str = "",
    ) -> None: ...
    def define_instrument(
        self, instrument_id: int, symbol: str, wire_symbol: str, price_decimals: int,
        tick_units: int, quantity_decimals: int, lot_size: int = 1,
        quantity_max_lots: int = 0xFFFFFFFF,
    ) -> None: ...
    def define_account(
        self, account_id: int, username: str, firm: str = "", role: int = 0,
        quantity_max_lots: int = 0, notional_max: int = 0, open_orders_max: int = 0,
        collar_bps: int = 0, messages_per_second: int = 0,
    ) -> None: ...

def pack_attributes(display: str, capacity: str, iso: str, cross: str) -> int: ...
def unpack_attributes(value: int) -> tuple[str, str, str, str]: ...
def count_events(buffer: UnitBuffer) -> int: ...
def read_units(data: Buffer, first_seq: int = 0) -> Iterator[dict[str, Any]]: ...
def dtype() -> Any: ...
