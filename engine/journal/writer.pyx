# cython: language_level=3
"""The thread that writes and syncs, without the GIL.

The loop hands over one write at a time and is told through an event descriptor when it is on
disk. The thread holds no Python object and never takes the GIL, so neither a busy loop delays it
nor does it delay the loop: with a Python thread, each commit would first wait for the
interpreter's switch interval (5 ms) whenever the loop has work.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EINTR, EINVAL, EIO, errno
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, realloc

import os
import signal

from engine.journal.direct cimport (Stage, iovec, pwritev, stage_init, write_pages,
                                    write_whole_pages)

cdef extern from "<unistd.h>" nogil:
    int fdatasync(int descriptor)
    ssize_t write(int descriptor, const void *data, size_t size)

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int nanosleep(const timespec *wanted, timespec *left)

cdef extern from "<semaphore.h>" nogil:
    ctypedef struct sem_t:
        pass
    int sem_init(sem_t *semaphore, int shared, unsigned int value)
    int sem_wait(sem_t *semaphore)
    int sem_post(sem_t *semaphore)
    int sem_destroy(sem_t *semaphore)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    int pthread_join(pthread_t thread, void **result)

cdef extern from *:
    """
    #include <pthread.h>
    #include <signal.h>
    /* Signals belong to the loop's thread: new threads inherit the mask of their maker. */
    static int matchd_thread_create(pthread_t *thread, void *(*start)(void *), void *argument) {
        sigset_t every, before;
        sigfillset(&every);
        pthread_sigmask(SIG_SETMASK, &every, &before);
        int code = pthread_create(thread, NULL, start, argument);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        return code;
    }
    """
    int matchd_thread_create(pthread_t *thread, void *(*start)(void *) noexcept nogil,
                             void *argument) nogil

cdef extern from *:
    """
    /* At a page's boundary, because it is written past the page cache. */
    static char matchd_zeros[1 << 20] __attribute__((aligned(4096)));
    """
    char *matchd_zeros

# Linux takes at most this many pieces in one pwritev.
cdef enum:
    IOV_MAX = 1024

# Zeros that are written in one go while a segment is filled: large enough to be quick, small
# enough that a commit that comes in between waits little; and the breath after each. Through the
# page cache each step is synced too, or the commit would have to wait for all of them.
cdef enum:
    FILL_BYTES = 1 << 20
    FILL_PAUSE_NS = 300000

cdef struct Job:
    int descriptor
    int direct                  # the same file past the page cache, or -1
    long serial                 # of the file: descriptors are used again
    Stage *stage
    int count
    int capacity
    iovec *pieces
    long offset
    bint sync
    bint pending
    int error
    int event_descriptor
    sem_t wake


cdef int _write_all(Job *job) noexcept nogil:
    """Write the pieces and sync; 0 or an errno. Uses up the job's pieces."""
    cdef iovec *piece = job.pieces
    cdef int left = job.count
    cdef ssize_t written
    if left and job.sync and job.direct >= 0 and _write_whole_pages(job):
        left = 0
        if job.error:
            return job.error
    while left:
        written = pwritev(job.descriptor, piece, left if left < IOV_MAX else IOV_MAX, job.offset)
        if written < 0:
            if errno == EINTR:
                continue
            return errno
        if written == 0 and piece.iov_len:
            return EIO
        job.offset += written
        while left and <size_t>written >= piece.iov_len:
            written -= piece.iov_len
            piece += 1
            left -= 1
        if left:
            piece.iov_base = <char *>piece.iov_base + written
            piece.iov_len -= written
    if job.sync and fdatasync(job.descriptor):
        return errno
    return 0


cdef bint _write_whole_pages(Job *job) noexcept nogil:
    """Whether the file system took it that way; `job.error` has what went wrong."""
    job.error = stage_init(job.stage)
    if job.error == 0:
        job.error = write_whole_pages(job.stage, job.descriptor, job.direct, job.serial,
                                      job.pieces, job.count, job.offset)
    if job.error != EINVAL:
        return True
    job.error = 0
    return False


cdef void *_run(void *argument) noexcept nogil:
    cdef Job *job = <Job *>argument
    cdef uint64_t one = 1
    while True:
        while sem_wait(&job.wake):
            pass
        if not job.pending:
            return NULL
        job.pending = False
        job.error = _write_all(job)
        while write(job.event_descriptor, &one, sizeof(one)) < 0 and errno == EINTR:
            pass


cdef class NativeWriter:
    """Writes to real files, in its own thread or in the caller's.

    `start`, then wait until `fileno()` is readable, then `finish`. One write at a time.
    """
    cdef Job job
    cdef pthread_t thread
    cdef bint opened
    cdef bint running
    cdef Py_buffer *views
    cdef int view_count
    cdef int view_capacity
    cdef Stage stage
    cdef readonly bint busy

    def __cinit__(self):
        self.job.stage = &self.stage
        self.job.event_descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.opened = True
        sem_init(&self.job.wake, 0, 0)
        code = matchd_thread_create(&self.thread, _run, &self.job)
        if code:
            raise OSError(code, os.strerror(code))
        self.running = True

    def __dealloc__(self):
        self._stop()
        self._release()
        free(self.job.pieces)
        free(self.views)
        free(self.stage.data)
        if self.opened:
            sem_destroy(&self.job.wake)

    def fileno(self):
        """The descriptor that becomes readable when the write that was started is over."""
        return self.job.event_descriptor

    def start(self, file, list pieces not None, offset, bint sync):
        """Write `pieces` to the file at `offset`, and sync it if asked, in the thread.

        The pieces must not change until `finish`. Raises RuntimeError while a write is under way.
        """
        if self.busy or not self.running:
            raise RuntimeError("a write is under way, or the writer is closed")
        self._prepare(file, pieces, offset, sync)
        self.busy = True
        self.job.pending = True
        sem_post(&self.job.wake)

    def finish(self):
        """Take the result of the write that was started. Raises OSError when it failed."""
        if not self.busy:
            raise RuntimeError("no write was started")
        os.eventfd_read(self.job.event_descriptor)
        self.busy = False
        self._release()
        self._raise(self.job.error)

    def write_now(self, file, list pieces not None, offset, bint sync):
        """The same in the calling thread. Raises OSError."""
        cdef int code
        if self.busy:
            raise RuntimeError("a write is under way")
        self._prepare(file, pieces, offset, sync)
        with nogil:
            code = _write_all(&self.job)
        self._release()
        self._raise(code)

    def close(self):
        """End the thread, after the write that is under way."""
        self._stop()
        if self.opened and self.job.event_descriptor >= 0:
            os.close(self.job.event_descriptor)
            self.job.event_descriptor = -1

    cdef int _stop(self) except -1:
        if self.running:
            self.running = False
            sem_post(&self.job.wake)
            with nogil:
                pthread_join(self.thread, NULL)
        return 0

    cdef int _raise(self, int code) except -1:
        if code:
            raise OSError(code, os.strerror(code))
        return 0

    cdef int _prepare(self, file, list pieces, offset, bint sync) except -1:
        cdef int count = <int>len(pieces)
        cdef Py_buffer *view
        self._reserve(count)
        for piece in pieces:
            view = &self.views[self.view_count]
            PyObject_GetBuffer(piece, view, PyBUF_SIMPLE)
            self.job.pieces[self.view_count].iov_base = view.buf
            self.job.pieces[self.view_count].iov_len = view.len
            self.view_count += 1
        self.job.count = count
        self.job.descriptor = file.descriptor
        self.job.direct = file.direct
        self.job.serial = file.serial
        self.job.offset = offset
        self.job.sync = sync
        self.job.error = 0
        return 0

    cdef int _reserve(self, int count) except -1:
        cdef int capacity = count * 2
        cdef void *views
        cdef void *pieces
        if count <= self.view_capacity:
            return 0
        views = realloc(self.views, capacity * sizeof(Py_buffer))
        if views == NULL:
            raise MemoryError
        self.views = <Py_buffer *>views
        pieces = realloc(self.job.pieces, capacity * sizeof(iovec))
        if pieces == NULL:
            raise MemoryError
        self.job.pieces = <iovec *>pieces
        self.view_capacity = capacity
        return 0

    cdef void _release(self) noexcept:
        while self.view_count:
            self.view_count -= 1
            PyBuffer_Release(&self.views[self.view_count])


cdef class NativeFiller:
    """Writes zeros into a real file, without the GIL. For one thread; `hurry` is for others."""
    cdef volatile bint hurried

    def fill(self, file, offset, size):
        """Write and sync zeros from `offset` up to `size`, or until `hurry`. Raises OSError."""
        cdef int descriptor = file.descriptor
        cdef int direct = file.direct
        cdef size_t at = offset
        cdef size_t end = size
        cdef int code
        with nogil:
            code = self._fill(descriptor, direct, at, end)
        if code:
            raise OSError(code, os.strerror(code))

    def hurry(self):
        """End the filling that is under way, and every later one, after its present step."""
        self.hurried = True

    cdef int _fill(self, int descriptor, int direct, size_t at, size_t end) noexcept nogil:
        cdef timespec pause
        cdef size_t size
        cdef int code = 0
        pause.tv_sec = 0
        pause.tv_nsec = FILL_PAUSE_NS
        while at < end and not self.hurried:
            size = end - at if end - at < FILL_BYTES else FILL_BYTES
            if direct >= 0:
                code = write_pages(direct, matchd_zeros, size, <long>at)
            if direct < 0 or code == EINVAL:
                direct = -1
                code = write_pages(descriptor, matchd_zeros, size, <long>at)
                if code == 0 and fdatasync(descriptor):
                    code = errno
            if code:
                return code
            at += size
            nanosleep(&pause, NULL)
        return errno if fdatasync(descriptor) else 0


cdef extern from "Python.h":
    void PyOS_BeforeFork()
    void PyOS_AfterFork_Parent()
    void PyOS_AfterFork_Child()

cdef extern from "<unistd.h>":
    int c_fork "fork"()

cdef extern from "<sys/prctl.h>" nogil:
    int prctl(int option, unsigned long value)
    enum:
        PR_SET_PDEATHSIG


def die_with_parent(int parent):
    """Have this process killed when its parent ends; False when it has ended already."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def fork():
    """os.fork without its warning about threads: 0 in the child. Raises OSError.

    The warning is about locks that another thread may hold. The child of a snapshot takes none:
    it reads memory, writes one file and ends.
    """
    cdef int child
    PyOS_BeforeFork()
    child = c_fork()
    if child == 0:
        PyOS_AfterFork_Child()
        return 0
    PyOS_AfterFork_Parent()
    if child < 0:
        raise OSError(errno, os.strerror(errno))
    return child
