# cython: language_level=3
"""A recorded day, compact: read once, then sent and checked without a Python object per line.

A day of NASDAQ for one busy stock has some 600,000 lines; as tuples they would take longer to
walk than the venue takes to match them.
"""

cimport cython
from libc.stdlib cimport free, realloc

from engine.clients.replay import commands


cdef void *_grown(void *data, size_t count, size_t *capacity, size_t width) except NULL:
    cdef void *larger
    if data != NULL and count < capacity[0]:
        return data
    capacity[0] = capacity[0] * 2 if capacity[0] else 1024
    larger = realloc(data, capacity[0] * width)
    if larger == NULL:
        raise MemoryError
    return larger


@cython.final
cdef class Day:
    """The lines of a day, and the recorded book rows where they are known.

    `orders` are the recording's names of its orders, `messages` counts what has to be sent, and
    `steps` holds (time_ns, index of the first line) of each step.
    """

    def __cinit__(self):
        self.orders = []
        self.steps = []
        self._index = {}

    def __dealloc__(self):
        free(self.lines)
        free(self.rows)
        free(self.levels)

    def __len__(self):
        return self.line_count

    @property
    def recorded_rows(self):
        """How many book rows are known."""
        return self.row_count

    def add_row(self, row):
        """Add the next recorded book row. Raises OverflowError for what is no price."""
        cdef Row *place
        self.rows = <Row *>_grown(self.rows, self.row_count, &self._row_capacity, sizeof(Row))
        place = &self.rows[self.row_count]
        place.first = self._level_count
        place.asks = len(row.asks)
        place.bids = len(row.bids)
        self._add_levels(row.asks)
        self._add_levels(row.bids)
        self.row_count += 1

    cdef int _add_levels(self, list levels) except -1:
        for price_units, quantity_lots in levels:
            self.levels = <RowLevel *>_grown(
                self.levels, self._level_count, &self._level_capacity, sizeof(RowLevel))
            self.levels[self._level_count].price_units = price_units
            self.levels[self._level_count].quantity_lots = quantity_lots
            self._level_count += 1
        return 0

    def add_step(self, step):
        """Add a step's lines, and its book row if it has one.

        Raises ReplayError, with the number of the line, for an order that is entered twice or not
        known and for a number that does not fit the wire.
        """
        self.steps.append((step.time_ns, self.line_count))
        if step.row is not None:
            self.add_row(step.row)
        for command in step.commands:
            try:
                self._add(command)
            except (ValueError, OverflowError) as error:
                raise commands.ReplayError(f"line {self.line_count}: {error}") from error

    cdef Line *_next_line(self) except NULL:
        cdef Line *line
        self.lines = <Line *>_grown(self.lines, self.line_count, &self._line_capacity,
                                    sizeof(Line))
        line = &self.lines[self.line_count]
        self.line_count += 1
        line[0] = Line(0, 0, 0, 0, 0, 0, VERB_NOTHING, 0)
        return line

    cdef uint32_t _known(self, str order) except? 0xFFFFFFFF:
        index = self._index.get(order)
        if index is None:
            raise ValueError(f"order {order} was not entered before")
        return index

    cdef int _add(self, command) except -1:
        cdef Line *line = self._next_line()
        kind = type(command)
        if kind is commands.New:
            if command.order in self._index:
                raise ValueError(f"order {command.order} is entered twice")
            line.order = self._index[command.order] = len(self.orders)
            self.orders.append(command.order)
            line.verb = VERB_NEW
        elif kind is commands.Hit:
            line.order = self._known(command.maker)
            line.verb = VERB_HIT
        elif kind is commands.Reduce:
            line.order = self._known(command.order)
            line.quantity_lots = command.quantity_lots
            line.verb = VERB_REDUCE
        elif kind is commands.Delete:
            line.order = self._known(command.order)
            line.verb = VERB_DELETE
        elif kind is commands.Check:
            line.row, line.asks, line.bids = command.row - 1, command.asks, command.bids
            line.verb = VERB_CHECK
        elif kind is commands.End:
            line.row = command.row - 1
            line.verb = VERB_END
        elif kind is commands.Sync:
            line.verb = VERB_SYNC
        if line.verb == VERB_NEW or line.verb == VERB_HIT:
            line.side = ord(command.side)
            line.price_units = command.price_units
            line.quantity_lots = command.quantity_lots
        if line.verb <= VERB_HIT:
            self.messages += 1
        return 0
