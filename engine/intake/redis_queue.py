"""A queue in Redis, a stream or a list: take entries, take again what was not acknowledged, and
acknowledge together with the answers.

Of a stream, the consumer group keeps what was handed over; of a list, a second list beside it
does. An entry leaves these in the transaction that writes its answer, so it is answered once, and
an entry that a crash left behind is found there again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from engine.config import RedisConfig
from engine.errors import StoreError
from engine.redis_link import RedisLink

# Entries of one read.
READ_MAX = 500
# How long a read waits in the server for the first entry.
WAIT_S = 1.0
# Entries that a consumer which is not ours has held for so long are taken over.
ABANDONED_MS = 30_000
# What the one field of a stream's entry that holds the whole order should be called.
WHOLE = b"order"


class Entry(NamedTuple):
    """One entry. `key` is what it is acknowledged by: the stream's entry id, or the list's element
    itself. `fields` are its names and values, None when they cannot be read, for which `problem`
    then says why."""

    key: bytes
    entry_id: str
    fields: dict[str, Any] | None
    texts: bool
    problem: str = ""


class Done(NamedTuple):
    """An entry with the fields of its answer."""

    key: bytes
    reply: Mapping[str, str | bytes | int]


class Queue(Protocol):
    """What lists and streams have in common. Raises OSError, RedisError."""

    kind: str

    async def open(self) -> None:
        """Make what is needed for taking."""

    async def left_over(self) -> list[Entry]:
        """Everything that was taken and not acknowledged, the oldest first."""

    async def taken_over(self) -> list[bytes]:
        """Keys that were taken and not touched for long, now ours: those of a consumer that is
        gone are among them."""

    async def take(self) -> list[Entry]:
        """The next entries; waits a while, and returns none when none came."""

    async def acknowledge(self, done: Sequence[Done], position: str) -> None:
        """Write the answers and the position, and forget the entries: all or nothing."""


class Names(NamedTuple):
    """The keys of a queue."""

    queue: str
    replies: str
    taken: str
    position: str


def names_of(config: RedisConfig) -> Names:
    """The keys that belong to the configured queue."""
    queue = config.order_queue
    return Names(queue, config.order_replies or f"{queue}:replies", f"{queue}:taken",
                 f"{queue}:position")


async def find_queue(link: RedisLink, config: RedisConfig, consumer: str) -> Queue | None:
    """The queue as it is in the server, None while there is none. Raises StoreError when one of
    its keys is something else."""
    names = names_of(config)
    if link.place.kind == "cluster":
        _require_one_slot(names)
    redis = link.node(names.queue)
    kind, replies, taken = [str(one, "ascii") for one in await _types(
        redis, names.queue, names.replies, names.taken)]
    if replies not in ("none", "stream"):
        raise StoreError(f"{names.replies} is a {replies}", "answers are written to a stream",
                         "a key of another type")
    if kind == "stream":
        return StreamQueue(redis, config, names, consumer)
    # A list that is empty is not there; what was taken of it may be.
    if kind == "list" or (kind == "none" and taken == "list"):
        return ListQueue(redis, config, names)
    if kind != "none":
        raise StoreError(f"{names.queue} is a {kind}", "orders are taken from a list or a stream",
                         "a key of another type")
    return None


async def _types(redis: Redis, *keys: str) -> list[bytes]:
    pipe = redis.pipeline(transaction=False)
    for key in keys:
        pipe.type(key)
    return list(await pipe.execute())


def _require_one_slot(names: Names) -> None:
    tags = {name.partition("{")[2].partition("}")[0] for name in names if "}" in name}
    if len(tags) != 1 or not tags.pop() or not all("{" in name for name in names):
        raise StoreError(f"in a cluster {names.queue} and {names.replies} need one hash tag",
                         'redis.order_queue = "{orders}"')


class StreamQueue:
    """A stream with our consumer group. What is acknowledged is deleted: the stream holds what is
    still to be done."""

    kind = "stream"

    def __init__(self, redis: Redis, config: RedisConfig, names: Names, consumer: str) -> None:
        self._redis, self._names = redis, names
        self._group, self._consumer = config.order_queue_group, consumer
        self._replies_max = config.stream_entries_max

    async def open(self) -> None:
        """Make the group, which begins with the first entry there is."""
        try:
            await self._redis.xgroup_create(self._names.queue, self._group, id="0")
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def left_over(self) -> list[Entry]:
        """Ours that were not acknowledged, and those of a consumer that is gone."""
        await self.taken_over()
        found: list[Entry] = []
        last = b"0"
        while True:
            page = await self._read(last, None)
            found += page
            if len(page) < READ_MAX:
                return found
            last = page[-1].key

    async def taken_over(self) -> list[bytes]:
        """What the group handed over long ago."""
        found: list[bytes] = []
        start = b"0-0"
        while True:
            answer: Any = await self._redis.xautoclaim(
                self._names.queue, self._group, self._consumer, ABANDONED_MS, start, READ_MAX)
            start = answer[0]
            found += [key for key, _ in answer[1]]
            if start == b"0-0":
                return found

    async def take(self) -> list[Entry]:
        """New entries for our group."""
        return await self._read(b">", int(WAIT_S * 1_000))

    async def _read(self, after: bytes, block_ms: int | None) -> list[Entry]:
        answer: Any = await self._redis.xreadgroup(
            self._group, self._consumer, {self._names.queue: after}, READ_MAX, block_ms)
        return [_of_stream(key, fields or {}) for _, entries in answer or ()
                for key, fields in entries]

    async def acknowledge(self, done: Sequence[Done], position: str) -> None:
        """Answers, acknowledgements and deletions in one transaction."""
        pipe = self._redis.pipeline(transaction=True)
        _write_replies(pipe, self._names.replies, done, self._replies_max)
        keys = [one.key for one in done]
        pipe.xack(self._names.queue, self._group, *keys)
        pipe.xdel(self._names.queue, *keys)
        pipe.set(self._names.position, position)
        await pipe.execute()


class ListQueue:
    """A list: producers push to its right end (RPUSH), we take from the left."""

    kind = "list"

    def __init__(self, redis: Redis, config: RedisConfig, names: Names) -> None:
        self._redis, self._names = redis, names
        self._replies_max = config.stream_entries_max

    async def open(self) -> None:
        """Nothing to make."""

    async def left_over(self) -> list[Entry]:
        """The list of what was taken."""
        raw: Any = await self._redis.lrange(self._names.taken, 0, -1)
        return [_of_list(one) for one in raw]

    async def taken_over(self) -> list[bytes]:
        """None: a list has one venue."""
        return []

    async def take(self) -> list[Entry]:
        """Move entries to the list of what was taken: the first as soon as there is one, then as
        many as wait."""
        queue, taken = self._names.queue, self._names.taken
        first: Any = await self._redis.blmove(queue, taken, int(WAIT_S), "LEFT", "RIGHT")
        if first is None:
            return []
        count: int = await self._redis.llen(queue)
        pipe = self._redis.pipeline(transaction=False)
        for _ in range(min(count, READ_MAX - 1)):
            pipe.lmove(queue, taken, "LEFT", "RIGHT")
        more: list[Any] = await pipe.execute() if count else []
        return [_of_list(one) for one in (first, *more) if one is not None]

    async def acknowledge(self, done: Sequence[Done], position: str) -> None:
        """Answers and removals in one transaction."""
        pipe = self._redis.pipeline(transaction=True)
        _write_replies(pipe, self._names.replies, done, self._replies_max)
        for one in done:
            pipe.lrem(self._names.taken, 1, one.key)     # type: ignore[arg-type]
        pipe.set(self._names.position, position)
        await pipe.execute()


async def read_position(link: RedisLink, config: RedisConfig, now: str) -> str:
    """Behind which event of the log everything is that is taken and not acknowledged; `now` when
    nothing was ever acknowledged."""
    names = names_of(config)
    redis = link.node(names.queue)
    await redis.set(names.position, now, nx=True)
    found: Any = await redis.get(names.position)
    return str(found or b"", "utf-8", "replace")


def _write_replies(pipe: Any, replies: str, done: Sequence[Done], replies_max: int) -> None:
    for one in done:
        pipe.xadd(replies, one.reply, maxlen=replies_max, approximate=True)


def _of_stream(key: bytes, raw: Mapping[bytes, bytes]) -> Entry:
    entry_id = str(key, "ascii")
    if len(raw) == 1:
        # No order has one field: it is one that holds the order, whatever the producer calls it.
        ((name, whole),) = raw.items()
        fields, problem = _decoded(whole)
        if fields is not None or name == WHOLE:
            return Entry(key, entry_id, fields, False, problem)
    try:
        texts = {str(name, "utf-8"): str(value, "utf-8") for name, value in raw.items()}
    except UnicodeDecodeError:
        return Entry(key, entry_id, None, True, "its names and values are not UTF-8")
    if not texts:
        return Entry(key, entry_id, None, True, "it was deleted before it was done")
    return Entry(key, entry_id, texts, True)


def _of_list(raw: bytes) -> Entry:
    fields, problem = _decoded(raw)
    return Entry(raw, "", fields, False, problem)


def _decoded(raw: bytes) -> tuple[dict[str, Any] | None, str]:
    """A map of JSON, which begins with a brace, or of MessagePack; or what is wrong with it."""
    begins_json = raw.lstrip()[:1] == b"{"
    try:
        if begins_json:
            return msgspec.json.decode(raw, type=dict[str, Any]), ""
        return msgspec.msgpack.decode(raw, type=dict[str, Any]), ""
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        if begins_json:
            return None, f"its JSON can't be read: {error}"
        if _is_map(raw):
            return None, f"its MessagePack can't be read: {error}"
        return None, "it is neither a map of JSON nor one of MessagePack"


def _is_map(raw: bytes) -> bool:
    """Whether these bytes begin as a map of MessagePack does."""
    return bool(raw) and (raw[0] & 0xF0 == 0x80 or raw[0] in (0xDE, 0xDF))
