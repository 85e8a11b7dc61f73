"""The rules and the scrape example for Prometheus: every metric is there, every alarm can come."""

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from urllib.parse import quote

import pytest
import yaml

from tests.observability import known
from tests.observability.known import ROOT
from tests.observability.looking import wait_until
from tests.support.daemon import Daemon

FOLDER = ROOT / "config" / "prometheus"
PAGE = ROOT / "docs" / "observability.md"
NAMES = [rule["alert"] for rule in known.rules()]


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    return known.published(tmp_path_factory.mktemp("venue"))


def program(name):
    """Where promtool or prometheus is; skips where the machine has none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here: the Debian package prometheus has it")
    return found


@pytest.mark.parametrize("rule", known.rules(), ids=NAMES)
def test_an_alarm_asks_for_what_a_venue_publishes(rule, metrics):
    assert not known.wrong(rule["expr"], metrics)


@pytest.mark.parametrize("rule", known.rules(), ids=NAMES)
def test_an_alarm_has_a_severity_a_sentence_and_a_page_that_says_what_to_do(rule):
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert {"summary", "description"} == set(rule["annotations"])
    assert f"| `{rule['alert']}` |" in PAGE.read_text()


def test_the_names_of_alarms_are_unique_and_the_page_has_no_others():
    assert len(NAMES) == len(set(NAMES))
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `Matchd")]
    assert len(lines) == len(NAMES)


def test_what_was_asked_for_has_alarms():
    wanted = {"matchd_commit_seconds_bucket", "matchd_queue_units", "matchd_store_lag_seconds",
              "matchd_store_breaker", "matchd_feed_clients_dropped_total",
              "matchd_disk_free_bytes"}
    asked = {selector.name for rule in known.rules()
             for selector in known.selectors(rule["expr"])}
    assert wanted <= asked


def test_the_check_finds_what_it_looks_for(metrics):
    assert known.wrong("rate(matchd_commit_total[5m])", metrics)
    assert known.wrong('matchd_queue_units{queue="orders"}', metrics)
    assert known.wrong('matchd_queue_units{stage="events"} > 0', metrics)
    assert not known.wrong('matchd_queue_units{queue=~"ev.*", instance="x"}', metrics)
    with pytest.raises(ValueError, match="parenthesis"):
        known.wrong("sum(matchd_queue_units", metrics)


def test_the_example_scrapes_the_gateway_under_the_job_that_the_rules_name():
    example = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert example["scrape_configs"][0]["job_name"] == "matchd"
    assert all((FOLDER / name).is_file() for name in example["rule_files"])


def test_promtool_takes_the_files_and_the_alarms_come_when_they_should():
    promtool = program("promtool")
    for arguments, folder in ((("check", "config", "prometheus.yml"), FOLDER),
                              (("check", "rules", "matchd.rules.yml"), FOLDER),
                              (("test", "rules", "rules.test.yml"),
                               ROOT / "tests" / "observability")):
        done = subprocess.run([promtool, *arguments], cwd=folder, capture_output=True, text=True,
                              timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_real_prometheus_scrapes_a_real_venue(tmp_path):
    """With the files as they are, but for the ports: every rule is evaluated, no alarm comes but
    the one of a start, every expression of the dashboards is answered."""
    prometheus = program("prometheus")
    daemon = Daemon(tmp_path, sqlite__enabled=True).start()
    server = None
    try:
        shutil.copy(FOLDER / "matchd.rules.yml", tmp_path)
        text = (FOLDER / "prometheus.yml").read_text().replace(
            "127.0.0.1:8000", f"127.0.0.1:{daemon.api_port}").replace(
            "scrape_interval: 5s", "scrape_interval: 500ms").replace(
            "evaluation_interval: 15s", "evaluation_interval: 1s")
        (tmp_path / "prometheus.yml").write_text(text)
        log = (tmp_path / "prometheus.log").open("w")
        server = subprocess.Popen(
            [prometheus, f"--config.file={tmp_path}/prometheus.yml",
             f"--storage.tsdb.path={tmp_path}/tsdb", "--web.listen-address=127.0.0.1:0"],
            stdout=log, stderr=log)
        port = listening(tmp_path / "prometheus.log", server)
        wait_until(lambda: is_ready(port), "Prometheus ready")
        wait_until(lambda: value(port, "matchd_serving") == [1.0], "a scrape of a serving venue")
        for name in ("venue", "clients", "stores"):
            page = (ROOT / "config" / "grafana" / "dashboards" / f"{name}.json").read_text()
            for panel in json.loads(page)["panels"]:
                for target in panel.get("targets", ()):
                    value(port, target["expr"].replace("$__rate_interval", "1m")
                          .replace("$instance", ".*"))
        wait_until(lambda: len(evaluated(port)) == len(NAMES), "every rule evaluated")
        assert {rule["health"] for rule in evaluated(port)} == {"ok"}
        firing = {rule["name"] for rule in evaluated(port) if rule["state"] == "firing"}
        assert firing <= {"MatchdRestarted", "MatchdDiskLow"}, firing
    finally:
        if server is not None:
            server.kill()
            server.wait()
        daemon.kill()


def listening(path, server):
    """The port that Prometheus took."""
    found = []

    def look():
        assert server.poll() is None, path.read_text()
        found[:] = [line.rpartition("127.0.0.1:")[2].strip(' "\n') for line
                    in path.read_text().splitlines() if "Listening on" in line]
        return found

    wait_until(look, "Prometheus listening")
    return int(found[0])


def is_ready(port):
    """Whether it answers questions by now."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=30):
            return True
    except urllib.error.HTTPError:
        return False


def evaluated(port):
    """The rules that were evaluated, as Prometheus tells of them."""
    groups = ask(port, "/api/v1/rules")["groups"]
    return [rule for group in groups for rule in group["rules"]
            if rule["health"] != "unknown"]


def value(port, expression):
    """The values of an expression now."""
    found = ask(port, f"/api/v1/query?query={quote(expression)}")
    return [float(row["value"][1]) for row in found["result"]]


def ask(port, target):
    """An answer of Prometheus."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{target}", timeout=30) as answer:
        return json.load(answer)["data"]
