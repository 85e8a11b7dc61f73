"""docs/http.md: every reason of a refusal has its sentence. Its requests run in tests/docs."""

from __future__ import annotations

from engine.api.reasons import sentences
from engine.market.reasons import CANCEL_CODES, REJECT_CODES
from tests.support.daemon import ROOT

PAGE = (ROOT / "docs" / "http.md").read_text("utf-8")


def test_every_reason_has_its_sentence_on_the_page() -> None:
    for code in {*REJECT_CODES.values(), *CANCEL_CODES.values()}:
        assert f"| `{code}` | {sentences()[code]} |" in PAGE
