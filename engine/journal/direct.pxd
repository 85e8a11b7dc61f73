# Writes past the page cache, in whole pages, for the end of the log.
#
# A commit is written once and, in ordinary running, never read. Through the page cache each byte
# costs a fresh page and a copy that the kernel makes under its own locks; straight to the disk it
# costs one copy into a buffer that stays warm. The disk takes whole pages only, so the last page,
# when a block ends inside it, is kept here and written again in front of the next block.
#
# A small block goes through the page cache all the same: its one or two pages are warm there, and
# one order at a time waits less (150 us against 230 where another core takes the disk's
# interrupts). It is whole pages too, so nothing has to be read before it is written.
#
# What stands behind the end of a write, up to the end of its page, becomes zero.

from libc.errno cimport EINTR, EIO, ENOMEM, errno
from libc.string cimport memcpy, memmove, memset

cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t pwritev(int descriptor, const iovec *pieces, int count, long offset)

cdef extern from "<unistd.h>" nogil:
    ssize_t pwrite(int descriptor, const void *data, size_t size, long offset)
    ssize_t pread(int descriptor, void *data, size_t size, long offset)

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void **memory, size_t alignment, size_t size)

cdef enum:
    PAGE_BYTES = 4096               # what every disk and file system takes
    STAGE_BYTES = 1 << 20           # one request to the disk; larger ones gain nothing
    DIRECT_BYTES_MIN = 1 << 16      # from here on copying costs more than waiting

# `stage[0:tail_bytes]` is what stands in file `serial` from offset `tail_at` on.
cdef struct Stage:
    char *data
    long serial
    long tail_at
    size_t tail_bytes


cdef inline int stage_init(Stage *stage) noexcept nogil:
    """Get the memory; 0 or ENOMEM."""
    stage.serial = 0
    if stage.data == NULL and posix_memalign(<void **>&stage.data, PAGE_BYTES, STAGE_BYTES):
        stage.data = NULL
        return ENOMEM
    return 0


cdef inline int write_pages(int descriptor, const char *data, size_t size,
                            long offset) noexcept nogil:
    """Write whole pages; 0 or an errno."""
    cdef ssize_t written
    while size:
        written = pwrite(descriptor, data, size, offset)
        if written < 0:
            if errno == EINTR:
                continue
            return errno
        if written == 0:
            return EIO
        data += written
        offset += written
        size -= <size_t>written
    return 0


cdef inline int stage_tail(Stage *stage, int descriptor, long serial, long page,
                           size_t tail_bytes) noexcept nogil:
    """Have the first bytes of the page in the stage; 0 or an errno."""
    cdef ssize_t got
    if tail_bytes == 0 or (stage.serial == serial and stage.tail_at == page
                           and stage.tail_bytes == tail_bytes):
        return 0
    while True:
        got = pread(descriptor, stage.data, PAGE_BYTES, page)
        if got >= <ssize_t>tail_bytes:
            return 0
        if got >= 0 or errno != EINTR:
            return EIO if got >= 0 else errno


cdef inline int write_whole_pages(Stage *stage, int cached, int direct, long serial,
                                  const iovec *pieces, int count, long offset) noexcept nogil:
    """Write the pieces one after the other from `offset` on; 0 or an errno.

    `cached` and `direct` are one file, through the page cache and past it.
    """
    cdef long at = offset - offset % PAGE_BYTES
    cdef size_t filled = <size_t>(offset % PAGE_BYTES)
    cdef size_t left, size, whole
    cdef const char *data
    cdef int index
    cdef int code = stage_tail(stage, cached, serial, at, filled)
    cdef int descriptor
    stage.serial = 0
    if code:
        return code
    for index in range(count):
        data = <const char *>pieces[index].iov_base
        left = pieces[index].iov_len
        while left:
            size = left if left < STAGE_BYTES - filled else STAGE_BYTES - filled
            memcpy(stage.data + filled, data, size)
            data += size
            left -= size
            filled += size
            if filled == STAGE_BYTES:
                code = write_pages(direct, stage.data, STAGE_BYTES, at)
                if code:
                    return code
                at += STAGE_BYTES
                filled = 0
    whole = (filled + PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES
    memset(stage.data + filled, 0, whole - filled)
    descriptor = direct if whole >= DIRECT_BYTES_MIN else cached
    code = write_pages(descriptor, stage.data, whole, at)
    if code:
        return code
    size = filled % PAGE_BYTES
    memmove(stage.data, stage.data + filled - size, size)
    stage.serial = serial
    stage.tail_at = at + <long>(filled - size)
    stage.tail_bytes = size
    return 0
