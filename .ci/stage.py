"""Puts matchd with all that it needs to run into a tree of files: for `make install`, `make deb`.

PREFIX/lib/matchd has the program and its libraries, as they are in the environment of the Python
that runs this; PREFIX/bin/matchd starts it. Nothing is fetched. Files of configuration that are
there already stay as they are.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.metadata
import re
import shutil
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("engine", "cython_core")
# Nothing of this is needed to run.
LEFT_OUT = re.compile(r"(^|/)(tests?|include|__pycache__)/|\.(pyx|pxd|c|h|cpp|hpp|a|exe)$")
UNITS = ("matchd.service", "matchd.socket")
SETTINGS = ("matchd.toml", "instruments.toml", "accounts.toml")
# It finds its library from where it stands itself: also in a tree that is no system's root.
LAUNCHER = """#!{python} -IB
import os
import sys

prefix = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, os.path.join(prefix, "lib", "matchd"))

from engine.cli import main

main()
"""


def requirements() -> list[importlib.metadata.Distribution]:
    """What matchd needs, and what that needs in turn."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = list(project["dependencies"])
    while waiting:
        text = waiting.pop()
        requirement, _, marker = text.partition(";")
        match = re.match(r"[A-Za-z0-9._-]+", requirement.strip())
        if match is None or "extra ==" in marker:
            continue
        name = re.sub(r"[-_.]+", "-", match[0]).lower()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            if not marker:
                raise SystemExit(f"matchd: no {name} here: run `make` first") from None
            # For another system or another Python.
            continue
        waiting += found[name].requires or []
    return [found[name] for name in sorted(found)]


def library_files(distribution: importlib.metadata.Distribution) -> Iterator[tuple[Path, str]]:
    """Files of a library, and where they go. Its commands stay behind."""
    for file in distribution.files or ():
        name = file.as_posix()
        path = Path(str(distribution.locate_file(file)))
        if not name.startswith("..") and not LEFT_OUT.search(name) and path.is_file():
            yield path, name


def own_files() -> Iterator[tuple[Path, str]]:
    """Files of the program: what its wheel has, compiled as it is here."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    patterns = data["tool"]["setuptools"]["package-data"]["engine"]
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            if path.suffix == ".py" or path.name.endswith(suffix):
                yield path, path.relative_to(ROOT).as_posix()
    for pattern in patterns:
        for path in sorted((ROOT / "engine").glob(pattern)):
            if path.is_file():
                yield path, path.relative_to(ROOT).as_posix()


def put(source: Path, target: Path, mode: int = 0o644) -> None:
    """Copy a file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def put_text(text: str, target: Path, mode: int = 0o644) -> None:
    """Write a file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, "utf-8")
    target.chmod(mode)


def stage_program(destination: Path, prefix: str, python: str) -> None:
    """The program and its libraries."""
    library = f"{prefix}/lib/matchd"
    tree = destination / library.lstrip("/")
    if tree.exists():
        shutil.rmtree(tree)
    for distribution in requirements():
        for source, name in library_files(distribution):
            put(source, tree / name)
    for source, name in own_files():
        put(source, tree / name)
    # Compiled here: the service may not write there.
    compileall.compile_dir(tree, quiet=2, stripdir=str(destination), prependdir="/",
                           invalidation_mode=None, workers=0)
    put_text(LAUNCHER.format(python=python),
             destination / f"{prefix}/bin/matchd".lstrip("/"), 0o755)


def stage_service(destination: Path, prefix: str, settings: str) -> None:
    """Units, the service's user, configuration, the page for operators."""
    folder = f"{settings}/matchd"
    for name in UNITS:
        text = (ROOT / "config" / "systemd" / name).read_text("utf-8")
        text = text.replace("/usr/bin/matchd", f"{prefix}/bin/matchd")
        text = text.replace("/etc/matchd", folder).replace("/usr/share", f"{prefix}/share")
        put_text(text, destination / f"{prefix}/lib/systemd/system/{name}".lstrip("/"))
    put(ROOT / "config" / "systemd" / "sysusers.conf",
        destination / f"{prefix}/lib/sysusers.d/matchd.conf".lstrip("/"))
    for name in SETTINGS:
        target = destination / f"{folder}/{name}".lstrip("/")
        if not target.exists():
            text = (ROOT / "config" / name).read_text("utf-8")
            put_text(text.replace('data_dir = "./data"', 'data_dir = "/var/lib/matchd"'), target,
                     0o640)
    for name in ("docs/operations.md", "docs/configuration.md", "LICENSE", "SECURITY.md"):
        put(ROOT / name, destination / f"{prefix}/share/doc/matchd/{Path(name).name}".lstrip("/"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("destination", type=Path, help="where / is, DESTDIR")
    parser.add_argument("--prefix", default="/usr/local")
    parser.add_argument("--settings", default="/etc", help="the folder of configurations")
    parser.add_argument("--python", default="", help="the interpreter that will run it")
    options = parser.parse_args()
    # Not the environment's own: that one need not be there when this runs.
    major, minor = sys.version_info[:2]
    python = options.python or f"{sys.base_prefix}/bin/python{major}.{minor}"
    destination = options.destination.resolve()
    stage_program(destination, options.prefix, python)
    stage_service(destination, options.prefix, options.settings)


if __name__ == "__main__":
    main()
