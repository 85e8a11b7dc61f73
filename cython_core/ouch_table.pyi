import struct
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from cython_core.soupbin import WireError as WireError

class Field(NamedTuple):
    name: str
    kind: Literal["number", "signed", "letter", "text"]
    width: int

class Message(NamedTuple):
    letter: str
    name: str
    fields: tuple[Field, ...]
    appendage: Literal["none", "required", "optional"]
    tags: tuple[int, ...]
    layout: struct.Struct
    fixed_bytes: int

TAGS: dict[int, Field]
INBOUND: dict[str, Message]
OUTBOUND: dict[str, Message]

def decode(
    direction: Literal["in", "out"], data: bytes | bytearray | memoryview
) -> dict[str, Any]: ...
def encode_inbound(
    letter: str, options: Mapping[str, Any] | None = None, **fields: Any
) -> bytes: ...
def encode_outbound(
    letter: str, options: Mapping[str, Any] | None = None, **fields: Any
) -> bytes: ...
