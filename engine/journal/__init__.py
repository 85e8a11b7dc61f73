"""Stage 3: event batches become durable event batches (group commit, snapshots, recovery)."""

from engine.journal.index import ReplayUnavailable
from engine.journal.journal import Journal, Recovered
from engine.journal.memory import MemoryLog
from engine.journal.reader import JournalCorrupt

__all__ = ["Journal", "JournalCorrupt", "MemoryLog", "Recovered", "ReplayUnavailable"]
