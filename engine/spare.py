"""Command batches to use again: the door takes one for each read, trading gives it back."""

from cython_core.event import CommandBatch

# One for each connection that is busy at once.
BATCHES_MAX = 64
# A batch that a burst made large is not kept (its memory would be).
UNITS_MAX = 8_192


class SparePool:
    """Emptied command batches, so that a read does not allocate."""

    def __init__(self) -> None:
        self._spare: list[CommandBatch] = []

    def take(self) -> CommandBatch:
        """An empty batch."""
        return self._spare.pop() if self._spare else CommandBatch()

    def give(self, batch: CommandBatch) -> None:
        """Take back a batch that nobody uses any more."""
        if len(batch) <= UNITS_MAX and len(self._spare) < BATCHES_MAX:
            batch.clear()
            self._spare.append(batch)
