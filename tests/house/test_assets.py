"""What the pages take from the npm registry: pinned, fetched, or refused in one line."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NPM = ROOT / ".ci" / "npm"
# Stands in for npm: leaves the files that the packages have, as far as the script wants them.
FAKE_NPM = """#!/bin/sh
[ "$1" = ci ] || exit 9
mkdir -p node_modules/lightweight-charts/dist node_modules/swagger-ui-dist
cd node_modules
echo chart > lightweight-charts/dist/lightweight-charts.standalone.production.mjs
echo licence > lightweight-charts/LICENSE
for file in swagger-ui-bundle.js swagger-ui-bundle.js.LICENSE.txt swagger-ui.css LICENSE NOTICE; do
    echo "$file" > "swagger-ui-dist/$file"
done
"""


def program(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    return folder / name


def fetch(tmp_path: Path, npm: str, python: str = "#!/bin/sh\nexit 1\n"):
    """Run the script as make does, in a folder of its own, with these programs."""
    shutil.copytree(NPM, tmp_path / ".ci" / "npm", dirs_exist_ok=True)
    (tmp_path / "engine" / "api").mkdir(parents=True, exist_ok=True)
    program(tmp_path / "bin", "npm", npm)
    python_path = program(tmp_path / "bin", "python", python)
    return subprocess.run(
        ["sh", ROOT / ".ci" / "assets"], cwd=tmp_path, text=True, capture_output=True, timeout=60,
        env={"PATH": f"{tmp_path / 'bin'}:{os.defpath}", "PYTHON": str(python_path)})


def test_the_files_that_the_pages_need_are_put_in_place(tmp_path):
    done = fetch(tmp_path, FAKE_NPM)
    assert done.returncode == 0, done.stderr
    vendor = tmp_path / "engine" / "api" / "vendor"
    assert sorted(path.relative_to(vendor).as_posix() for path in vendor.rglob("*.*")) == [
        "lightweight-charts/lightweight-charts.js", "swagger-ui/swagger-ui-bundle.js",
        "swagger-ui/swagger-ui-bundle.js.LICENSE.txt", "swagger-ui/swagger-ui.css"]
    assert (vendor / "lightweight-charts" / "LICENSE").exists()


def test_without_a_working_npm_the_one_of_the_python_package_is_used(tmp_path):
    fake_python = ('#!/bin/sh\n[ "$1" = -m ] && exit 0\nshift 2\n'
                   f"exec sh {tmp_path / 'bin' / 'inner'} \"$@\"\n")
    program(tmp_path / "bin", "inner", FAKE_NPM)
    done = fetch(tmp_path, "#!/bin/sh\nexit 1\n", fake_python)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "engine/api/vendor/lightweight-charts/lightweight-charts.js").exists()


@pytest.mark.parametrize(("npm", "python", "message"), [
    ("#!/bin/sh\nexit 1\n", "#!/bin/sh\nexit 1\n", "no npm here, and none to be had"),
    ("#!/bin/sh\nexit 1\n", '#!/bin/sh\n[ "$1" = -m ]\n', "npm can't fetch what"),
    ("#!/bin/sh\nexit 0\n", "#!/bin/sh\nexit 0\n", "in its package")])
def test_what_cannot_be_had_is_said_in_one_line_and_leaves_nothing(tmp_path, npm, python, message):
    done = fetch(tmp_path, npm, python)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "engine/api/vendor").exists()


def test_versions_and_checksums_are_pinned_and_no_registry_is_named():
    wanted = json.loads((NPM / "package.json").read_text())["dependencies"]
    text = (NPM / "package-lock.json").read_text()
    locked = json.loads(text)["packages"]
    assert {name: locked[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert all(entry["integrity"].startswith("sha512-") for name, entry in locked.items() if name)
    assert "resolved" not in text and "://" not in text
