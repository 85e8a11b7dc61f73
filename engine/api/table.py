"""Paths to what answers them: fixed ones by name, others part by part."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from engine.api.route import ApiError

Target = TypeVar("Target")
_NAME = re.compile(r"\{(\w+)(:path)?\}")
_NO_VALUES: Mapping[str, str] = {}


class Table(Generic[Target]):
    """Targets by method and path. GET answers HEAD too; a slash at the end is of no matter."""

    def __init__(self) -> None:
        self._fixed: dict[str, dict[str, Target]] = {}
        self._open: list[tuple[str, re.Pattern[str], dict[str, Target]]] = []

    def __iter__(self) -> Iterator[Target]:
        for methods in self._fixed.values():
            yield from methods.values()
        for _, _, methods in self._open:
            yield from methods.values()

    def add(self, method: str, path: str, target: Target) -> None:
        """Raises ValueError for a method and path that are taken."""
        path = _plain(path)
        methods = self._methods(path)
        if method in methods:
            raise ValueError(f"{method} {path} is taken")
        methods[method] = target

    def find(self, method: str, path: str) -> tuple[Target, Mapping[str, str]] | ApiError:
        """The target and the values of the path's names, or the error to answer: 404, 405."""
        methods = self._fixed.get(path)
        values = _NO_VALUES
        if methods is None:
            found = self._search(_plain(path))
            if found is None:
                return ApiError(404, "not_found", "there is nothing at this path")
            methods, values = found
        target = methods.get("GET" if method == "HEAD" else method)
        if target is None:
            allowed = ", ".join(sorted(methods))
            return ApiError(405, "method_not_allowed", f"this path takes {allowed}",
                            headers=((b"allow", allowed.encode()),))
        return target, values

    def _search(self, path: str) -> tuple[dict[str, Target], Mapping[str, str]] | None:
        methods = self._fixed.get(path)
        if methods is not None:
            return methods, _NO_VALUES
        for _, pattern, found in self._open:
            match = pattern.fullmatch(path)
            if match is not None:
                return found, match.groupdict()
        return None

    def _methods(self, path: str) -> dict[str, Target]:
        if "{" not in path:
            return self._fixed.setdefault(path, {})
        for known, _, methods in self._open:
            if known == path:
                return methods
        methods = {}
        self._open.append((path, _pattern(path), methods))
        return methods


def _plain(path: str) -> str:
    return path.rstrip("/") or "/"


def _pattern(path: str) -> re.Pattern[str]:
    text, last = "", 0
    for match in _NAME.finditer(path):
        text += re.escape(path[last:match.start()])
        text += f"(?P<{match[1]}>{'.+' if match[2] else '[^/]+'})"
        last = match.end()
    return re.compile(text + re.escape(path[last:]), re.DOTALL)
