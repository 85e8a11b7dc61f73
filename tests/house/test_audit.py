"""`make audit`: what is said of what pip-audit finds, and that it does not call clean what it could
not check."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLEAN = {"name": "aiohttp", "version": "3.13", "vulns": []}
WEAK = {"name": "redis", "version": "5.0", "vulns": [
    {"id": "PYSEC-2099-1", "aliases": ["CVE-2099-0001"], "fix_versions": ["5.1"]}]}
UNKNOWN = {"name": "picows", "skip_reason": "Dependency not found on PyPI"}


@pytest.fixture(scope="module")
def audit():
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_clean_weak_explained_and_unknown(audit):
    assert audit.judge([CLEAN], {})[0] == 0
    code, lines = audit.judge([CLEAN, WEAK], {})
    assert code == 1
    assert lines == ["redis 5.0: PYSEC-2099-1, mended in 5.1"]
    code, lines = audit.judge([CLEAN, WEAK], {"CVE-2099-0001": "we never call it"})
    assert code == 0
    assert "we never call it" in lines[0]
    code, lines = audit.judge([CLEAN, UNKNOWN], {})
    assert code == 0
    assert lines[0].endswith("picows")
    # Nothing known is not the same as nothing found.
    assert audit.judge([UNKNOWN], {})[0] == audit.judge([], {})[0] == 2


def test_every_exception_has_a_reason(audit):
    assert all(len(reason) > 20 for reason in audit.EXPLAINED.values())


def test_the_security_rules_of_ruff_are_on_and_every_exception_is_explained():
    text = (ROOT / "pyproject.toml").read_text()
    lint = tomllib.loads(text)["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    for rule in lint["ignore"]:
        if re.fullmatch(r"S[0-9]+", rule):
            assert re.search(rf'"{rule}", +# .{{20}}', text), rule
    # What is shipped has none of them off but S608 in single files, with its reason in the line.
    for pattern, rules in lint["per-file-ignores"].items():
        if any(re.fullmatch(r"S[0-9]*", rule) for rule in rules):
            assert pattern.startswith(("tests/", "bench/", ".ci/")), pattern
    for path in sorted((ROOT / "engine").rglob("*.py")):
        for line in path.read_text("utf-8").splitlines():
            if line.startswith("# ruff: noqa: S"):
                assert line.startswith("# ruff: noqa: S608"), path
                assert len(line) > len("# ruff: noqa: S608") + 10, path
