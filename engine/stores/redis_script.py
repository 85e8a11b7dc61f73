"""One write as one call: a script that compares positions, then writes, or leaves all as it is.

A script is a transaction as MULTI is: nobody sees half of it, and a server that fails has all of
it or nothing. Its comparison is inside, and it is one command with one answer: for the books of 45
markets it took the client a tenth of a MULTI's time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Word = str | bytes | int

# First the positions, then what would fail half-way: keys of another type, and streams that have
# an entry behind ours. Then everything is written. A command is a number of words and the words;
# "p" publishes a value that another command has in it.
SCRIPT = b"""
local at = 1
local function take()
  at = at + 1
  return ARGV[at - 1]
end
local function check(key, answer)
  if type(answer) == 'table' and answer.err then
    return redis.error_reply(answer.err .. ' [' .. key .. ']')
  end
end
for _ = 1, tonumber(take()) do
  local key, expected = take(), take()
  local found = redis.pcall('GET', key)
  local wrong = check(key, found)
  if wrong then return wrong end
  if (found or '') ~= expected then return {key, found or ''} end
end
for _ = 1, tonumber(take()) do
  local key, id = take(), take()
  local found = redis.pcall('XRANGE', key, id, '+', 'COUNT', '1')
  local wrong = check(key, found)
  if wrong then return wrong end
  if #found > 0 then return redis.error_reply('FOREIGN entry [' .. key .. ']') end
end
for _ = 1, tonumber(take()) do
  local key = take()
  local wrong = check(key, redis.pcall('HLEN', key))
  if wrong then return wrong end
end
while at <= #ARGV do
  local words = take()
  if words == 'p' then
    local channel = take()
    redis.call('PUBLISH', channel, ARGV[tonumber(take())])
  else
    local last = at + tonumber(words) - 1
    redis.call(unpack(ARGV, at, last))
    at = last + 1
  end
end
return 1
"""
# Lua's stack holds no more words of one command.
FIELDS_MAX = 2_000


class Value:
    """A value that a command has and that is published too: sent once."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class Part:
    """What is written to one group of keys."""

    def __init__(self, node_key: str) -> None:
        # A key that tells which node of a cluster is meant.
        self.node_key = node_key
        self._guards: list[Word] = []
        self._streams: list[Word] = []
        self._hashes: list[Word] = []
        self._commands: list[tuple[Word | Value, ...]] = []
        self._published: list[tuple[str, Value]] = []
        self._keys: dict[str, None] = {}

    def guard(self, key: str, expected: bytes) -> None:
        """Nothing is written unless this stands in the key; empty: unless it is not there."""
        self._keys[key] = None
        self._guards += (key, expected)

    def add_entry(self, key: str, seq: int, entries_max: int,
                  *fields: Word | Value) -> None:
        """An entry of a stream: its id is its last event's seq."""
        entry_id = f"{seq}-0"
        if key not in self._streams[::2] and ("DEL", key) not in self._commands:
            self._keys[key] = None
            self._streams += (key, entry_id)
        self._commands.append(("XADD", key, "MAXLEN", "~", entries_max, entry_id, *fields))

    def set_fields(self, key: str, fields: Mapping[str, Word]) -> None:
        """Fields of a hash."""
        self._keys[key] = None
        if ("DEL", key) not in self._commands:
            self._hashes.append(key)
        words = [word for pair in fields.items() for word in pair]
        for at in range(0, len(words), FIELDS_MAX):
            self._commands.append(("HSET", key, *words[at:at + FIELDS_MAX]))

    def set_value(self, key: str, value: Word | Value, expire_s: int = 0) -> None:
        """A plain value, whatever stood there."""
        self._keys[key] = None
        self._commands.append(("SET", key, value, *(("EX", expire_s) if expire_s else ())))

    def delete(self, key: str) -> None:
        """Away with it, before anything else is written to it."""
        self._keys[key] = None
        self._commands.append(("DEL", key))

    def publish(self, channel: str, value: Value) -> None:
        """Publish a value that one of the commands has."""
        self._published.append((channel, value))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not self._commands

    @property
    def keys(self) -> list[str]:
        """Every key that is touched."""
        return list(self._keys)

    def join(self, other: Part) -> None:
        """Write what another part has behind this, in one transaction."""
        self._keys |= other._keys
        self._guards += other._guards
        self._streams += other._streams
        self._hashes += other._hashes
        self._commands += other._commands
        self._published += other._published

    def call(self) -> list[Any]:
        """The words of the command EVAL."""
        words: list[Word] = [len(self._guards) // 2, *self._guards, len(self._streams) // 2,
                             *self._streams, len(self._hashes), *self._hashes]
        places: dict[int, int] = {}
        for command in self._commands:
            words.append(len(command))
            for word in command:
                if isinstance(word, Value):
                    places[id(word)] = len(words) + 1
                    word = word.data
                words.append(word)
        for channel, value in self._published:
            words += ("p", channel, places[id(value)])
        return ["EVAL", SCRIPT, len(self._keys), *self._keys, *words]
