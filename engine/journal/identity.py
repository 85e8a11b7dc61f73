"""The names that follow from a log's id."""

from hashlib import blake2b

SESSION_LENGTH = 10
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def session_id(log_id: bytes, generation: int) -> str:
    """The SoupBinTCP session of a generation: ten capitals and digits, no spaces."""
    digest = blake2b(log_id + generation.to_bytes(4, "little"), digest_size=SESSION_LENGTH).digest()
    return "".join(_LETTERS[byte & 31] for byte in digest)
