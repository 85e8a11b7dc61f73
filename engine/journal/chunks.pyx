# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The stream index of one segment: which chunk of it holds an account's message number N.

A chunk is a run of whole blocks. For every account that got a message in a chunk there is one
entry, with the number of that message; an account's entries are linked from the newest to the
oldest. Beside the entries the index keeps every account's next number, by the one rule that makes
streams out of events (cython_core.stream). EV_SESSION_STARTED begins every stream at 1 again; what
was before it is not served any more.

Counting costs some nanoseconds per event, on the events as they commit; recovery counts the same.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy

from cython_core.event cimport Event, EventBatch
from cython_core.invariant cimport INVARIANT
from cython_core.model cimport EV_INSTRUMENT_DEFINED, EV_SESSION_STARTED
from cython_core.stream cimport recipients

import struct

cdef enum:
    NO_CHUNK = 0xFFFFFFFF
    # A chunk is closed once it has so many units (256 KiB of log): what one lookup may read too
    # much, against 24 bytes of index for each account active in it.
    UNITS_PER_CHUNK = 4096

CHUNK_UNITS = UNITS_PER_CHUNK

cdef struct Slot:
    uint32_t account_id
    uint32_t used
    uint32_t chunk
    uint32_t newest_entry
    uint64_t next_number

cdef struct Entry:
    uint32_t account_id
    uint32_t chunk
    uint64_t first_number
    uint32_t older_entry
    uint32_t reserved

cdef struct Chunk:
    uint64_t offset_bytes
    uint64_t first_seq

_HEAD = struct.Struct("<8sIIIIQQII8x")
_MAGIC = b"MDSGIDX1"


cdef class ChunkIndex:
    """Counts the messages of every account and remembers where each chunk's first one is."""
    cdef Slot *slots
    cdef uint32_t slot_mask
    cdef uint32_t slot_count
    cdef Entry *entries
    cdef uint32_t entry_count
    cdef uint32_t entry_capacity
    cdef Chunk *chunks
    cdef uint32_t chunk_count
    cdef uint32_t chunk_capacity
    cdef uint64_t chunk_units
    # seq of the EV_SESSION_STARTED that the present numbers count from; 0 before the first
    cdef readonly uint64_t generation_seq
    cdef readonly uint64_t rolls
    # EV_INSTRUMENT_DEFINED seen
    cdef readonly uint64_t definitions

    def __cinit__(self):
        self._make_slots(64)

    def __dealloc__(self):
        free(self.slots)
        free(self.entries)
        free(self.chunks)

    # -- counting ----------------------------------------------------------------------------

    def add(self, uint64_t offset_bytes, EventBatch batch not None, bint new_block=True):
        """Count the events of a batch, or of one of several batches of a block at this offset.

        `new_block` is False for the second and later batches of one block: a chunk begins only
        where a block does. Releases the GIL.
        """
        if not batch.units.count:
            return
        if new_block and (not self.chunk_count or self.chunk_units >= UNITS_PER_CHUNK):
            self._open_chunk(offset_bytes, batch.first_seq)
        self.chunk_units += batch.units.count
        with nogil:
            self._count(batch.units.data, batch.units.count, batch.first_seq)

    def next_segment(self):
        """Forget places, keep numbers: what follows is in another segment."""
        cdef uint32_t position
        self.entry_count = 0
        self.chunk_count = 0
        self.chunk_units = 0
        for position in range(self.slot_mask + 1):
            self.slots[position].chunk = NO_CHUNK
            self.slots[position].newest_entry = 0

    def start_at(self, uint32_t account_id, uint64_t number):
        """Count the account's messages on from `number`: for an index that begins later."""
        self._slot(account_id).next_number = number

    cdef int _open_chunk(self, uint64_t offset_bytes, uint64_t first_seq) except -1:
        cdef void *grown
        if self.chunk_count == self.chunk_capacity:
            self.chunk_capacity = self.chunk_capacity * 2 if self.chunk_capacity else 64
            grown = realloc(self.chunks, self.chunk_capacity * sizeof(Chunk))
            if grown == NULL:
                raise MemoryError
            self.chunks = <Chunk *>grown
        self.chunks[self.chunk_count].offset_bytes = offset_bytes
        self.chunks[self.chunk_count].first_seq = first_seq
        self.chunk_count += 1
        self.chunk_units = 0
        return 0

    cdef void _count(self, const Event *units, size_t count, uint64_t seq) noexcept nogil:
        cdef uint32_t accounts[2]
        cdef size_t position = 0
        cdef int nth
        while position < count:
            for nth in range(recipients(&units[position], accounts)):
                self._message(accounts[nth])
            if units[position].kind == EV_SESSION_STARTED:
                self._roll(seq)
            elif units[position].kind == EV_INSTRUMENT_DEFINED:
                self.definitions += 1
            position += <size_t>1 + units[position].ext_count
            seq += 1

    cdef void _message(self, uint32_t account_id) noexcept nogil:
        cdef Slot *slot = self._slot(account_id)
        if slot.chunk != self.chunk_count - 1:
            slot.chunk = self.chunk_count - 1
            self._add_entry(slot)
        slot.next_number += 1

    cdef void _roll(self, uint64_t seq) noexcept nogil:
        cdef uint32_t position
        self.generation_seq = seq
        self.rolls += 1
        self.entry_count = 0
        for position in range(self.slot_mask + 1):
            self.slots[position].chunk = NO_CHUNK
            self.slots[position].newest_entry = 0
            self.slots[position].next_number = 1

    cdef void _add_entry(self, Slot *slot) noexcept nogil:
        cdef Entry *entry
        cdef uint32_t capacity
        if self.entry_count == self.entry_capacity:
            capacity = self.entry_capacity * 2 if self.entry_capacity else 256
            self.entries = <Entry *>realloc(self.entries, capacity * sizeof(Entry))
            INVARIANT(self.entries != NULL, "out of memory for the stream index")
            self.entry_capacity = capacity
        entry = &self.entries[self.entry_count]
        self.entry_count += 1
        entry.account_id = slot.account_id
        entry.chunk = slot.chunk
        entry.first_number = slot.next_number
        entry.older_entry = slot.newest_entry
        entry.reserved = 0
        slot.newest_entry = self.entry_count

    # -- slots: open addressing, never more than half full -----------------------------------

    cdef void _make_slots(self, uint32_t size) noexcept nogil:
        self.slots = <Slot *>calloc(size, sizeof(Slot))
        INVARIANT(self.slots != NULL, "out of memory for the stream index")
        self.slot_mask = size - 1

    cdef Slot *_find_slot(self, uint32_t account_id) noexcept nogil:
        cdef uint32_t position = (account_id * <uint32_t>2654435769) & self.slot_mask
        while self.slots[position].used and self.slots[position].account_id != account_id:
            position = (position + 1) & self.slot_mask
        return &self.slots[position]

    cdef Slot *_slot(self, uint32_t account_id) noexcept nogil:
        cdef Slot *slot = self._find_slot(account_id)
        if slot.used:
            return slot
        if self.slot_count * 2 > self.slot_mask:
            self._grow_slots()
            slot = self._find_slot(account_id)
        slot.used = 1
        slot.account_id = account_id
        slot.chunk = NO_CHUNK
        slot.newest_entry = 0
        slot.next_number = 1
        self.slot_count += 1
        return slot

    cdef void _grow_slots(self) noexcept nogil:
        cdef Slot *old = self.slots
        cdef uint32_t position, size = self.slot_mask + 1
        self._make_slots(size * 2)
        for position in range(size):
            if old[position].used:
                self._find_slot(old[position].account_id)[0] = old[position]
        free(old)

    # -- questions ---------------------------------------------------------------------------

    def next_number(self, uint32_t account_id):
        """The number of the next message of the account; 1 when it had none."""
        cdef Slot *slot = self._find_slot(account_id)
        return slot.next_number if slot.used else 1

    def next_numbers(self):
        """{account id: its next number} for every account that had a message."""
        cdef uint32_t position
        return {self.slots[position].account_id: self.slots[position].next_number
                for position in range(self.slot_mask + 1) if self.slots[position].used}

    def first_numbers(self):
        """{account id: number of its first message here} for accounts with a message here."""
        cdef uint32_t position
        first = {}
        for position in range(self.entry_count):
            first.setdefault(self.entries[position].account_id,
                             self.entries[position].first_number)
        return first

    def find(self, uint32_t account_id, uint64_t number):
        """(offset in the segment, first seq, number there) of the chunk with message `number`.

        The third is the number of the account's first message in that chunk. None when the
        number is before this segment or not given yet.
        """
        cdef Slot *slot = self._find_slot(account_id)
        cdef uint32_t index
        cdef Entry *entry
        if not slot.used or number >= slot.next_number:
            return None
        index = slot.newest_entry
        while index:
            entry = &self.entries[index - 1]
            if entry.first_number <= number:
                return (self.chunks[entry.chunk].offset_bytes,
                        self.chunks[entry.chunk].first_seq, entry.first_number)
            index = entry.older_entry
        return None

    def place_of(self, uint64_t seq):
        """(offset in the segment, first seq) of the chunk that holds this seq, or would; None when
        the segment begins later."""
        cdef uint32_t low = 0
        cdef uint32_t high = self.chunk_count
        cdef uint32_t middle
        while low < high:
            middle = (low + high) // 2
            if self.chunks[middle].first_seq <= seq:
                low = middle + 1
            else:
                high = middle
        if low == 0:
            return None
        return self.chunks[low - 1].offset_bytes, self.chunks[low - 1].first_seq

    @property
    def room_units(self):
        """Units of whole blocks after which the next chunk begins: what may be added as one
        batch without making a chunk longer than a lookup reads."""
        if self.chunk_count and self.chunk_units < UNITS_PER_CHUNK:
            return UNITS_PER_CHUNK - self.chunk_units
        return UNITS_PER_CHUNK

    @property
    def chunk_total(self):
        """Chunks in this segment so far."""
        return self.chunk_count

    # -- keeping -----------------------------------------------------------------------------

    def save(self):
        """The whole index as bytes, without a checksum of its own."""
        head = _HEAD.pack(_MAGIC, self.slot_mask + 1, self.slot_count, self.entry_count,
                          self.chunk_count, self.chunk_units, self.generation_seq, 0, 0)
        return b"".join((
            head, (<const char *>self.slots)[:(self.slot_mask + 1) * sizeof(Slot)],
            (<const char *>self.entries)[:self.entry_count * sizeof(Entry)],
            (<const char *>self.chunks)[:self.chunk_count * sizeof(Chunk)]))

    @staticmethod
    def load(const unsigned char[::1] data not None):
        """The index that `save` gave. Raises ValueError when the bytes do not add up."""
        cdef ChunkIndex index = ChunkIndex()
        cdef size_t at = _HEAD.size
        if data.shape[0] < _HEAD.size:
            raise ValueError("too short for a stream index")
        (magic, slots, slot_count, entries, chunks, chunk_units, generation_seq, _,
         _) = _HEAD.unpack(bytes(data[:_HEAD.size]))
        if (magic != _MAGIC or slots & (slots - 1) or slots < 64 or data.shape[0] != at
                + slots * sizeof(Slot) + entries * sizeof(Entry) + chunks * sizeof(Chunk)):
            raise ValueError("the stream index does not add up")
        index._take(&data[0] + at, slots, entries, chunks)
        index.slot_count = slot_count
        index.chunk_units = chunk_units
        index.generation_seq = generation_seq
        index._check()
        return index

    cdef int _take(self, const unsigned char *data, uint32_t slots, uint32_t entries,
                   uint32_t chunks) except -1:
        free(self.slots)
        self._make_slots(slots)
        memcpy(self.slots, data, slots * sizeof(Slot))
        data += slots * sizeof(Slot)
        self.entry_capacity = entries + 1
        self.entries = <Entry *>realloc(self.entries, self.entry_capacity * sizeof(Entry))
        self.chunk_capacity = chunks + 1
        self.chunks = <Chunk *>realloc(self.chunks, self.chunk_capacity * sizeof(Chunk))
        if self.entries == NULL or self.chunks == NULL:
            raise MemoryError
        memcpy(self.entries, data, entries * sizeof(Entry))
        data += entries * sizeof(Entry)
        memcpy(self.chunks, data, chunks * sizeof(Chunk))
        self.entry_count = entries
        self.chunk_count = chunks
        return 0

    cdef int _check(self) except -1:
        """No link may lead outside, whatever the bytes were."""
        cdef uint32_t position, used = 0
        for position in range(self.entry_count):
            if (self.entries[position].older_entry > position
                    or self.entries[position].chunk >= self.chunk_count):
                raise ValueError("the stream index has a link that leads outside")
        for position in range(self.slot_mask + 1):
            used += self.slots[position].used != 0
            if self.slots[position].newest_entry > self.entry_count:
                raise ValueError("the stream index has a link that leads outside")
        if used != self.slot_count or used > self.slot_mask:
            raise ValueError("the stream index does not count its accounts")
        return 0
