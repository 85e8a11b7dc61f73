# cython: language_level=3
"""Sends a recorded day as OUCH messages, and holds every answer against what must come.

The checker walks the day twice at once: `pack` writes messages some way ahead, `report` settles
the lines behind with the venue's answers, in order. The book is kept from the reports alone and
compared where the day says so: with the recorded book rows, and always with the book that the
day's own lines make.

Maker and taker may be one account (then one stream carries everything, in order) or two; then the
driver lets one connection's messages be answered before it writes to the other.

An answer that is missing or wrong is a failed check and nothing more: the checker goes on with
the next line that the venue's messages can be about, so that a report says how much is wrong.
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memmove, memset

from cython_core.ouch cimport ENTER_BYTES, write_cancel, write_enter
from cython_core.wire cimport FRAME_BYTES, get16, get32, get64, put_frame
from engine.clients.replay.day cimport *

# Failures told in words; the rest are only counted.
FAILURES_MAX = 20

CHECKS = ("orders", "hits", "levels", "rows", "strays")

cdef enum:
    # One category of checks each; the order is that of CHECKS.
    CHECK_ORDER = 0
    CHECK_HIT = 1
    CHECK_LEVELS = 2
    CHECK_ROW = 3
    CHECK_STRAY = 4
    CHECK_KINDS = 5

    MAKER = 0
    TAKER = 1

    PACKET_BYTES_MAX = FRAME_BYTES + ENTER_BYTES

# One price on one side.
cdef struct Rung:
    int64_t price_units
    int64_t quantity_lots
    int64_t orders

# One side of a book, best first. A recorded window is some ten levels, so a sorted array is the
# whole data structure.
cdef struct Ladder:
    Rung *rungs
    size_t count
    size_t capacity
    bint buys

# What is known of one order of the day. `intended_lots` is what the sender asked for and did not
# take back; `open_lots` what the reports leave of it; the `line` ones are by the day's own lines.
cdef struct Order:
    uint32_t user_ref_num
    uint32_t intended_lots
    uint32_t open_lots
    uint32_t line_open_lots
    int64_t price_units
    uint8_t side

# The trade of the line that is being settled.
cdef struct Trade:
    uint32_t user_ref_num
    uint64_t taken_lots
    uint64_t given_lots
    uint64_t match_number
    uint32_t fills
    bint accepted
    bint ended
    bint wrong

# The fields of a report that matter here.
cdef struct Report:
    uint8_t letter
    uint8_t stream
    uint8_t side
    uint8_t liquidity
    uint16_t reason
    uint32_t user_ref_num
    uint32_t quantity_lots
    int64_t price_units
    uint64_t match_number


cdef Rung *ladder_find(Ladder *ladder, int64_t price_units, bint add) except? NULL:
    """The rung of a price; with `add` it is made when there is none."""
    cdef size_t place = 0
    cdef Rung *larger
    while place < ladder.count:
        if ladder.rungs[place].price_units == price_units:
            return &ladder.rungs[place]
        if (ladder.rungs[place].price_units > price_units) != ladder.buys:
            break
        place += 1
    if not add:
        return NULL
    if ladder.count == ladder.capacity:
        ladder.capacity = ladder.capacity * 2 if ladder.capacity else 32
        larger = <Rung *>realloc(ladder.rungs, ladder.capacity * sizeof(Rung))
        if larger == NULL:
            raise MemoryError
        ladder.rungs = larger
    memmove(&ladder.rungs[place + 1], &ladder.rungs[place],
            (ladder.count - place) * sizeof(Rung))
    ladder.count += 1
    ladder.rungs[place] = Rung(price_units, 0, 0)
    return &ladder.rungs[place]


cdef int ladder_change(Ladder *ladder, int64_t price_units, int64_t lots, int64_t orders) except -1:
    cdef Rung *rung = ladder_find(ladder, price_units, True)
    cdef size_t place = rung - ladder.rungs
    rung.quantity_lots += lots
    rung.orders += orders
    if rung.quantity_lots == 0:
        memmove(rung, rung + 1, (ladder.count - place - 1) * sizeof(Rung))
        ladder.count -= 1
    return 0


cdef list ladder_levels(const Ladder *ladder):
    return [(ladder.rungs[place].price_units, ladder.rungs[place].quantity_lots,
             ladder.rungs[place].orders) for place in range(ladder.count)]


@cython.final
cdef class Checker:
    """One replay of a day. See the module.

    `next_maker` and `next_taker` are the next UserRefNums of the accounts; the same account in
    both roles is said with `next_taker` None.
    """
    cdef Day _day
    cdef bytes _symbol
    cdef bint _one_stream
    cdef uint32_t _next_ref[2]
    # By line: the UserRefNum sent. By UserRefNum of the maker, from the first: its order.
    cdef uint32_t *_refs
    cdef uint32_t *_order_by_ref
    cdef uint32_t _first_ref
    cdef uint32_t _order_count
    cdef Order *_orders
    cdef Ladder _reported[2]
    cdef Ladder _expected[2]
    cdef Trade _trade
    cdef size_t _packed
    cdef size_t _settled
    cdef readonly size_t packed_messages
    cdef readonly size_t settled_messages
    cdef uint64_t _passed[CHECK_KINDS]
    cdef uint64_t _failed[CHECK_KINDS]
    cdef readonly list failures

    def __cinit__(self, Day day not None, symbol, next_maker, next_taker=None):
        self._day = day
        self._symbol = symbol.encode("ascii").ljust(8)
        if len(self._symbol) != 8:
            raise ValueError(f"symbol {symbol!r} is longer than 8 characters")
        self._one_stream = next_taker is None
        self._next_ref[MAKER] = next_maker
        self._next_ref[TAKER] = 0 if next_taker is None else next_taker
        self._first_ref = next_maker
        self._order_count = len(day.orders)
        self._refs = <uint32_t *>calloc(day.line_count + 1, sizeof(uint32_t))
        self._order_by_ref = <uint32_t *>calloc(day.messages + 1, sizeof(uint32_t))
        # One order more than there are stands for those that nobody knows.
        self._orders = <Order *>calloc(self._order_count + 1, sizeof(Order))
        if self._refs == NULL or self._order_by_ref == NULL or self._orders == NULL:
            raise MemoryError
        self._reported[1].buys = self._expected[1].buys = True
        self.failures = []
        self._settle()

    def __dealloc__(self):
        free(self._refs)
        free(self._order_by_ref)
        free(self._orders)
        for side in range(2):
            free(self._reported[side].rungs)
            free(self._expected[side].rungs)

    # -- what the driver asks ------------------------------------------------------------------

    @property
    def lines_settled(self):
        """Lines of the day that are done with."""
        return self._settled

    @property
    def done(self):
        """Every line is settled."""
        return self._settled == self._day.line_count

    @property
    def in_flight(self):
        """Messages packed and not yet answered."""
        return self.packed_messages - self.settled_messages

    def counts(self):
        """Checks by kind, as {kind: (passed, failed)}."""
        return {kind: (self._passed[index], self._failed[index])
                for index, kind in enumerate(CHECKS)}

    def book(self):
        """The book by the reports: (asks, bids), best first, each level (price_units,
        quantity_lots, orders)."""
        return ladder_levels(&self._reported[0]), ladder_levels(&self._reported[1])

    # -- sending -------------------------------------------------------------------------------

    def pack(self, size_t messages_max, size_t lines_end):
        """The next messages, framed, at most `messages_max` and no line from `lines_end` on.

        Returns (bytes, role): role 0 goes to the maker's connection, 1 to the taker's. With two
        accounts, messages of one role only, and none while the other has some in flight.
        """
        cdef bytearray packets = bytearray(messages_max * PACKET_BYTES_MAX)
        cdef uint8_t *out = packets
        cdef size_t length = 0
        cdef int role = -1
        cdef const Line *line
        lines_end = min(lines_end, self._day.line_count)
        while self._packed < lines_end:
            line = &self._day.lines[self._packed]
            if line.verb <= VERB_HIT:
                if messages_max == 0 or not self._may_pack(line, role):
                    break
                messages_max -= 1
                role = self._role(line)
                length += self._pack_line(line, out + length)
                self.packed_messages += 1
            self._packed += 1
        self._settle()
        return bytes(packets[:length]), max(role, 0)

    cdef int _role(self, const Line *line) noexcept:
        return TAKER if line.verb == VERB_HIT and not self._one_stream else MAKER

    cdef bint _may_pack(self, const Line *line, int role) noexcept:
        if self._one_stream:
            return True
        if role < 0:
            # Both roles alternate only with nothing in flight, or the order would be lost.
            return self.packed_messages == self.settled_messages or (
                line.verb != VERB_HIT and not self._hit_in_flight())
        return self._role(line) == role and role == MAKER

    cdef bint _hit_in_flight(self) noexcept:
        cdef size_t index
        for index in range(self._settled, self._packed):
            if self._day.lines[index].verb == VERB_HIT:
                return True
        return False

    cdef size_t _pack_line(self, const Line *line, uint8_t *out) noexcept:
        cdef Order *order = &self._orders[line.order]
        cdef size_t length
        cdef int role = self._role(line)
        if line.verb == VERB_NEW or line.verb == VERB_HIT:
            self._refs[self._packed] = self._next_ref[role]
            self._next_ref[role] += 1
            length = write_enter(out + FRAME_BYTES, self._refs[self._packed], line.side,
                                 line.quantity_lots, self._symbol, line.price_units,
                                 c'3' if line.verb == VERB_HIT else c'0', b"              ")
            if line.verb == VERB_NEW:
                order[0] = Order(self._refs[self._packed], line.quantity_lots, 0, 0,
                                 line.price_units, line.side)
                self._order_by_ref[order.user_ref_num - self._first_ref] = line.order + 1
        else:
            # A cancel names the size that is meant to stay, with what is done.
            order.intended_lots -= min(line.quantity_lots, order.intended_lots)
            length = write_cancel(out + FRAME_BYTES, order.user_ref_num,
                                  0 if line.verb == VERB_DELETE else order.intended_lots)
            self._refs[self._packed] = order.user_ref_num
        put_frame(out, length, c'U')
        return FRAME_BYTES + length

    # -- answers -------------------------------------------------------------------------------

    def report(self, int role, const uint8_t[::1] payload not None):
        """Take one message of the venue, from the connection of this role."""
        cdef Report report
        if not _read(&report, &payload[0], payload.shape[0]):
            self._fail(CHECK_STRAY, f"a message of type {chr(payload[0])!r}")
            return
        report.stream = role
        if not self._answers(&report) and not self._skip_to(&report):
            self._fail(CHECK_STRAY, _told(&report) + " answers nothing that was sent")
        self._settle()

    def give_up(self):
        """No more answers will come: what is not settled has failed."""
        cdef size_t index
        cdef uint8_t verb
        for index in range(self._settled, self._day.line_count):
            verb = self._day.lines[index].verb
            if verb <= VERB_HIT:
                self._failed[CHECK_HIT if verb == VERB_HIT else CHECK_ORDER] += 1
            elif verb == VERB_CHECK or verb == VERB_END:
                self._failed[CHECK_LEVELS if verb == VERB_CHECK else CHECK_ROW] += 1
        if not self.done:
            self._note(f"line {self._settled + 1}: no answer, and none to what follows")

    cdef bint _answers(self, Report *report) except -1:
        """Whether the line to be settled next waits for this report; it is taken then."""
        cdef const Line *line
        if self._settled >= self._packed:
            return False
        line = &self._day.lines[self._settled]
        if line.verb == VERB_HIT:
            return self._answers_hit(line, report)
        if report.user_ref_num != self._refs[self._settled] or report.stream != MAKER:
            return False
        if line.verb == VERB_NEW:
            return self._answers_new(line, report)
        return self._answers_cancel(line, report)

    cdef bint _answers_new(self, const Line *line, Report *report) except -1:
        cdef Order *order = &self._orders[line.order]
        if report.letter == c'J':
            self._fail(CHECK_ORDER, f"rejected, reason {report.reason:04X}")
        elif report.letter == c'A':
            order.open_lots = report.quantity_lots
            order.price_units = report.price_units
            order.side = report.side
            ladder_change(&self._reported[report.side == c'B'], report.price_units,
                          report.quantity_lots, 1)
            self._judge(CHECK_ORDER, report.quantity_lots == line.quantity_lots
                        and report.price_units == line.price_units and report.side == line.side,
                        report, "was not what was entered")
        else:
            return False
        self._step()
        return True

    cdef bint _answers_cancel(self, const Line *line, Report *report) except -1:
        cdef Order *order = &self._orders[line.order]
        cdef uint32_t lots = (order.line_open_lots if line.verb == VERB_DELETE
                              else line.quantity_lots)
        if report.letter != c'C':
            return False
        self._take(line.order, report.quantity_lots)
        self._judge(CHECK_ORDER, report.quantity_lots == lots and report.reason == c'U', report,
                    f"was to take {lots} off")
        self._step()
        return True

    cdef bint _answers_hit(self, const Line *line, Report *report) except -1:
        cdef Trade *trade = &self._trade
        cdef int taker = 0 if self._one_stream else TAKER
        cdef bint own = (report.user_ref_num == self._refs[self._settled]
                         and report.stream == taker)
        if report.letter == c'E' and own:
            trade.fills += 1
            trade.taken_lots += report.quantity_lots
            trade.wrong |= (report.liquidity != c'R' or report.price_units != line.price_units
                            or trade.match_number not in (0, report.match_number))
            trade.match_number = report.match_number
        elif report.letter == c'E' and report.stream == MAKER:
            trade.given_lots += report.quantity_lots
            trade.wrong |= (report.user_ref_num != self._orders[line.order].user_ref_num
                            or report.liquidity != c'A'
                            or trade.match_number not in (0, report.match_number))
            trade.match_number = report.match_number
            self._take(self._order_of(report.user_ref_num), report.quantity_lots)
        elif own and report.letter == c'A':
            trade.accepted = True
        elif own and (report.letter == c'C' or report.letter == c'J'):
            trade.ended = True
        else:
            return False
        if ((trade.ended or trade.taken_lots >= line.quantity_lots)
                and trade.given_lots == trade.taken_lots):
            self._judge_hit(line, report)
        return True

    cdef int _judge_hit(self, const Line *line, Report *report) except -1:
        cdef Trade *trade = &self._trade
        if (trade.accepted and not trade.wrong and trade.fills == 1 and not trade.ended
                and trade.taken_lots == line.quantity_lots):
            self._passed[CHECK_HIT] += 1
        else:
            self._fail(CHECK_HIT, f"{trade.taken_lots} of {line.quantity_lots} filled in "
                       f"{trade.fills} trades, not all with {self._day.orders[line.order]}; "
                       f"last: {_told(report)}")
        memset(trade, 0, sizeof(Trade))
        self._step()
        return 0

    cdef bint _skip_to(self, Report *report) except -1:
        """The report is about a later line: those before it were not answered."""
        cdef size_t index = self._settled + 1
        cdef const Line *line
        cdef int stream
        while index < self._packed:
            line = &self._day.lines[index]
            stream = self._role(line)
            if (line.verb <= VERB_HIT and stream == report.stream
                    and self._refs[index] == report.user_ref_num
                    and (report.letter == c'A' or report.letter == c'J') == (
                        line.verb == VERB_NEW or line.verb == VERB_HIT)
                    and report.letter != c'E'):
                while self._settled < index:
                    self._miss()
                return self._answers(report)
            index += 1
        if report.letter == c'E' and report.stream == MAKER:
            self._take(self._order_of(report.user_ref_num), report.quantity_lots)
        return False

    cdef int _miss(self) except -1:
        cdef uint8_t verb = self._day.lines[self._settled].verb
        if verb <= VERB_HIT:
            self._fail(CHECK_HIT if verb == VERB_HIT else CHECK_ORDER, "no answer")
            memset(&self._trade, 0, sizeof(Trade))
            self._step()
        self._settle()
        return 0

    cdef size_t _order_of(self, uint32_t user_ref_num) noexcept:
        """The order of the day with this number; the spare one when there is none."""
        cdef uint32_t place = user_ref_num - self._first_ref
        if place > self._day.messages or self._order_by_ref[place] == 0:
            return self._order_count
        return self._order_by_ref[place] - 1

    cdef int _take(self, size_t index, uint32_t lots) except -1:
        """Take shares off the reported book."""
        cdef Order *order = &self._orders[index]
        lots = min(lots, order.open_lots)
        if lots:
            order.open_lots -= lots
            ladder_change(&self._reported[order.side == c'B'], order.price_units,
                          -<int64_t>lots, 0 if order.open_lots else -1)
        return 0

    # -- settling ------------------------------------------------------------------------------

    cdef int _step(self) except -1:
        """The line was answered: carry it out in the expected book, go to the next."""
        cdef const Line *line = &self._day.lines[self._settled]
        cdef Order *order = &self._orders[line.order]
        cdef uint32_t lots
        if line.verb == VERB_NEW:
            order.line_open_lots = line.quantity_lots
            ladder_change(&self._expected[line.side == c'B'], line.price_units,
                          line.quantity_lots, 1)
        else:
            lots = order.line_open_lots
            if line.verb != VERB_DELETE:
                lots = min(lots, line.quantity_lots)
            order.line_open_lots -= lots
            if lots:
                ladder_change(&self._expected[order.side == c'B'], order.price_units,
                              -<int64_t>lots, 0 if order.line_open_lots else -1)
        self._settled += 1
        self.settled_messages += 1
        return 0

    cdef int _settle(self) except -1:
        """Settle the lines that need no answer, up to the next one that does."""
        cdef const Line *line
        while self._settled < self._packed:
            line = &self._day.lines[self._settled]
            if line.verb <= VERB_HIT:
                break
            if line.verb == VERB_CHECK:
                self._compare(line, CHECK_LEVELS, line.asks, line.bids)
            elif line.verb == VERB_END:
                self._compare(line, CHECK_ROW, <size_t>-1, <size_t>-1)
            self._settled += 1
        return 0

    cdef int _compare(self, const Line *line, int kind, size_t asks, size_t bids) except -1:
        cdef Row *row
        cdef bint same = (_same_book(&self._reported[0], &self._expected[0])
                          and _same_book(&self._reported[1], &self._expected[1]))
        if same and self._day.row_count:
            if line.row >= self._day.row_count:
                self._fail(kind, f"the recording has no row {line.row + 1}")
                return 0
            row = &self._day.rows[line.row]
            same = (_same_row(&self._reported[0], &self._day.levels[row.first], row.asks, asks)
                    and _same_row(&self._reported[1], &self._day.levels[row.first + row.asks],
                                  row.bids, bids))
        if same:
            self._passed[kind] += 1
        else:
            self._fail(kind, f"row {line.row + 1}: asks {ladder_levels(&self._reported[0])[:10]}, "
                       f"bids {ladder_levels(&self._reported[1])[:10]} is not the book")
        return 0

    cdef int _judge(self, int kind, bint right, Report *report, text) except -1:
        if right:
            self._passed[kind] += 1
            return 0
        return self._fail(kind, f"{_told(report)} {text}")

    cdef int _fail(self, int kind, text) except -1:
        self._failed[kind] += 1
        return self._note(f"line {self._settled + 1}: {text}")

    cdef int _note(self, text) except -1:
        if len(self.failures) < FAILURES_MAX:
            self.failures.append(text)
        return 0


cdef bint _same_book(const Ladder *one, const Ladder *other) noexcept:
    return one.count == other.count and (
        one.count == 0 or memcmp(one.rungs, other.rungs, one.count * sizeof(Rung)) == 0)


cdef bint _same_row(const Ladder *ladder, const RowLevel *levels, size_t count,
                    size_t compared) noexcept:
    """Whether the best `compared` levels are the row's; more than it has means every level."""
    cdef size_t place
    if compared > count:
        compared = count
        if ladder.count != count:
            return False
    if ladder.count < compared:
        return False
    for place in range(compared):
        if (ladder.rungs[place].price_units != levels[place].price_units
                or ladder.rungs[place].quantity_lots != levels[place].quantity_lots):
            return False
    return True


cdef bint _read(Report *report, const uint8_t *data, size_t length) noexcept:
    """Read the reports that a replay can meet; False for any other. Offsets: PROTOCOLS 2.4."""
    memset(report, 0, sizeof(Report))
    report.letter = data[0]
    if length < 18:
        return False
    report.user_ref_num = get32(data + 9)
    if report.letter == c'A' and length >= 64:
        report.side = data[13]
        report.quantity_lots = get32(data + 14)
        report.price_units = get64(data + 26)
    elif report.letter == c'C':
        report.quantity_lots = get32(data + 13)
        report.reason = data[17]
    elif report.letter == c'E' and length >= 34:
        report.quantity_lots = get32(data + 13)
        report.price_units = get64(data + 17)
        report.liquidity = data[25]
        report.match_number = get64(data + 26)
    elif report.letter == c'J' and length >= 29:
        report.reason = get16(data + 13)
    else:
        return False
    return True


cdef str _told(const Report *report):
    return (f"{chr(report.letter)} of UserRefNum {report.user_ref_num}, "
            f"{report.quantity_lots} at {report.price_units}")
