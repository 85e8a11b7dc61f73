"""Known weaknesses of the packages in an environment, asked of PyPI, then of OSV, by pip-audit.

Ends with 0 when there are none, or only explained ones; with 1 and a line for each; with 2 when the
services cannot be asked. pip-audit by itself calls a package clean that nobody knows anything of.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SERVICES = ("pypi", "osv")
WAIT_S = 600
# Weaknesses that do not touch us, by id, each with the reason.
EXPLAINED: dict[str, str] = {}


def judge(dependencies: Iterable[Mapping[str, Any]],
          explained: Mapping[str, str]) -> tuple[int, list[str]]:
    """The exit code and the lines for what pip-audit found (its JSON)."""
    known, weak, unknown = 0, [], []
    lines = []
    for one in dependencies:
        if "skip_reason" in one:
            unknown.append(one["name"])
            continue
        known += 1
        for found in one.get("vulns", ()):
            names = {found["id"], *found.get("aliases", ())}
            reason = next((explained[name] for name in sorted(names) if name in explained), "")
            text = f"{one['name']} {one['version']}: {found['id']}"
            fixed = ", ".join(found.get("fix_versions", ())) or "no version yet"
            if reason:
                lines.append(f"{text} does not touch us: {reason}")
            else:
                weak.append(f"{text}, mended in {fixed}")
    if not known:
        return 2, ["no package was known to the service: nothing was checked"]
    if unknown:
        lines.append(f"not known to the service, and not checked: {', '.join(sorted(unknown))}")
    if weak:
        return 1, lines + weak
    return 0, [*lines, f"{known} packages without a weakness that is known and touches us"]


def ask(service: str, path: str) -> tuple[int, list[str]]:
    """What one service says of the packages in `path`, a folder of site-packages."""
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "--format", "json",
         "--vulnerability-service", service, "--path", path],
        capture_output=True, text=True, timeout=WAIT_S, check=False)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        said = done.stderr.strip().splitlines()
        return 2, [said[-1] if said else f"pip-audit ended with {done.returncode}"]
    # Our own package is in no index.
    return judge([one for one in found if one["name"] != "matchd"], EXPLAINED)


def main() -> int:
    path = next((entry for entry in sys.path if Path(entry).name == "site-packages"), "")
    for service in SERVICES:
        code, lines = ask(service, path)
        for line in lines:
            print(f"audit ({service}): {line}")
        if code != 2:
            return code
    print("audit: no service with known weaknesses can be reached from here: nothing was checked")
    return 2


if __name__ == "__main__":
    sys.exit(main())
