"""Random flows of commands for the tests of the core: every operation, with every kind of mistake.

Deterministic by seed. Prices lie close together so that orders meet.
"""

import random

from cython_core.event import CommandBatch
from cython_core.model import Flag, Source

ACCOUNTS = (7, 8, 4_000_000_000)
INSTRUMENTS = (1, 2, 300)
SOURCES = (Source.TCP, Source.TCP, Source.TCP, Source.UDP, Source.HTTP)


def definitions(limits=False, udp_window=1_024):
    """A batch that defines the accounts and instruments of the flows, and the window of numbers."""
    batch = CommandBatch()
    for number in INSTRUMENTS:
        batch.define_instrument(number, f"SYMBOL-{number}", f"S{number}", 2, 5, 0,
                                quantity_max_lots=1_000_000)
    batch.define_account(ACCOUNTS[0], "first", firm="FRMA")
    if limits:
        batch.define_account(ACCOUNTS[1], "second", quantity_max_lots=900, notional_max=700_000,
                             open_orders_max=40, collar_bps=400)
    else:
        batch.define_account(ACCOUNTS[1], "second")
    batch.define_account(ACCOUNTS[2], "third")
    batch.set_rules(10**9, 100, 10_000, udp_window)
    return batch


class Flow:
    """Makes commands; keeps only the last numbers, so many name orders that are dead.

    Over UDP numbers jump and come late, whether they were used before or not.
    """

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.numbers = {}

    def next_number(self, account, channel, source=Source.TCP):
        if source == Source.UDP and self.random.random() < 0.4:
            return self.old_number(account, channel)
        steps = (1, 1, 1, 2, 9, 0) if source == Source.UDP else (1, 1, 1, 2, 0)
        number = self.numbers.get((account, channel), 0) + self.random.choice(steps)
        self.numbers[account, channel] = number
        return number

    def old_number(self, account, channel):
        last = self.numbers.get((account, channel), 0)
        return max(0, last - self.random.randrange(60))

    def price(self):
        chance = self.random.random()
        if chance < 0.02:
            return self.random.choice((0x7FFFFFFF, 2_000_000_000, 0x80000000))
        if chance < 0.04:
            return self.random.choice((0, -5, 1001, 2_000_000_001, 1_999_999_999, 10**15))
        if chance < 0.08:
            return 5 * self.random.randrange(1, 399_999_999)
        return 5 * int(200 + self.random.gauss(0, 8))

    def quantity(self):
        return self.random.choice((0, 1, 5, 10, 10, 100, 300, 1000, 2_000_000))

    def batch(self, count):
        """A batch of `count` commands."""
        batch = CommandBatch()
        for _ in range(count):
            self.add(batch)
        return batch

    def add(self, batch):
        pick = self.random
        account = pick.choice(ACCOUNTS)
        channel = pick.choice((0, 0, 0, 3, 255))
        source = pick.choice(SOURCES)
        chance = pick.random()
        if chance < 0.5:
            self.enter(batch, account, channel, source)
        elif chance < 0.65:
            self.replace(batch, account, channel, source)
        elif chance < 0.83:
            batch.cancel(account, self.old_number(account, channel),
                         pick.choice((0, 0, 0, 3, 7, 50, 2**33)), user_ref_idx=channel,
                         source=source)
        elif chance < 0.93:
            batch.modify(account, self.old_number(account, channel), pick.choice("BSTEX"),
                         pick.choice((0, 4, 60, 1000)), user_ref_idx=channel, source=source)
        else:
            self.rare(batch, account, channel, source)

    def enter(self, batch, account, channel, source):
        pick = self.random
        flags = pick.choice((0,) * 20 + (int(Flag.RATE_EXCEEDED),))
        batch.enter(account, self.next_number(account, channel, source),
                    pick.choice((*INSTRUMENTS, 1, 1, 1, 1, 999)), pick.choice("BBSSTE"),
                    self.quantity(), self.price(), pick.choice("00001134"),
                    client_order=pick.choice(("", "abc", "x" * 14)), user_ref_idx=channel,
                    post_only=pick.random() < 0.1,
                    min_quantity_lots=pick.choice((0, 0, 0, 0, 5, 10, 100)), source=source,
                    flags=flags, display=pick.choice("YNA"), capacity=pick.choice("AP"),
                    firm=pick.choice(("", "", "", "ABCD")))

    def replace(self, batch, account, channel, source):
        pick = self.random
        flags = pick.choice((0,) * 20 + (int(Flag.RATE_EXCEEDED),))
        batch.replace(account, self.old_number(account, channel),
                      self.next_number(account, channel, source), self.quantity(), self.price(),
                      pick.choice("00001134"), client_order=pick.choice(("", "def")),
                      user_ref_idx=channel, side=pick.choice(("", "", "S", "T", "E", "B")),
                      post_only=pick.choice((None, None, True, False)),
                      min_quantity_lots=pick.choice((0, 0, 0, 5)), source=source, flags=flags,
                      display=pick.choice("YN"))

    def rare(self, batch, account, channel, source):
        pick = self.random
        number = self.next_number(account, channel, source)
        chance = pick.random()
        if chance < 0.3:
            batch.mass_cancel(account, number, firm=pick.choice(("", "FRMA", "NONE")),
                              instrument_id=pick.choice((0, 1, 2, 77)),
                              side=pick.choice(("", "B", "S", "T")),
                              group_id=pick.choice((None, None, 0, 4)), user_ref_idx=channel,
                              source=source)
        elif chance < 0.6:
            enable = pick.random() < 0.7
            batch.order_entry(account, number, enable, firm=pick.choice(("", "", "NONE")),
                              user_ref_idx=channel, source=source)
        elif chance < 0.97:
            batch.account_query(account, user_ref_idx=channel, source=source)
        else:
            batch.session_roll()
            self.numbers.clear()
