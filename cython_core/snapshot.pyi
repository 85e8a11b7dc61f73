# Compiled code for other modules of the core; nothing here is for Python but what save() returns.
from typing import final

@final
class Region:
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Hasher: ...
