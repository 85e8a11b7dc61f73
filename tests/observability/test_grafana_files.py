"""The dashboards and the provisioning of Grafana: as the tables make them, of the right shape, and
every expression asks for what a venue publishes."""

import json

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.house import grafana_dashboards
from tests.observability import known
from tests.observability.known import ROOT

FOLDER = ROOT / "config" / "grafana"
PAGES = sorted((FOLDER / "dashboards").glob("*.json"))
page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    return known.published(tmp_path_factory.mktemp("venue"))


def test_the_files_are_those_of_the_tables():
    assert {path.stem for path in PAGES} == set(grafana_dashboards.PAGES)


@page
def test_a_file_is_as_its_table_makes_it(path):
    assert path.read_text("utf-8") == grafana_dashboards.text(path.stem)


@page
def test_grafana_s_own_types_take_the_file_and_lose_nothing_of_it(path):
    register_default_plugins()
    given = json.loads(path.read_text("utf-8"))
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(given)))
    assert not missing(given, again, "")


def missing(given, again, where):
    """What is in one document and not in the other."""
    if isinstance(given, dict) and isinstance(again, dict):
        return [lost for key, value in given.items() if value not in ({}, [], None)
                for lost in (missing(value, again[key], f"{where}.{key}") if key in again
                             else [f"{where}.{key}"])]
    if isinstance(given, list) and isinstance(again, list) and len(given) == len(again):
        return [lost for place, (one, two) in enumerate(zip(given, again, strict=True))
                for lost in missing(one, two, f"{where}[{place}]")]
    return [] if given == again else [f"{where}: {given!r} became {again!r}"]


def test_the_comparison_finds_a_key_that_grafana_does_not_know():
    given = {"title": "x", "panels": [{"type": "stat", "titel": "t"}]}
    assert missing(given, json.loads(JSONEncoder().encode(Dashboard.from_json(given))), "")


@page
def test_every_expression_asks_for_what_a_venue_publishes(path, metrics):
    panels = json.loads(path.read_text("utf-8"))["panels"]
    expressions = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    assert expressions
    problems = {expression: known.wrong(expression, metrics) for expression in expressions}
    assert not {expression: found for expression, found in problems.items() if found}
    for expression in expressions:
        for selector in known.selectors(expression):
            matchers = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
            assert matchers.get("instance") == "$instance", expression


@page
def test_legends_name_labels_that_the_expression_leaves(path, metrics):
    panels = json.loads(path.read_text("utf-8"))["panels"]
    for panel in panels:
        for target in panel.get("targets", ()):
            names = {part.partition("}}")[0] for part in target["legendFormat"].split("{{")[1:]}
            have = {label for selector in known.selectors(target["expr"])
                    for label in metrics[selector.name]} | known.SCRAPED
            assert names <= have, target


@page
def test_panels_do_not_overlap_and_have_titles_and_texts(path):
    panels = json.loads(path.read_text("utf-8"))["panels"]
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
        assert panel["title"] and (panel["type"] == "row" or panel["description"])
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_all_stages_of_an_order_are_shown(metrics):
    shown = {selector.name for path in PAGES
             for panel in json.loads(path.read_text("utf-8"))["panels"]
             for target in panel.get("targets", ())
             for selector in known.selectors(target["expr"])}
    for stage in ("command_wait", "match", "commit", "report", "order_ack", "market", "feed_tick",
                  "http_request", "store_write", "loop_lag", "gc_pause"):
        assert f"matchd_{stage}_seconds_bucket" in shown
    own = {name for name in metrics if name.startswith("matchd_")}
    assert len(shown & own) > len(own) / 4


def test_provisioning_names_one_data_source_and_the_folder_of_the_page():
    source = yaml.safe_load((FOLDER / "provisioning" / "datasources" / "matchd.yml").read_text())
    assert [one["type"] for one in source["datasources"]] == ["prometheus"]
    assert source["apiVersion"] == 1
    provider = yaml.safe_load((FOLDER / "provisioning" / "dashboards" / "matchd.yml").read_text())
    path = provider["providers"][0]["options"]["path"]
    assert provider["apiVersion"] == 1 and provider["providers"][0]["type"] == "file"
    assert path in (ROOT / "docs" / "observability.md").read_text()
