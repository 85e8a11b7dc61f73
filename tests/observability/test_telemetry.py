"""Metrics for OpenTelemetry, sent by a real daemon to a receiver that reads OTLP."""

import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from engine.clients import OrderEntryClient
from tests.observability.known import ROOT
from tests.observability.looking import scrape, wait_until
from tests.support.daemon import Daemon


class Receiver:
    """Takes OTLP over HTTP. `status` is what it answers; a `hanging` one answers nothing."""

    def __init__(self, port=0):
        self.status = 200
        self.hanging = threading.Event()
        self.ended = threading.Event()
        self.metrics, self.resource, self.headers, self.requests = {}, {}, {}, 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if receiver.hanging.is_set():
                    receiver.ended.wait()
                    return
                receiver.take(self.path, dict(self.headers), body)
                self.send_response(receiver.status)
                self.send_header("content-type", "application/x-protobuf")
                answer = ExportMetricsServiceResponse().SerializeToString()
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, path, headers, body):
        self.requests += 1
        self.headers = {name.lower(): value for name, value in headers.items()}
        if path != "/v1/metrics" or self.status != 200:
            return
        request = ExportMetricsServiceRequest.FromString(body)
        for resource in request.resource_metrics:
            self.resource = {pair.key: pair.value.string_value
                             for pair in resource.resource.attributes}
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data")
                    for point in getattr(metric, kind).data_points:
                        labels = tuple((pair.key, pair.value.string_value)
                                       for pair in point.attributes)
                        self.metrics[metric.name, labels] = (metric, kind, point)

    def number(self, name, *labels):
        _, _, point = self.metrics[name, labels]
        return getattr(point, point.WhichOneof("value"))

    def close(self):
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


def venue(folder, receiver, path="/v1/metrics", **more):
    return Daemon(folder, telemetry__otlp_url=f"http://127.0.0.1:{receiver.port}{path}",
                  telemetry__interval_ms=200, sqlite__enabled=True, **more)


async def test_what_arrives_is_what_the_venue_counts(tmp_path, receiver):
    headers = tmp_path / "headers"
    headers.write_text("x-scope: trading\n\nauthorization: Bearer secret\n")
    daemon = venue(tmp_path, receiver, telemetry__headers_file=headers,
                   venue__name="north").start()
    try:
        async with OrderEntryClient("127.0.0.1", daemon.port, "MAKER1", "demo") as client:
            for _ in range(25):
                await client.enter("AAPL", "B", "1", "150.00")
        accepted = ("kind", "accepted")
        wait_until(lambda: ("matchd.matcher", (accepted,)) in receiver.metrics
                   and receiver.number("matchd.matcher", accepted) == 25, "25 orders told")
        after = receiver.requests
        wait_until(lambda: receiver.requests > after + 40, "everything told again")
        assert receiver.headers["authorization"] == "Bearer secret"
        assert receiver.headers["x-scope"] == "trading"
        assert receiver.resource["service.name"] == "matchd"
        assert receiver.resource["service.instance.id"] == "north"
        found = scrape(daemon)
        assert receiver.number("matchd.matched_seq") == found.value("matchd_matched_seq")
        assert receiver.number("matchd.commands") == found.value("matchd_commands_total") >= 25
        assert receiver.number("matchd.queue_units_limit", ("queue", "events")) == 262_144
        metric, kind, point = receiver.metrics["matchd.commit", ()]
        assert (kind, metric.unit) == ("histogram", "s")
        spread = found.spread("matchd_commit_seconds")
        assert point.count == sum(point.bucket_counts) == spread.count > 0
        assert tuple(point.bucket_counts) == spread.counts
        assert [round(bound * 1e9) for bound in point.explicit_bounds] == list(spread.bounds)
        commands, kind, _ = receiver.metrics["matchd.commands", ()]
        assert kind == "sum" and commands.sum.is_monotonic
        assert receiver.metrics["matchd.disk_free", ()][0].unit == "By"
        assert receiver.metrics["matchd.resting_orders", ()][1] == "gauge"
        assert found.value("matchd_otlp_exports_total") > 0
        assert daemon.stop() == 0
        assert "secret" not in daemon.log_path.read_text()
    finally:
        daemon.kill()


def test_a_receiver_that_refuses_costs_its_exports_and_nothing_else(tmp_path, receiver):
    receiver.status = 400
    # An address without a path: metrics have their usual place there.
    daemon = venue(tmp_path, receiver, path="").start()
    try:
        line = daemon.wait_for_line("OpenTelemetry export failed")
        assert line["level"] == "warning" and line["reason"]
        assert scrape(daemon).value("matchd_serving") == 1
        receiver.status = 200
        wait_until(lambda: ("matchd.serving", ()) in receiver.metrics, "told again")
        found = scrape(daemon)
        assert found.value("matchd_otlp_failures_total") > 0
        assert daemon.stop() == 0
        # What the library says goes into our lines, not beside them.
        assert all("level" in one for one in daemon.lines())
    finally:
        daemon.kill()


def test_a_receiver_that_hangs_does_not_hold_up_the_stop(tmp_path, receiver):
    receiver.hanging.set()
    daemon = venue(tmp_path, receiver, telemetry__timeout_ms=3_600_000).start()
    try:
        wait_until(lambda: threading.active_count() > 2, "an export begun")
        time.sleep(0.5)
        assert scrape(daemon).value("matchd_serving") == 1
        assert daemon.stop() == 0
    finally:
        daemon.kill()


def test_a_file_of_headers_that_is_not_there_is_a_mistake_of_the_configuration(tmp_path, receiver):
    daemon = venue(tmp_path, receiver, telemetry__headers_file=tmp_path / "none")
    daemon.spawn()
    assert daemon.wait() == 2
    assert "telemetry.headers_file" in daemon.log_path.read_text()


def test_nothing_of_it_is_loaded_while_it_is_off():
    code = ("import sys, engine.app, engine.lifecycle, engine.api.server, engine.api.metrics\n"
            "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0
