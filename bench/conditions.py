"""Under which conditions a figure was measured, and whether the machine was quiet enough.

A number without its machine says nothing. The jitter of each core is measured before a run: a
loop that only reads the clock sees every moment in which somebody else had the core.
"""

import datetime
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from bench.jitter import lost_time
from bench.servers import ROOT

JITTER_SECONDS, TINY_JITTER_SECONDS = 0.5, 0.02
# A quiet core of a virtual machine loses well under this share of its time.
LOST_SHARE_MAX = 0.02
OTHER_LOAD_MAX = 0.15


def commit() -> str:
    """The commit that is measured, with a plus when the tree differs from it."""
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()
    head = git("rev-parse", "--short=12", "HEAD") or "unknown"
    return head + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def cpu_model() -> str:
    """The processor's name as the kernel tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def governor() -> str:
    """The frequency governor of the first core, or that the machine shows none."""
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return path.read_text().strip() if path.exists() else "not shown by this machine"


def filesystem(path: Path) -> str:
    """Type and device of the file system that holds `path`."""
    best = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        device, mount, kind = line.split()[:3]
        inside = path == Path(mount) or Path(mount) in path.parents
        if inside and len(mount) > len(best[0]):
            best = (mount, f"{kind} on {device}")
    return best[1]


def _ticks() -> tuple[int, int, int]:
    """All, idle and stolen ticks of all cores since boot."""
    values = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return sum(values[:8]), values[3] + values[4], values[7]


def noise(seconds: float = JITTER_SECONDS) -> dict[str, Any]:
    """How much of the machine others take: load, stolen time, time lost to others per core, looked
    at for so long each."""
    before = _ticks()
    time.sleep(seconds)
    total, idle, stolen = (now - then for now, then in zip(_ticks(), before, strict=True))
    mine = os.sched_getaffinity(0)
    lost = {}
    for core in sorted(mine):
        os.sched_setaffinity(0, {core})
        lost[str(core)] = lost_time(seconds)
    os.sched_setaffinity(0, mine)
    return {"load_average": os.getloadavg()[0], "others_share": 1 - idle / max(1, total),
            "stolen_share": stolen / max(1, total), "cores": lost}


def warnings(noise: dict[str, Any]) -> list[str]:
    """One line for each sign that figures of now are not to be trusted."""
    found = []
    if noise["others_share"] > OTHER_LOAD_MAX:
        found.append(f"other programs take {noise['others_share']:.0%} of the machine")
    for core, lost in noise["cores"].items():
        if lost["share"] > LOST_SHARE_MAX:
            found.append(f"core {core} is away {lost['share']:.1%} of the time, "
                         f"{lost['longest_us']:.0f} us at worst")
    return found


def stamp(found: dict[str, Any]) -> str:
    """Time and commit of conditions, as the names of files have them."""
    when = found["time"].replace(":", "").replace("-", "")[:15]
    return f"{when}-{found['commit'].rstrip('+')}"


def conditions(noise_seconds: float = JITTER_SECONDS) -> dict[str, Any]:
    """Everything that a reader needs to judge or repeat a run."""
    return {
        "commit": commit(), "time": datetime.datetime.now(datetime.UTC).isoformat("T", "seconds"),
        "cpu": cpu_model(), "cores": len(os.sched_getaffinity(0)), "kernel": platform.release(),
        "python": platform.python_version(), "governor": governor(),
        "filesystem": filesystem(ROOT), "noise": noise(noise_seconds),
    }
