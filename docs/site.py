"""What mkdocs needs to be told: documents outside of docs/, such as the README, are pages of the site, and all links lead there."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
OUTSIDE = (
    "README.md", "README_zh.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "NOTICE",
    "recipes/tiny/README.md", "recipes/progressive.toml",
)  # fmt: skip


def on_files(files: Any, config: Any) -> None:
    for path in OUTSIDE:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """A page of the site is called as in the repository, but without docs/: links, which are written for the repository, follow."""
    here = page.file.src_uri
    in_repository = posixpath.dirname(here if here in OUTSIDE else f"docs/{here}")

    def moved(link: re.Match[str]) -> str:
        target, anchor = link[1], link[2] or ""
        if "://" in target:
            return link[0]
        path = posixpath.normpath(posixpath.join(in_repository, target)).removeprefix("docs/")
        return f"]({posixpath.relpath(path, posixpath.dirname(here) or '.')}{anchor})"

    return re.sub(r"\]\(([^)#\s]+)(#[^)]*)?\)", moved, markdown)
