"""`make install` and the Debian package: installed, started, removed, in a tree of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import ROOT

PYTHON = f"/usr/bin/python3.{sys.version_info.minor}"
# The running system with a layer of its own above, which is gone with the mounts.
_LAYER = """
set -e
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount --rbind /proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs none "$1/root/run"
"""
# What systemd does with the unit's ExecStart: its user, its directory, the notify socket; then an
# order by the installed command, and the end.
_START = """
import json, os, re, signal, socket, subprocess, sys
unit = open("/lib/systemd/system/matchd.service").read()
command = re.search("^ExecStart=(.*)$", unit, re.M)[1].split()
user = re.search("^User=(.*)$", unit, re.M)[1]
os.makedirs("/var/lib/matchd")
shutil = __import__("shutil")
shutil.chown("/var/lib/matchd", user, user)
ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
ear.bind("/run/notify")
os.chmod("/run/notify", 0o777)
ear.settimeout(60)
ports = {f"MATCHD_{name}": "0" for name in (
    "ORDER_ENTRY__TCP_PORT", "ORDER_ENTRY__UDP_PORT", "FEED__PORT", "API__PORT")}
daemon = subprocess.Popen(
    ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", *command],
    env=os.environ | ports | {"NOTIFY_SOCKET": "/run/notify", "MATCHD_LOG__FORMAT": "json"},
    stderr=open("/run/log", "w"))
try:
    while b"READY=1" not in ear.recv(65536):
        pass
    lines = [json.loads(line) for line in open("/run/log")]
    port = next(line["port"] for line in lines if line["event"] == "listening")
    done = subprocess.run(["matchd", "submit", "MAKER1", "buy", "BTC-USDT", "0.5", "60000",
                           "--password", "demo", "--port", str(port),
                           "--config", "/etc/matchd/matchd.toml"])
    assert done.returncode == 0
    reloaded = subprocess.run(["matchd", "reload", "--config", "/etc/matchd/matchd.toml"])
    assert reloaded.returncode == 0
finally:
    daemon.send_signal(signal.SIGTERM)
    code = daemon.wait(60)
    print(open("/run/log").read(), file=sys.stderr)
assert code == 0, code
"""


def _why_not() -> str:
    """Why a package can't be tried here, "" when it can."""
    for program in ("dpkg-deb", "dpkg", "unshare", "setpriv", "systemd-sysusers"):
        if shutil.which(program) is None:
            return f"no {program} here"
    if not Path(PYTHON).exists():
        return f"no {PYTHON} here"
    if os.geteuid() != 0:
        return "only root may mount a tree to install into"
    return ""


class Machine:
    """This machine with a layer above: what is installed there is gone afterwards."""

    def __init__(self, folder: Path, package: Path) -> None:
        self._folder, self._package = folder, package

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script in there; the package is /package.deb, the probe /start.py."""
        self._folder.mkdir()
        (self._folder.parent / "start.py").write_text(_START)
        inside = (f"{_LAYER}\ncp '{self._package}' \"$1/root/package.deb\"\n"
                  f"cp '{self._folder.parent}/start.py' \"$1/root/start.py\"\n"
                  "exec chroot \"$1/root\" sh -ec \"$2\"")
        return subprocess.run(["unshare", "--mount", "sh", "-c", inside, "sh",
                               str(self._folder), script], capture_output=True, text=True,
                              timeout=280, check=False, cwd="/")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built of what is compiled here."""
    why = _why_not()
    if why:
        pytest.skip(why)
    out = tmp_path_factory.mktemp("package")
    done = subprocess.run([str(ROOT / ".ci" / "deb"), str(out)], capture_output=True, text=True,
                          timeout=280, check=False, env=os.environ | {"PYTHON": sys.executable})
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def test_the_package_installs_starts_and_goes(package: Path, tmp_path: Path) -> None:
    done = Machine(tmp_path / "machine", package).run("""
        dpkg -i /package.deb
        id -un matchd
        test "$(stat -c '%U:%G %a' /etc/matchd/accounts.toml)" = "root:matchd 640"
        dpkg --verify matchd
        matchd --version
        systemd-analyze verify --man=no matchd.service matchd.socket
        python3 /start.py
        echo '# by the operator' >> /etc/matchd/matchd.toml
        dpkg -i /package.deb
        grep -q 'by the operator' /etc/matchd/matchd.toml
        dpkg -r matchd
        test ! -e /usr/bin/matchd
        test ! -e /usr/lib/matchd
        test ! -e /lib/systemd/system/matchd.service
        test -e /etc/matchd/matchd.toml
        dpkg -P matchd
        test ! -e /etc/matchd
        test -d /var/lib/matchd
        echo all is well
    """)
    if "mount" in done.stderr and "failed" in done.stderr:
        pytest.skip(f"no tree can be mounted here: {done.stderr.strip()}")
    assert done.stdout.endswith("all is well\n"), done.stdout + done.stderr
    assert '"event": "stopped"' in done.stderr


def test_the_package_says_what_it_has(package: Path) -> None:
    def ask(*arguments: str) -> str:
        return subprocess.run(["dpkg-deb", *arguments], capture_output=True, text=True,
                              check=True).stdout

    assert ask("-I", str(package), "conffiles").split() == [
        f"/etc/matchd/{name}.toml" for name in ("accounts", "instruments", "matchd")]
    files = {line.split()[-1]: line for line in ask("-c", str(package)).splitlines()}
    for name in ("./usr/bin/matchd", "./usr/lib/systemd/system/matchd.socket",
                 "./usr/lib/sysusers.d/matchd.conf", "./usr/lib/matchd/engine/app.py",
                 "./usr/lib/matchd/engine/defaults/matchd.toml",
                 "./usr/share/doc/matchd/operations.md"):
        assert "root/root" in files[name]
    # Only what runs: no tests, no tools, no sources of compiled modules.
    assert not any(name.startswith("./usr/lib/matchd/pytest") or name.endswith((".pyx", ".c"))
                   for name in files)


def test_make_install_and_uninstall(tmp_path: Path) -> None:
    prefix, settings = tmp_path / "prefix", tmp_path / "etc"
    stage = [sys.executable, str(ROOT / ".ci" / "stage.py"), "/", "--prefix", str(prefix),
             "--settings", str(settings)]
    subprocess.run(stage, check=True, timeout=280)
    # It needs nothing of the environment that it was made in.
    command = [str(prefix / "bin" / "matchd")]
    clean = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True,
                          env=clean, cwd="/")
    assert done.stdout.startswith("matchd ")
    done = subprocess.run([*command, "check-config", "--config", str(settings / "matchd" /
                                                                     "matchd.toml")],
                          capture_output=True, text=True, check=False, env=clean, cwd="/")
    assert done.returncode == 0, done.stderr
    unit = (prefix / "lib" / "systemd" / "system" / "matchd.service").read_text()
    assert f"ExecStart={prefix}/bin/matchd run --config {settings}/matchd/matchd.toml" in unit
    # Also from a tree that stands somewhere else, as with DESTDIR.
    elsewhere = shutil.copytree(prefix, tmp_path / "root" / "opt", symlinks=True)
    shutil.move(prefix, tmp_path / "away")
    done = subprocess.run([elsewhere / "bin" / "matchd", "--version"], capture_output=True,
                          text=True, check=True, env=clean, cwd="/")
    assert done.stdout.startswith("matchd ")
    shutil.move(tmp_path / "away", prefix)
    # A second time: what the operator wrote stays.
    (settings / "matchd" / "instruments.toml").write_text("# mine\n")
    subprocess.run(stage, check=True, timeout=280)
    assert (settings / "matchd" / "instruments.toml").read_text() == "# mine\n"
    subprocess.run(["make", "-s", "uninstall", f"PREFIX={prefix}", f"SYSCONFDIR={settings}"],
                   cwd=ROOT, check=True, timeout=60)
    left = [path for path in prefix.rglob("*") if not path.is_dir()]
    assert left == []
    assert (settings / "matchd" / "accounts.toml").exists()
