"""A look at a daemon's figures, and waiting for what will be so."""

import http.client
import time

from engine.clients.top.scrape import Scrape


def scrape(daemon):
    """What `/metrics` says now."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.api_port, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return Scrape(text)


def wait_until(holds, what):
    """Wait until something is so."""
    deadline_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline_s, f"never {what}"
        time.sleep(0.05)
