"""What mkdocs calls while it builds the site: files from outside docs/ come along.

Pages link to files of the repository (`../ARCHITECTURE.md`, `../examples/first_order.py`) as they
stand there. On the site those files are pages below repository/, and the links lead to them.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "bench/README.md")
_LINK = re.compile(r"(\]\()([^)\s:#]+)(#[^)\s]*)?\)")


def outside() -> dict[str, str]:
    """The pages that come along, by their file in the repository."""
    examples = {f"examples/{path.name}": f"repository/examples/{path.stem}.md"
                for path in sorted((ROOT / "examples").glob("*.py"))}
    return {name: f"repository/{name.replace('README', 'index')}" for name in PAGES} | examples


def on_files(files: Files, config: Any) -> Files:
    """Add them to the files of docs/."""
    for name, page in outside().items():
        text = (ROOT / name).read_text("utf-8")
        if name.endswith(".py"):
            text = f"# {name}\n\n```python\n{text}```\n"
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Have the page's links lead to where their files are on the site."""
    pages = outside()
    uri = page.file.src_uri
    # Where the page stands in the repository.
    source = next((name for name, other in pages.items() if other == uri), f"docs/{uri}")

    def lead(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[2]))
        there = pages.get(target, target.removeprefix("docs/"))
        if there == target:
            return found[0]
        return f"{found[1]}{posixpath.relpath(there, posixpath.dirname(uri))}{found[3] or ''})"

    return _LINK.sub(lead, markdown)
