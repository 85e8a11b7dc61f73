"""The house rules as functions: each takes a text and returns what breaks the rule."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = (".py", ".pyx", ".pxd", ".pyi")
LINE_LENGTH_MAX = 100
FUNCTION_LINES_MAX = 70

# Each with what to do instead. Written in halves, so that this file passes its own check.
BANNED = {
    "TO" "DO": "do it, or write an issue",
    "FIX" "ME": "fix it, or write an issue",
    "HA" "CK": "say why it has to be so",
    "Not" "ImplementedError": "build it",
    "place" "holder": "build it",
}

# Calls that belong into one file each.
HOMES = {
    r"\btime\.(time|time_ns|monotonic|monotonic_ns|perf_counter|perf_counter_ns)\(":
        "engine/clock.py",
    r"\bdatetime\.(now|utcnow|today)\(": "engine/clock.py",
    r"\bos\.(environ|getenv)\b": "engine/config.py",
    r"(?<![\w.])print\(": "engine/cli/output.py",
}

STAGES = ("intake", "trading", "journal", "reports", "market", "feed", "stores", "api")
# Who may import whom: only downwards. `clients` stands beside the stages and imports none.
RANKS = {"__main__": 6, "cli": 6, "lifecycle": 5, "app": 4, "clients": 3,
         **dict.fromkeys(STAGES, 3)}
COMMON_RANK = 2
# The written exceptions: replay after login and stores that catch up read the log; feed and HTTP
# gateway show the same books and orders.
SHARED_BY_STAGES = ("engine.journal.reader", "engine.market")

_PYTHON_TYPES = ("object", "str", "bytes", "bytearray", "dict", "list", "tuple", "set", "type",
                 "memoryview")
_CDEF = re.compile(r"^\s*c(?:p)?def\s+(?:public\s+|readonly\s+|api\s+)?(?:inline\s+)?"
                   r"(?P<type>[\w.\[\]:, ]*?[\w\]]\s*\**)\s*\b(?P<name>\w+)\s*\((?P<rest>.*)$",
                   re.DOTALL)


def files(*suffixes: str) -> Iterator[Path]:
    """The project's own files with one of these suffixes."""
    for top in ("engine", "cython_core", "tests", "bench", "docs", "config", "examples"):
        for path in sorted((ROOT / top).rglob("*")):
            if path.suffix in suffixes and path.is_file() and "defaults" not in path.parts:
                yield path
    yield from (path for path in sorted(ROOT.iterdir()) if path.suffix in suffixes)


def name_of(path: Path) -> str:
    """A file's name as messages and rules write it."""
    return path.relative_to(ROOT).as_posix()


def long_lines(text: str) -> list[str]:
    """Lines beyond the limit."""
    return [f"line {number} has {len(line)} columns"
            for number, line in enumerate(text.splitlines(), 1) if len(line) > LINE_LENGTH_MAX]


def untidy_ends(text: str) -> list[str]:
    """Tabs, blanks at line ends, a missing newline at the end."""
    found = [f"line {number} has a tab or ends with a blank"
             for number, line in enumerate(text.splitlines(), 1)
             if "\t" in line or line != line.rstrip()]
    return found + ([] if text.endswith("\n") or not text else ["no newline at the end"])


def banned_words(text: str) -> list[str]:
    """Words that promise instead of doing."""
    return [f"{word}: {instead}" for word, instead in BANNED.items()
            if re.search(rf"\b{word}", text)]


def long_functions(text: str) -> list[str]:
    """Python functions beyond the limit."""
    return [f"{node.name} has {node.end_lineno - node.lineno + 1} lines"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX]


def long_cython_functions(text: str) -> list[str]:
    """Cython functions beyond the limit, measured by their indentation."""
    found, lines = [], text.splitlines()
    for number, line in enumerate(lines):
        match = re.match(r"(\s*)(?:c?p?def|async def)\s(?!class\b).*?(\w+)\(", line)
        if match is None:
            continue
        last = number
        for after in range(number + 1, len(lines)):
            body = lines[after]
            if body.strip() and not body.startswith(match[1] + " ") and ")" not in body[:9]:
                break
            last = after if body.strip() else last
        if last - number + 1 > FUNCTION_LINES_MAX:
            found.append(f"{match[2]} has {last - number + 1} lines")
    return found


def strayed_calls(name: str, text: str) -> list[str]:
    """Clock, environment and output outside their one file."""
    return [f"{pattern} belongs into {home}" for pattern, home in HOMES.items()
            if name != home and re.search(pattern, _without_texts(text))]


def asserts(text: str) -> list[str]:
    """Assert statements: -O removes them, so they check nothing in a daemon."""
    return [f"line {node.lineno} asserts" for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Assert)]


def wide_excepts(text: str) -> list[str]:
    """`except:` and `except BaseException:` that swallow cancellation."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler):
            wide = node.type is None or (
                isinstance(node.type, ast.Name) and node.type.id == "BaseException")
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            if wide and not raises:
                found.append(f"line {node.lineno} catches everything and goes on")
    return found


def upward_imports(name: str, text: str) -> list[str]:
    """Imports against the direction of the layers, and of a stage by its sibling."""
    own = _part(name.removesuffix(".py").replace("/", "."))
    found = []
    for module in _imported(text):
        if not module.startswith("engine.") or module.startswith(SHARED_BY_STAGES):
            continue
        other = _part(module)
        if other == own or own in ("cli", "__main__"):
            continue
        if _rank(other) > _rank(own) or (_rank(other) == _rank(own) == RANKS["app"] - 1):
            found.append(f"imports {module}")
    return found


def foreign_core_imports(text: str) -> list[str]:
    """What a core without I/O, clock and log may not import."""
    pattern = r"^\s*(?:from|import|cimport)\s+(engine|asyncio|socket|time|logging|structlog)\b"
    return [f"imports {match[1]}" for match in re.finditer(pattern, text, re.MULTILINE)]


def silent_cdefs(text: str) -> list[str]:
    """C functions that don't say how errors leave them."""
    found = []
    for header in _cdef_headers(text):
        match = _CDEF.match(header)
        if match is None or match["type"].split()[-1] in _PYTHON_TYPES:
            continue
        tail = header[header.rindex(")"):]
        returns_class = re.fullmatch(r"[A-Z]\w*", match["type"].strip()) and "nogil" not in tail
        if not returns_class and not re.search(r"\b(noexcept|except)\b", tail):
            found.append(f"{match['name']} says neither noexcept nor except")
    return found


def missing_files(text: str) -> list[str]:
    """Files that a document names and that don't exist."""
    named = re.findall(r"[`(]((?:[\w.-]+/)*[\w.-]+\.(?:py|pyx|pxd|toml|md|txt|jsonl|csv))[`)#]",
                       text)
    return [f"names {path}" for path in named if not _exists(path)]


def _exists(path: str) -> bool:
    return (ROOT / path).exists() or any((ROOT / top / path).exists() for top in (
        "engine", "cython_core", "config", "docs", "bench"))


def _cdef_headers(text: str) -> Iterator[str]:
    """The headers of C functions, continuation lines joined; no classes, structs, variables."""
    lines = iter(text.splitlines())
    for line in lines:
        if not re.match(r"\s*cp?def\s", line) or "(" not in line:
            continue
        if re.match(r"\s*cp?def\s+(class|extern|struct|enum|packed|union)\b", line):
            continue
        if "=" in line.split("(")[0]:
            continue
        while line.count("(") > line.count(")"):
            line += " " + next(lines, ")").strip()
        yield line


def _imported(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module in ("engine", "engine.journal"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def _part(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def _rank(part: str) -> int:
    return RANKS.get(part, COMMON_RANK)


def _without_texts(text: str) -> str:
    """The code without comments and doc texts, which may name what code must not call."""
    text = re.sub(r'"""[\s\S]*?"""', '""', text)
    return re.sub(r"#.*", "", text)
