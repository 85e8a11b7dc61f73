"""Makes the table of metrics in docs/operations-http.md from the metrics of a venue.

`python -m tests.house.metrics_page` writes it; a test holds it against the code.
"""

import tempfile
from pathlib import Path

from engine import config
from engine.api.published import label_names, published_name, sentence
from engine.app import App
from engine.journal.journal import Journal
from engine.metrics import Counter, Histogram, Table

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "operations-http.md"
BEGIN = "<!-- the table of metrics begins -->\n"
END = "<!-- the table of metrics ends -->\n"

# What brings metrics of its own, switched on; nothing is connected to.
EVERYTHING = {"MATCHD_REDIS__URL": "redis://127.0.0.1", "MATCHD_REDIS__ORDER_QUEUE": "orders",
              "MATCHD_TELEMETRY__OTLP_URL": "http://127.0.0.1:4318/v1/metrics"}


def rows() -> list[str]:
    """One row for each name, sorted."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        settings = config.load_settings(ROOT / "config" / "matchd.toml", EVERYTHING,
                                        Path(folder))
        recovered = Journal.open(settings.config)
        try:
            app = App(settings, recovered)
            app.operations.http.observe(app.gateway.routes[0], 200, 1)
            for metric in app.metrics:
                kind = "histogram" if isinstance(metric, Histogram) else (
                    "counter" if isinstance(metric, Counter) or (
                        isinstance(metric, Table) and metric.grows) else "gauge")
                labels = ", ".join(f"`{name}`" for name in label_names(metric))
                found[published_name(metric)] = (
                    f"| `{published_name(metric)}` | {kind} | {labels} | {sentence(metric.help)} |")
        finally:
            recovered.journal.abandon()
    return [found[name] for name in sorted(found)]


def page(text: str) -> str:
    """The page with the table as it has to be."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    table = ["| name | kind | labels | what it says |", "|---|---|---|---|", *rows()]
    return head + BEGIN + "\n" + "\n".join(table) + "\n\n" + END + tail


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
