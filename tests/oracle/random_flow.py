"""Order flow from a seed: mostly what traders do, now and then what nobody should do.

Commands are drawn one by one against the oracle's present state, so that most cancels and
replaces meet live orders. Books stay small enough for the oracle, and change sides often enough
that every path of the matcher is walked thousands of times.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from cython_core.model import Flag, Kind, Reject, Source
from tests.oracle.commands import Command, define_account, define_instrument, set_rules
from tests.oracle.naive_venue import Order
from tests.oracle.venue_pair import VenuePair

TICKS = {1: 1, 2: 100, 3: 25, 65_535: 7}
FIRMS = {1: "", 2: "AAAA", 3: "BBBB", 4_294_967_295: "CCCC"}
CHANNELS = (0, 0, 0, 1, 255)
SOURCES = (*[Source.TCP] * 12, *[Source.UDP] * 6, Source.HTTP)
OUCH_SOURCES = (Source.TCP, Source.TCP, Source.UDP)
WINDOWS = (0, 1, 3, 64, 1_023, 1_024, 1_024)
# Over UDP numbers jump ahead and come late, from within a window and from beyond.
STEPS = (1,) * 18 + (0, 5)
UDP_STEPS = (*STEPS, 2, 2, 3, 9, 70, -1, -2, -3, -64, -1_022, -1_023, -1_024, -1_025)
# The log has 32 bits for the size in a Cancel or Modify; no wire carries more.
WIRE_QUANTITY_MAX = 2**32 - 1
ODD_QUANTITIES = (0, 1, 999_999, 2**32 - 1, 2**32, 2**63, 2**64 - 1)
ODD_PRICES = (-1, 0, 1, 7, 101, 1_999_999_900, 1_999_999_999, 2_000_000_000, 2_000_000_001,
              2**31 - 2, 2**31 - 1, 2**31, 2**63 - 1)
START_PRICES = {1: 70_000, 2: 7_000_000, 3: 5_000_000, 65_535: 700_000_000}
# Mean distance from the mid, in ticks: from a dense book to one that is scattered over millions.
SPREADS = {1: 4, 2: 4, 3: 3_000, 65_535: 1_000_000}
JUMP_CHANCE = 0.002
# What a limit is drawn from; 0 is off.
LIMITS = {
    "quantity_max_lots": (0, 0, 90, 1), "notional_max": (0, 0, 7_000_000, 2**40),
    "open_orders_max": (0, 0, 10, 40), "collar_bps": (0, 0, 30, 500),
    "messages_per_second": (0, 100),
}


class RandomFlow:
    """Draws commands for a pair of venues. Numbers over UDP come in any order."""

    def __init__(self, seed: int, pair: VenuePair, orders_wanted: int = 120) -> None:
        self.random = random.Random(seed)
        self.pair = pair
        self.orders_wanted = orders_wanted
        self.oracle = pair.oracle
        self.mid_units = dict(START_PRICES)
        self.makers: list[tuple[float, Callable[[], Command]]] = [
            (46, self.enter), (5, self.marketable), (6, self.replace), (5, self.modify),
            (0.15, self.mass_cancel), (0.5, self.order_entry), (0.5, self.account_query),
            (0.6, self.redefine_account), (0.1, self.redefine_instrument), (3, self.odd),
            (5, self.private_enter), (3, self.private_replace), (4, self.private_cancel),
            (0.05, self.private_mass_cancel), (0.1, self.kill), (0.5, self.unkill),
            (0.1, self.halt), (1, self.resume), (0.2, self.set_rules), (0.2, self.admin_act),
        ]

    def define(self) -> None:
        """Instruments of different ticks, accounts of different firms, no limits yet."""
        self.pair.send([define_instrument(number, f"INSTR{number}", tick)
                        for number, tick in TICKS.items()])
        self.pair.send([define_account(number, f"ACC{index}", firm)
                        for index, (number, firm) in enumerate(FIRMS.items())])
        self.pair.send([set_rules(10**9, 2, 50, self.random.choice(WINDOWS))])

    def run(self, operations: int) -> None:
        """Send that many commands in batches of any size, comparing the state at their ends."""
        done = 0
        while done < operations:
            size = min(self.random.choice((1, 2, 10, 64, 200)), operations - done)
            self.pair.time_ns += self.random.randrange(-5, 1_000_000)
            for _ in range(size):
                self.pair.queue(self.command())
            self.pair.flush()
            self.pair.compare_state()
            done += size
            self._between_batches()

    def _between_batches(self) -> None:
        draw = self.random.random()
        if draw < 0.02:
            self.pair.reload()
        elif draw < 0.035:
            self.pair.send([Command(Kind.CMD_SESSION_ROLL, source=Source.ADMIN)])
            self.pair.send_stale([self.enter()], self.oracle.generation - 1)
        elif draw < 0.045:
            self.pair.save()

    def command(self) -> Command:
        """One command of any kind; cancels take over as books fill up."""
        orders = sum(len(resting) for resting in self.oracle.resting.values())
        if self.random.random() < 0.40 * min(2.0, orders / self.orders_wanted):
            return self.cancel()
        weights, makers = zip(*self.makers, strict=True)
        maker: Callable[[], Command] = self.random.choices(makers, weights)[0]
        return maker()

    # One kind each

    def enter(self) -> Command:
        """A limit order around the mid, seldom with an option or flag."""
        draw = self.random
        instrument_id = draw.choice(tuple(TICKS))
        side = draw.choice("BBSSTE")
        tick = TICKS[instrument_id]
        distance = int(draw.expovariate(1 / SPREADS[instrument_id])) * tick
        price_units = self._mid(instrument_id) + (-distance if side == "B" else distance)
        source = draw.choice(SOURCES)
        account_id, user_ref_idx, number = self._next_number(source)
        if source == Source.HTTP:
            user_ref_idx = number = 0
        return Command(
            Kind.CMD_ENTER, account_id, number, user_ref_idx, instrument_id, side,
            draw.randint(1, 100), max(tick, price_units), draw.choice("000011"),
            draw.choice("YYYYNAZ"), draw.choice("APRO"), draw.choice("NNY"), "N",
            client_order=f"c{number}", source=source,
            flags=draw.choice((Flag(0),) * 9 + (Flag.POST_ONLY | Flag.POST_ONLY_SET,)),
            options=self._options())

    def marketable(self) -> Command:
        """An order that is meant to trade at once: IOC, FOK, with a minimum, or at market."""
        command = self.enter()
        side = 1 if command.side == "B" else -1
        command.price_units += side * self._distance(command.instrument_id, 3.0)
        command.price_units = max(TICKS[command.instrument_id], command.price_units)
        if self.random.random() < 0.2:
            command.price_units = self.random.choice((2**31 - 1, 2_000_000_000))
        command.quantity_lots = self.random.choice((1, 20, 100, 400))
        command.time_in_force = self.random.choice("333440")
        if command.time_in_force == "3" and self.random.random() < 0.4:
            minimum_lots = self.random.choice((1, command.quantity_lots, command.quantity_lots + 1))
            command.options["min_quantity_lots"] = minimum_lots
        return command

    def replace(self) -> Command:
        """New terms for a live order, often with its chain's executions in the total."""
        draw = self.random
        order = self._live_order()
        if order is None:
            return self.enter()
        tick, distance = TICKS[order.instrument_id], self._distance(order.instrument_id, 0.8)
        source = self._ouch_source(order)
        last = self.oracle.last_number(order.account_id, order.user_ref_idx)
        number = min(last + 1, 2**32 - 1)
        if source == Source.UDP:
            number = self._number(order.account_id, order.user_ref_idx, source)
        total_lots = draw.choice((order.open_lots + order.chain_done_lots, order.chain_done_lots,
                                  order.chain_done_lots + draw.randint(1, 100), order.open_lots))
        side = draw.choice(("", "", "", *"BSTE"))
        return Command(
            Kind.CMD_REPLACE, order.account_id, max(0, number - (draw.random() < 0.1)),
            order.user_ref_idx, 0, "", total_lots,
            max(tick, order.price_units + distance * draw.choice((-1, 0, 1))),
            draw.choice("0000001134"), draw.choice("YN"), client_order=f"r{number}",
            source=source, order_id=0 if order.has_stream else order.order_id,
            orig_user_ref_num=order.user_ref_num, command_side=side,
            flags=draw.choice((Flag(0), Flag(0), Flag(0), Flag.POST_ONLY_SET,
                               Flag.POST_ONLY | Flag.POST_ONLY_SET)),
            options=draw.choice(({}, {}, {"min_quantity_lots": draw.randint(1, 100)},
                                 {"shares_located": "Y"}, {"handle_inst": "O"})))

    def cancel(self) -> Command:
        """All of a live order, part of it, or of one that is no more."""
        order = self._live_order()
        if order is None:
            return self.enter()
        quantity_lots = 0
        if self.random.random() < 0.3:
            quantity_lots = order.chain_done_lots + self.random.randint(0, order.open_lots + 1)
            quantity_lots = min(quantity_lots, WIRE_QUANTITY_MAX)
        number = max(0, order.user_ref_num - (self.random.random() < 0.1))
        return Command(Kind.CMD_CANCEL, order.account_id, number, order.user_ref_idx,
                       quantity_lots=quantity_lots, source=self._ouch_source(order),
                       order_id=0 if order.has_stream else order.order_id)

    def modify(self) -> Command:
        """Another short marking, allowed or not, and a size that never grows."""
        order = self._live_order()
        if order is None:
            return self.enter()
        quantity_lots = self.random.randint(0, order.chain_done_lots + order.open_lots + 1)
        return Command(Kind.CMD_MODIFY, order.account_id, order.user_ref_num, order.user_ref_idx,
                       side=self.random.choice((order.side, *"BSTE?")),
                       quantity_lots=min(quantity_lots, WIRE_QUANTITY_MAX),
                       source=self._ouch_source(order))

    def mass_cancel(self) -> Command:
        """Any mixture of filters, sometimes of another firm or an unknown symbol."""
        draw = self.random
        source = draw.choice(OUCH_SOURCES)
        account_id, user_ref_idx, number = self._next_number(source)
        unknown = draw.random() < 0.1
        return Command(
            Kind.CMD_MASS_CANCEL, account_id, number, user_ref_idx,
            draw.choice((0, 0, *TICKS)) if not unknown else 0, draw.choice(("", "", *"BSTE")),
            firm=draw.choice(("", FIRMS[account_id], FIRMS[account_id], "ZZZZ")),
            symbol="NOSUCH" if unknown else "", source=source,
            group_id=draw.choice((None, None, 0, 1, 7)),
            flags=Flag.DOOR_REASON if unknown else Flag(0),
            door_reason=Reject.SYMBOL if unknown else 0)

    def order_entry(self) -> Command:
        """Disable, or more often enable what is disabled, so that trading goes on."""
        source = self.random.choice(OUCH_SOURCES)
        account_id, user_ref_idx, number = self._next_number(source)
        kind = self.random.choice((Kind.CMD_DISABLE_ENTRY, *[Kind.CMD_ENABLE_ENTRY] * 4))
        disabled = [key for key, value in self.oracle.accounts.items()
                    if value.entry_disabled or value.killed]
        if disabled and kind == Kind.CMD_ENABLE_ENTRY:
            account_id = self.random.choice(disabled)
            number = self.oracle.last_number(account_id, user_ref_idx) + 1
        return Command(kind, account_id, min(number, 2**32 - 1), user_ref_idx, source=source,
                       firm=self.random.choice(("", FIRMS[account_id], "ZZZZ")))

    def account_query(self) -> Command:
        """Ask for the next number of a channel, used or not."""
        return Command(Kind.CMD_ACCOUNT_QUERY, self.random.choice(tuple(FIRMS)),
                       user_ref_idx=self.random.choice((*CHANNELS, 77)))

    def redefine_account(self) -> Command:
        """New limits, each of them often off."""
        account_id = self.random.choice(tuple(FIRMS))
        limits = {name: self.random.choice(values) for name, values in LIMITS.items()}
        if self.random.random() < 0.7:
            limits = {}
        return define_account(account_id, f"ACC{account_id}", FIRMS[account_id], **limits)

    def redefine_instrument(self) -> Command:
        """Another maximum quantity."""
        number = self.random.choice(tuple(TICKS))
        return define_instrument(number, f"INSTR{number}", TICKS[number],
                                 self.random.choice((50, *[2**32 - 1] * 4, 2**40)))

    def odd(self) -> Command:
        """A command with a value at the edge of its type, or one refused at the door."""
        draw = self.random
        command = draw.choice((self.enter, self.marketable, self.replace, self.cancel))()
        spoil = draw.randrange(7)
        if spoil == 0:
            command.quantity_lots = draw.choice(ODD_QUANTITIES)
        elif spoil == 1 and command.kind != Kind.CMD_CANCEL:
            command.price_units = draw.choice(ODD_PRICES)
        elif spoil == 2 and command.kind == Kind.CMD_ENTER:
            command.instrument_id = draw.choice((4, 65_534))
        elif spoil == 3:
            command.user_ref_num = draw.choice((0, 1, command.user_ref_num, 2**32 - 1,
                                                2**32 - 1 - draw.randrange(1_100)))
            # The last number makes a channel useless until the roll; the busy ones are spared.
            command.user_ref_idx = 99 if draw.random() < 0.95 else command.user_ref_idx
        elif spoil == 4 and command.kind != Kind.CMD_CANCEL:
            command.flags |= draw.choice((Flag.RATE_EXCEEDED, Flag.DOOR_REASON,
                                          Flag.DOOR_REASON | Flag.UNSERVED))
            if Flag.DOOR_REASON in command.flags:
                command.door_reason = draw.choice((Reject.PEG, Reject.DISPLAY, 0))
                command.raw = draw.choice((b"", b"U" * 47, bytes(range(150))))
        elif spoil == 6 and command.kind != Kind.CMD_CANCEL:
            command.time_in_force = draw.choice(("", "2", "5", command.time_in_force))
            if command.kind == Kind.CMD_ENTER:
                command.side = draw.choice(("", "b", "X", command.side))
            else:
                command.command_side = draw.choice(("b", "X", command.command_side))
        return command

    # Private commands

    def private_enter(self) -> Command:
        """An order that comes by HTTP or Redis, often with an id, seldom with a used one."""
        command = self.random.choice((self.enter, self.enter, self.marketable))()
        return self._make_private(command)

    def private_replace(self) -> Command:
        """New terms for a live private order, or for one that is not to be had this way."""
        command = self.replace()
        order = self._some_order(0.7)
        if order is None or command.kind != Kind.CMD_REPLACE:
            return self.private_enter()
        command.account_id, command.order_id = order.account_id, order.order_id
        command.quantity_lots = order.chain_done_lots + self.random.randint(0, 100)
        self._name_by_handle(command, order)
        distance = self._distance(order.instrument_id, 0.8)
        command.price_units = max(TICKS[order.instrument_id], order.price_units + distance)
        return self._make_private(command)

    def private_cancel(self) -> Command:
        """All or part of any order of an account, by its id; now and then another's."""
        order = self._some_order(0.6)
        if order is None:
            return self.private_enter()
        quantity_lots = self.random.choice(
            (0, 0, 0, order.chain_done_lots + self.random.randint(0, order.open_lots + 1), 2**33))
        command = Command(Kind.CMD_CANCEL, order.account_id, quantity_lots=quantity_lots,
                          order_id=order.order_id)
        self._name_by_handle(command, order)
        return self._make_private(command)

    def private_mass_cancel(self) -> Command:
        """Every order of an account, by whatever door it came."""
        return self._make_private(Command(
            Kind.CMD_MASS_CANCEL, self.random.choice(tuple(FIRMS)),
            instrument_id=self.random.choice((0, *TICKS)), side=self.random.choice(("", *"BS"))))

    def kill(self) -> Command:
        """The operator's switch, off."""
        return Command(Kind.CMD_DISABLE_ENTRY, self.random.choice(tuple(FIRMS)),
                       source=Source.ADMIN, key="operator", reason="too fast")

    def unkill(self) -> Command:
        """The operator's switch, on again where it is off."""
        killed = [key for key, value in self.oracle.accounts.items() if value.killed]
        return Command(Kind.CMD_ENABLE_ENTRY, self.random.choice(killed or tuple(FIRMS)),
                       source=Source.ADMIN, key="operator")

    def halt(self) -> Command:
        """An instrument, now and then one that there is not."""
        return Command(Kind.CMD_HALT_INSTRUMENT, source=Source.ADMIN,
                       instrument_id=self.random.choice((*TICKS, 4)),
                       reason=self.random.choice(("news", "", "x" * 24)))

    def resume(self) -> Command:
        """A halted instrument, if there is one."""
        return Command(Kind.CMD_RESUME_INSTRUMENT, source=Source.ADMIN,
                       instrument_id=self.random.choice(tuple(self.oracle.halts) or (1, 4)))

    def set_rules(self) -> Command:
        """So few ids are kept that some are forgotten all the time; and another window."""
        draw = self.random
        most = 2**64 - 1
        return set_rules(draw.choice((0, 10**6, 10**9, most)), draw.choice((0, 2, 10, most)),
                         draw.choice((0, 5, 50, most)), draw.choice(WINDOWS))

    def admin_act(self) -> Command:
        """An act that changes nothing."""
        return Command(Kind.CMD_ADMIN_ACT, self.random.choice((0, *FIRMS)), source=Source.ADMIN,
                       act=self.random.randrange(4), reason="because")

    def _make_private(self, command: Command) -> Command:
        draw = self.random
        command.source = draw.choice((Source.HTTP, Source.HTTP, Source.REDIS, Source.INTERNAL))
        if command.order_id:
            command.source = draw.choice((Source.HTTP, Source.REDIS, Source.ADMIN))
        if command.kind == Kind.CMD_ENTER:
            command.user_ref_idx = 0
        if command.kind != Kind.CMD_CANCEL:
            command.user_ref_num = 0
        command.request_id = draw.randrange(2**32)
        command.actor_account_id = command.account_id
        if draw.random() < 0.1:
            command.account_id = draw.choice(tuple(FIRMS))
        if command.kind in (Kind.CMD_ENTER, Kind.CMD_REPLACE) and draw.random() < 0.6:
            command.client_order_id = f"id-{draw.randrange(400)}"
        return command

    def _name_by_handle(self, command: Command, order: Order) -> None:
        """What a gateway knows of an OUCH order besides its id; sometimes it does not."""
        command.user_ref_idx = 0
        if order.has_stream and self.random.random() < 0.8:
            command.user_ref_idx = order.user_ref_idx
            if command.kind == Kind.CMD_CANCEL:
                command.user_ref_num = order.user_ref_num
            else:
                command.orig_user_ref_num = order.user_ref_num

    def _some_order(self, private: float) -> Order | None:
        """A live order, with that chance a private one."""
        orders = [order for order in self.oracle.live_orders() if not order.has_stream]
        if orders and self.random.random() < private:
            return self.random.choice(orders)
        return self._live_order()

    # Pieces

    def _mid(self, instrument_id: int) -> int:
        """The middle of the market; it walks, and now and then it jumps."""
        tick, mid_units = TICKS[instrument_id], self.mid_units[instrument_id]
        mid_units += self.random.choice((-1, 0, 0, 1)) * tick * max(1, SPREADS[instrument_id] // 8)
        if self.random.random() < JUMP_CHANCE:
            mid_units = int(mid_units * self.random.choice((0.6, 0.9, 1.1, 1.6)))
        low = START_PRICES[instrument_id] // 10
        mid_units = min(max(mid_units, low), 20 * low) // tick * tick
        self.mid_units[instrument_id] = mid_units
        return mid_units

    def _distance(self, instrument_id: int, spreads: float) -> int:
        """A distance in units, up to that many mean spreads."""
        ticks = self.random.randint(0, int(SPREADS[instrument_id] * spreads))
        return ticks * TICKS[instrument_id]

    def _next_number(self, source: Source) -> tuple[int, int, int]:
        account_id = self.random.choice(tuple(FIRMS))
        user_ref_idx = self.random.choice(CHANNELS)
        return account_id, user_ref_idx, self._number(account_id, user_ref_idx, source)

    def _number(self, account_id: int, user_ref_idx: int, source: Source) -> int:
        """The next number of a channel, or nearly, or one that was overtaken: often over UDP."""
        draw = self.random
        if draw.random() < (0.3 if source == Source.UDP else 0.03):
            missing = self.oracle.missing_numbers(account_id, user_ref_idx)
            if missing:
                return draw.choice(missing)
        step = draw.choice(UDP_STEPS if source == Source.UDP else STEPS)
        if source == Source.UDP and draw.random() < 0.002:
            step = draw.choice((1_022, 1_023, 1_024, 1_025, 1_026, 5_000))
        last = self.oracle.last_number(account_id, user_ref_idx)
        return min(max(0, last + step), 2**32 - 1)

    def _ouch_source(self, order: Order) -> Source:
        """An order that came over one transport may be canceled over the other."""
        return self.random.choice(OUCH_SOURCES) if order.has_stream else order.source

    def _live_order(self) -> Order | None:
        resting = [orders for orders in self.oracle.resting.values() if orders]
        return self.random.choice(self.random.choice(resting)) if resting else None

    def _options(self) -> dict[str, object]:
        draw = self.random.random()
        if draw < 0.85:
            return {}
        if draw < 0.95:
            return {"group_id": self.random.choice((1, 7))}
        return {"firm": "AAAA", "customer_type": "R", "locate_broker": "BRKR",
                "group_id": self.random.choice((0, 7))}
