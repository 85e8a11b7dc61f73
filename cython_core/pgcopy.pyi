from cython_core.rows import Rows

COLUMNS: dict[str, tuple[tuple[str, str], ...]]

def encode(rows: Rows, table: str, start: int = 0, stop: int | None = None) -> bytearray: ...
