"""The rows that stores keep, with this venue's words for reasons and roles."""

from collections.abc import Collection

from cython_core.rows import Rows
from engine.accounts import ROLES
from engine.market.reasons import CANCEL_CODES, REJECT_CODES


def new_rows(applied_seq: int = 0, keep: Collection[str] | None = None) -> Rows:
    """Rows of the events behind `applied_seq`; `keep` names the tables wanted, None is all."""
    return Rows(applied_seq, REJECT_CODES, CANCEL_CODES, ROLES, keep)
