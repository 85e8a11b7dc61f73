"""Makes the dashboards in config/grafana/dashboards from the tables below.

`python -m tests.house.grafana_dashboards` writes them; a test holds the files against the tables,
and every expression against the metrics of a venue.
"""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "config" / "grafana" / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# What every selector has: the venues that are chosen above the panels.
HERE = 'instance=~"$instance"'
STEP = "[$__rate_interval]"
# The width of a dashboard, and the height of a graph and of a number.
COLUMNS, GRAPH_ROWS, STAT_ROWS = 24, 8, 4

Query = tuple[str, str]


def gauge(name: str, *more: str) -> str:
    """A metric as it is."""
    return f"{name}{{{', '.join([HERE, *more])}}}"


def rate(name: str, *more: str) -> str:
    """How much a counter grows in a second."""
    return f"rate({gauge(name, *more)}{STEP})"


def quantile(part: float, name: str, by: str = "") -> str:
    """A quantile of a histogram."""
    labels = ", ".join(["le", by] if by else ["le"])
    return f"histogram_quantile({part}, sum by ({labels}) ({rate(name + '_bucket')}))"


def quantiles(name: str) -> list[Query]:
    """The three that are shown of a histogram."""
    return [(quantile(part, name), f"p{100 * part:g}") for part in (0.5, 0.99, 0.999)]


def graph(title: str, unit: str, about: str, *queries: Query, width: int = 8,
          least: int | None = 0) -> dict[str, Any]:
    """Lines over time."""
    defaults: dict[str, Any] = {
        "unit": unit, "custom": {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never",
                                 "spanNulls": False}}
    if least is not None:
        defaults["min"] = least
    return _panel("timeseries", title, about, queries, width, GRAPH_ROWS, defaults, {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"}})


def stat(title: str, unit: str, about: str, *queries: Query,
         steps: tuple[tuple[float | None, str], ...] = ((None, "green"),)) -> dict[str, Any]:
    """One number with a colour."""
    defaults = {"unit": unit, "thresholds": {
        "mode": "absolute", "steps": [{"value": value, "color": color} for value, color in steps]}}
    return _panel("stat", title, about, queries, 3, STAT_ROWS, defaults, {
        "graphMode": "area", "colorMode": "value", "justifyMode": "auto", "textMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}})


def _panel(kind: str, title: str, about: str, queries: tuple[Query, ...], width: int, height: int,
           defaults: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": kind, "title": title, "description": about, "datasource": SOURCE,
        "gridPos": {"x": 0, "y": 0, "w": width, "h": height},
        "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options,
        "targets": [{"refId": chr(ord("A") + place), "datasource": SOURCE, "expr": expr,
                     "legendFormat": legend, "editorMode": "code", "range": True}
                    for place, (expr, legend) in enumerate(queries)]}


def row(title: str) -> dict[str, Any]:
    """A heading."""
    return {"type": "row", "title": title, "collapsed": False, "panels": [],
            "gridPos": {"x": 0, "y": 0, "w": COLUMNS, "h": 1}}


BAD_ABOVE_0: Any = ((None, "green"), (1, "red"))
FILLS = 'kind="fill"'
ACK, COMMIT = "matchd_order_ack_seconds", "matchd_commit_seconds"

VENUE = [
    stat("Orders taken", "bool_yes_no", "Whether the venue is ready.",
         (f"min({gauge('matchd_serving')})", ""), steps=((None, "red"), (1, "green"))),
    stat("Failed checks", "short", "Checks of /health that fail; Alerts and /health say which.",
         (f"sum({gauge('matchd_health_check_ok')} == bool 0)", ""), steps=BAD_ABOVE_0),
    stat("Commands", "cps", "Commands at the door in a second.",
         (f"sum({rate('matchd_commands_total')})", "")),
    stat("Trades", "cps", "Fills in a second.",
         (f"sum({rate('matchd_matcher_total', FILLS)})", "")),
    stat("Answer p99", "s", "From the door to the answer, durable.", (quantile(0.99, ACK), ""),
         steps=((None, "green"), (0.05, "orange"), (0.25, "red"))),
    stat("Sessions", "short", "Live sessions of order entry.",
         (f"sum({gauge('matchd_sessions')})", "")),
    stat("Feed clients", "short", "Connected clients of the feed.",
         (f"sum({gauge('matchd_feed_clients')})", "")),
    stat("Disk left", "bytes", "Room for the journal.",
         (f"min({gauge('matchd_disk_free_bytes')})", ""),
         steps=((None, "red"), (2**30, "orange"), (10 * 2**30, "green"))),
    row("Flow"),
    graph("Matcher", "cps", "What the matcher did, by kind.",
          (f"sum by (kind) ({rate('matchd_matcher_total')}) > 0", "{{kind}}"), width=12),
    graph("Resting orders", "short", "Orders in all books.",
          (gauge("matchd_resting_orders"), "{{instance}}"), width=12),
    row("Latency"),
    graph("Door to answer", "s", "From the arrival of the oldest command of a group to the "
          "group's answers, durable; counted once for each event.", *quantiles(ACK)),
    graph("Commit", "s", "A group of events until it is durable.", *quantiles(COMMIT)),
    graph("p99 by stage", "s", "Where the time of an order goes.",
          (quantile(0.99, "matchd_command_wait_seconds"), "wait at the door"),
          (quantile(0.99, "matchd_match_seconds"), "match"),
          (quantile(0.99, COMMIT), "commit"),
          (quantile(0.99, "matchd_report_seconds"), "report"),
          (quantile(0.99, "matchd_market_seconds"), "market"),
          (quantile(0.99, "matchd_feed_tick_seconds"), "feed tick")),
    row("Queues and journal"),
    graph("Queues", "percentunit", "How full the queues between the stages are.",
          (f"{gauge('matchd_queue_units')} / {gauge('matchd_queue_units_limit')}",
           "{{queue}}")),
    graph("Waits for a queue", "cps", "How often a producer found a queue full.",
          (rate("matchd_queue_waits_total"), "{{queue}}")),
    graph("Events on their way", "short", "Matched events that are not durable, not answered, not "
          "in the books yet.",
          (f"{gauge('matchd_matched_seq')} - {gauge('matchd_committed_seq')}", "not durable"),
          (f"{gauge('matchd_committed_seq')} - {gauge('matchd_answered_seq')}", "not answered"),
          (f"{gauge('matchd_committed_seq')} - {gauge('matchd_market_seq')}", "not in books")),
    graph("Commits", "cps", "Groups that were made durable.",
          (f"sum({rate(COMMIT + '_count')})", "commits"),
          (f"sum({rate('matchd_commit_inline_total')})", "of them in the loop itself")),
    graph("Journal", "Bps", "Bytes written to the log.",
          (rate("matchd_journal_written_bytes_total"), "{{instance}}")),
    graph("Disk left", "bytes", "Room for the journal.",
          (gauge("matchd_disk_free_bytes"), "{{instance}}")),
    row("Process"),
    graph("Loop lag", "s", "How much later than asked for the event loop ran a timer.",
          *quantiles("matchd_loop_lag_seconds")),
    graph("Garbage collector", "s", "How long collections stopped everything, p99.9 by "
          "generation, and the longest since the start.",
          (quantile(0.999, "matchd_gc_pause_seconds", "generation"),
           "generation {{generation}}"),
          (f"max({gauge('matchd_gc_pause_max_seconds')})", "longest")),
    graph("Processor and memory", "short", "Cores in use, and GiB of memory.",
          (rate("process_cpu_seconds_total"), "cores"),
          (f"{gauge('process_resident_memory_bytes')} / 2^30", "GiB")),
]

CLIENTS = [
    row("Order entry"),
    graph("Sessions", "short", "Live sessions, open connections, and addresses over UDP.",
          (gauge("matchd_sessions"), "sessions"), (gauge("matchd_connections"), "connections"),
          (gauge("matchd_udp_peers"), "UDP addresses")),
    graph("Logins", "cps", "Logins, and what ends sessions.",
          (rate("matchd_logins_total"), "logins"),
          (rate("matchd_logins_refused_total"), "refused"),
          (rate("matchd_takeovers_total"), "takeovers"),
          (rate("matchd_tcp_logins_throttled_total"), "refused unseen, TCP"),
          (rate("matchd_udp_logins_throttled_total"), "refused unseen, UDP"),
          (rate("matchd_slow_readers_total"), "cut as slow readers"),
          (rate("matchd_wrong_bytes_total"), "wrong bytes"),
          (rate("matchd_turned_away_total"), "turned away")),
    graph("Commands", "cps", "Commands taken in at the door.",
          (rate("matchd_commands_total"), "commands")),
    graph("TCP", "Bps", "Bytes read and written.",
          (rate("matchd_tcp_received_bytes_total"), "received"),
          (rate("matchd_tcp_sent_bytes_total"), "sent")),
    graph("UDP", "pps", "Datagrams.",
          (rate("matchd_udp_datagrams_in_total"), "received"),
          (rate("matchd_udp_datagrams_out_total"), "sent"),
          (rate("matchd_udp_gap_requests_total"), "gap requests"),
          (rate("matchd_udp_messages_again_total"), "messages sent again")),
    graph("UDP, lost", "pps", "Datagrams that were not taken, and those that the system lost.",
          (f"sum by (reason) ({rate('matchd_udp_dropped_total')}) > 0", "{{reason}}"),
          (rate("matchd_udp_kernel_drops_total"), "dropped by the kernel"),
          (rate("matchd_udp_datagrams_unsent_total"), "not sent")),
    row("Feed"),
    graph("Clients", "short", "Connected clients, and those that are slow or catch up.",
          (gauge("matchd_feed_clients"), "clients"), (gauge("matchd_feed_slow_clients"), "slow"),
          (gauge("matchd_feed_catching_up"), "catching up"),
          (gauge("matchd_feed_chains"), "different subscriptions")),
    graph("Messages", "cps", "Messages to clients.",
          (rate("matchd_feed_messages_total"), "messages"),
          (rate("matchd_feed_batches_total"), "batches")),
    graph("Bytes", "Bps", "Bytes to clients.", (rate("matchd_feed_sent_bytes_total"), "sent")),
    graph("Tick", "s", "What a tick took until its first slice was written.",
          *quantiles("matchd_feed_tick_seconds")),
    graph("Slow clients", "cps", "What happened to clients that do not read.",
          (rate("matchd_feed_slowed_total"), "found slow"),
          (rate("matchd_feed_conflated_total"), "snapshots in place of messages"),
          (rate("matchd_feed_clients_dropped_total"), "dropped")),
    graph("Resumes and refusals", "cps", "Clients that came back, and requests that failed.",
          (rate("matchd_feed_resumed_total"), "resumed"),
          (rate("matchd_feed_resets_total"), "reset"),
          (rate("matchd_feed_refused_total"), "refused"),
          (rate("matchd_feed_failed_logins_total"), "failed logins"),
          (rate("matchd_feed_bad_frames_total"), "bad frames"),
          (rate("matchd_feed_turned_away_total"), "turned away")),
    row("HTTP"),
    graph("Requests", "reqps", "By status.",
          (f"sum by (status) ({rate('matchd_http_requests_total')})", "{{status}}")),
    graph("Busiest routes", "reqps", "The ten routes with the most requests.",
          (f"topk(10, sum by (method, route) ({rate('matchd_http_requests_total')}))",
           "{{method}} {{route}}")),
    graph("p99 by route", "s", "The time of an answer.",
          (quantile(0.99, "matchd_http_request_seconds", "route"), "{{route}}")),
]

STORES = [
    graph("Behind", "short", "Durable events that a store has not.",
          (gauge("matchd_store_lag_events"), "{{store}}")),
    graph("Behind, time", "s", "How long ago a store had every durable event.",
          (gauge("matchd_store_lag_seconds"), "{{store}}")),
    graph("Events", "cps", "Events that a store took in.",
          (rate("matchd_store_events_total"), "{{store}}")),
    graph("Write p99", "s", "The time of one write (transaction).",
          (quantile(0.99, "matchd_store_write_seconds", "store"), "{{store}}")),
    graph("Writes", "cps", "Writes, and tries that failed.",
          (rate("matchd_store_writes_total"), "{{store}}"),
          (rate("matchd_store_errors_total"), "{{store}} failed")),
    graph("Breaker", "short", "0 closed, 1 half-open (one try), 2 open (left alone).",
          (gauge("matchd_store_breaker"), "{{store}}")),
    row("The past over HTTP"),
    graph("Statements", "s", "The p99 of a statement's answer, by who gave it.",
          (quantile(0.99, "matchd_query_seconds", "source"), "{{source}}")),
    graph("Cache", "cps", "Statements that a cache answered, and those it did not.",
          (rate("matchd_query_hits_total"), "hits, {{cache}}"),
          (rate("matchd_query_misses_total"), "misses")),
    graph("Rows", "cps", "Rows of /v1/history.", (rate("matchd_history_rows_total"), "rows")),
    row("Orders from Redis"),
    graph("Entries", "cps", "Entries of the order queue.",
          (rate("matchd_redis_orders_total"), "taken"),
          (rate("matchd_redis_orders_refused_total"), "answered with an error"),
          (rate("matchd_redis_orders_again_total"), "taken again"),
          (rate("matchd_redis_orders_failures_total"), "failures")),
    graph("Answer", "s", "From the read of an entry until its answer is in Redis.",
          *quantiles("matchd_redis_orders_time_seconds")),
    graph("In flight", "short", "Entries that are taken and not acknowledged.",
          (gauge("matchd_redis_orders_in_flight"), "in flight")),
]

PAGES = {"venue": ("matchd: venue", VENUE), "clients": ("matchd: clients", CLIENTS),
         "stores": ("matchd: stores", STORES)}


def placed(panels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The panels from left to right and from above, numbered."""
    found, x, y, height = [], 0, 0, 0
    for number, panel in enumerate(panels, 1):
        size = panel["gridPos"]
        if x + size["w"] > COLUMNS:
            x, y, height = 0, y + height, 0
        found.append({**panel, "id": number, "gridPos": {**size, "x": x, "y": y}})
        x, height = x + size["w"], max(height, size["h"])
    return found


def _variables() -> list[dict[str, Any]]:
    ask = "label_values(matchd_serving, instance)"
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
         "regex": "", "hide": 0, "multi": False, "includeAll": False, "refresh": 1},
        {"name": "instance", "label": "Venue", "type": "query", "datasource": SOURCE,
         "query": {"query": ask, "refId": "instances"}, "regex": "", "hide": 0,
         "multi": True, "includeAll": True, "refresh": 2, "sort": 1,
         "current": {"text": ["All"], "value": ["$__all"]}}]


def dashboard(name: str) -> dict[str, Any]:
    """One page as Grafana reads it."""
    title, panels = PAGES[name]
    return {
        "uid": f"matchd-{name}", "title": title, "tags": ["matchd"], "timezone": "browser",
        "editable": True, "graphTooltip": 1, "schemaVersion": 38, "version": 1, "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"}, "fiscalYearStartMonth": 0,
        "annotations": {"list": []}, "templating": {"list": _variables()},
        "links": [{"title": "matchd", "type": "dashboards", "tags": ["matchd"], "asDropdown": True,
                   "icon": "external link", "includeVars": True, "keepTime": True,
                   "targetBlank": False, "tooltip": "", "url": ""}],
        "panels": placed(panels)}


def text(name: str) -> str:
    """The file of a page."""
    return json.dumps(dashboard(name), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for page in PAGES:
        (FOLDER / f"{page}.json").write_text(text(page), "utf-8")
