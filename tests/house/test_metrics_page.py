"""The page of metrics is what the code says."""

from tests.house.metrics_page import PAGE, page, rows


def test_the_page_has_every_metric():
    assert PAGE.read_text() == page(PAGE.read_text()), "python -m tests.house.metrics_page"


def test_the_rows_have_a_name_a_kind_and_a_sentence():
    found = rows()
    assert len(found) > 50
    for row in found:
        _, name, kind, _, text, _ = (part.strip() for part in row.split("|"))
        assert name.startswith("`matchd_") and kind in ("counter", "gauge", "histogram")
        assert (kind == "counter") == name.endswith("_total`")
        assert text[0].isupper() or text[0].isdigit()
        assert text.endswith(".")
