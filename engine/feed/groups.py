"""Groups: clients with the same encoding and the same live chains, who are sent the same bytes.

Groups change between ticks only; while a tick's bytes go out they stand still.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from engine.feed.encode import Encoding, Message
from engine.feed.wire import Wire

if TYPE_CHECKING:
    from engine.feed.chains import Chain


class Group:
    """Clients that are sent the same bytes."""

    __slots__ = ("chains", "data", "encoding", "frames", "messages", "places", "wires")

    def __init__(self, encoding: Encoding, chains: frozenset[Chain]) -> None:
        self.encoding = encoding
        self.chains = chains
        self.wires: list[Wire] = []
        self.places: dict[Wire, int] = {}
        self.frames: list[bytes] = []
        self.data = b""
        self.messages = 0

    def add(self, wire: Wire) -> None:
        """A client joins."""
        self.places[wire] = len(self.wires)
        self.wires.append(wire)

    def remove(self, wire: Wire) -> None:
        """A client leaves; the last one takes its place."""
        place = self.places.pop(wire)
        last = self.wires.pop()
        if last is not wire:
            self.wires[place] = last
            self.places[last] = place

    def collect(self, messages: Iterable[Message]) -> None:
        """Messages of one chain that this group gets in this tick."""
        self.frames.extend([message.frame(self.encoding) for message in messages])

    def close_batch(self) -> None:
        """All of this tick's messages are there: make them one piece."""
        self.messages = len(self.frames)
        self.data = self.frames[0] if self.messages == 1 else b"".join(self.frames)
        self.frames = []

    def forget_batch(self) -> None:
        """The tick is over."""
        self.data, self.messages = b"", 0


class Groups:
    """Every group with clients."""

    def __init__(self) -> None:
        self._groups: dict[tuple[Encoding, frozenset[Chain]], Group] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def move(self, wire: Wire, group: Group | None, encoding: Encoding,
             chains: frozenset[Chain]) -> Group | None:
        """Move a client from its group to the one of these chains; returns that one, None for no
        chains."""
        if group is not None:
            if group.chains == chains and group.encoding is encoding:
                return group
            self._leave(wire, group)
        if not chains:
            return None
        joined = self._groups.get((encoding, chains))
        if joined is None:
            joined = self._groups[encoding, chains] = Group(encoding, chains)
            for chain in chains:
                chain.groups.add(joined)
        joined.add(wire)
        return joined

    def _leave(self, wire: Wire, group: Group) -> None:
        group.remove(wire)
        if not group.wires:
            del self._groups[group.encoding, group.chains]
            for chain in group.chains:
                chain.groups.discard(group)
