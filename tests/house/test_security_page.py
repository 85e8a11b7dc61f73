"""SECURITY.md: its keys exist, its defaults and bounds are those of the code."""

import ast
import operator
import re
from pathlib import Path

from engine.config import Config

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()
OPERATORS = {ast.Mult: operator.mul, ast.Pow: operator.pow, ast.Add: operator.add}


def value_of(node):
    """A constant, or some multiplied."""
    if isinstance(node, ast.BinOp):
        return OPERATORS[type(node.op)](value_of(node.left), value_of(node.right))
    return ast.literal_eval(node)


def constant(path, name):
    """What a module sets a name to."""
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return value_of(node.value)
    raise AssertionError(f"{path} has no {name}")


def test_keys_exist():
    sections = "|".join(Config.__struct_fields__)
    keys = re.findall(rf"`({sections})\.(\w+)`", TEXT)
    assert len(keys) > 40
    for section, key in keys:
        assert hasattr(getattr(Config(), section), key), f"{section}.{key}"


def test_defaults_are_the_real_ones():
    rows = re.findall(r"^\| [^|]+ \| `(\w+)\.(\w+)` \| `(\d+)` \|", TEXT, re.MULTILINE)
    assert len(rows) >= 14
    for section, key, default in rows:
        assert getattr(getattr(Config(), section), key) == int(default), f"{section}.{key}"


def test_fixed_bounds_are_the_real_ones():
    rows = re.findall(r"^\| [^|]+ \| (\d+) \| `([\w/.]+)` (\w+) \|$", TEXT, re.MULTILINE)
    assert len(rows) >= 16
    for bound, path, name in rows:
        assert constant(path, name) == int(bound), name
