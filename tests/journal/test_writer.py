"""The thread that writes and syncs without the interpreter's lock, and its twin in Python."""

import os
import select
from random import Random

import pytest

from engine.journal.storage import FileStorage, StepFiller, ThreadWriter
from engine.journal.writer import NativeFiller, NativeWriter


@pytest.fixture(params=[NativeWriter, ThreadWriter])
def writer(request):
    made = request.param()
    yield made
    made.close()


@pytest.fixture
def file(tmp_path):
    opened = FileStorage(tmp_path).open("file", create=True)
    yield opened
    opened.close()


def wait(writer) -> None:
    assert select.select([writer.fileno()], [], [], 30)[0]


def test_a_started_write_is_there_when_the_descriptor_is_readable(writer, file):
    for round_ in range(20):
        writer.start(file, [b"ab", b"", b"cde" * 100], round_ * 302, True)
        wait(writer)
        writer.finish()
    assert file.pread(10_000, 0) == (b"ab" + b"cde" * 100) * 20


def test_more_pieces_than_one_call_takes_are_all_written(writer, file):
    pieces = [bytes([index % 251]) * (index % 7) for index in range(5000)]
    writer.start(file, pieces, 64, False)
    wait(writer)
    writer.finish()
    assert file.pread(1 << 20, 64) == b"".join(pieces)
    writer.write_now(file, pieces[::-1], 0, True)
    assert file.pread(1 << 20, 0)[:1000] == b"".join(pieces[::-1])[:1000]


def test_a_failed_write_is_an_error_of_finish_and_the_next_one_works(writer, file, tmp_path):
    read_only = FileStorage(tmp_path).open("file")
    writer.start(read_only, [b"x"], 0, True)
    wait(writer)
    with pytest.raises(OSError, match="Bad file descriptor"):
        writer.finish()
    with pytest.raises(OSError, match="Bad file descriptor"):
        writer.write_now(read_only, [b"x"], 0, True)
    read_only.close()
    writer.write_now(file, [b"x"], 0, True)
    assert file.pread(10, 0) == b"x"


def test_only_one_write_is_under_way(file):
    writer = NativeWriter()
    with pytest.raises(RuntimeError, match="no write was started"):
        writer.finish()
    writer.start(file, [bytes(1 << 20)], 0, True)
    with pytest.raises(RuntimeError, match="under way"):
        writer.start(file, [b"x"], 0, True)
    with pytest.raises(RuntimeError, match="under way"):
        writer.write_now(file, [b"x"], 0, True)
    wait(writer)
    writer.finish()
    writer.close()


def test_a_writer_is_closed_after_the_write_that_is_under_way(file):
    writer = NativeWriter()
    writer.start(file, [b"z" * 1000], 0, True)
    writer.close()
    writer.close()
    assert file.pread(2000, 0) == b"z" * 1000


@pytest.mark.parametrize("filler", [NativeFiller, StepFiller])
def test_a_filler_writes_zeros_up_to_the_size_unless_it_is_hurried(filler, file):
    file.pwritev([b"x" * 100], 0)
    filler().fill(file, 100, 3_000_000)
    assert file.size() == 3_000_000
    assert file.pread(200, 0) == b"x" * 100 + bytes(100)
    hurried = filler()
    hurried.hurry()
    hurried.fill(file, 3_000_000, 4_000_000)
    assert file.size() == 3_000_000


def test_a_filler_says_when_the_disk_does_not_take_it(tmp_path):
    FileStorage(tmp_path).open("file", create=True).close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        NativeFiller().fill(FileStorage(tmp_path).open("file"), 0, 100)


def test_no_descriptor_stays_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        NativeWriter().close()
        ThreadWriter().close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def direct_file(file):
    """A file of whole pages whose synced writes go past the page cache."""
    file.truncate(4 << 20)
    file.bypass_cache()
    if file.direct < 0:
        pytest.skip("this file system has no way past the page cache")
    return file


@pytest.mark.parametrize("seed", range(4))
def test_blocks_past_the_page_cache_stand_behind_one_another(direct_file, seed):
    random = Random(seed)
    writer = NativeWriter()
    expected = bytearray()
    while len(expected) < 1 << 20:
        pieces = [random.randbytes(64 * random.choice((1, 2, 63, 64, 65, 700, 20_000)))
                  for _ in range(random.randint(1, 3))]
        if len(expected) + sum(map(len, pieces)) > 4 << 20:
            break
        writer.write_now(direct_file, pieces, len(expected), True)
        expected += b"".join(pieces)
        if random.random() < 0.2:
            writer.close()
            writer = NativeWriter()
    writer.close()
    assert direct_file.pread(len(expected), 0) == bytes(expected)
    assert not any(direct_file.pread(4 << 20, len(expected)))


def test_the_kept_page_of_one_file_is_not_written_into_another(tmp_path):
    storage = FileStorage(tmp_path)
    writer = NativeWriter()
    for name, letter in (("one", b"1"), ("two", b"2"), ("one", b"3")):
        file = storage.open(name, write=True, create=not storage.exists(name))
        file.truncate(8192)
        file.bypass_cache()
        offset = 64 if letter == b"3" else 0
        writer.write_now(file, [letter * 64], offset, True)
        file.close()
    writer.close()
    file = storage.open("one")
    assert file.pread(192, 0) == b"1" * 64 + b"3" * 64 + bytes(64)
    file.close()
