"""The documentation as a site: whole, with every public name in it, and the same pages as on GitHub."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import hunyuan_video

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with warnings as errors: a link that leads nowhere, a page that is not in the navigation, a name that is not there."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert result.returncode == 0, result.stdout + result.stderr
    return out


def test_every_page_of_docs_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if not re.search(rf": {re.escape(page)}$", navigation, flags=re.MULTILINE)] == []


def test_every_public_name_is_in_the_reference(site):
    inventory = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    defined = {line.split()[0] for line in inventory.splitlines()}
    for name in set(hunyuan_video.__all__) - {"__version__"}:
        public = getattr(hunyuan_video, name)
        assert f"{public.__module__}.{name}" in defined, name


def test_the_readme_is_the_home_page_and_its_links_lead_to_pages(site):
    home = (site / "index.html").read_text(encoding="utf-8")
    assert "Every file can be made again" in home
    links = re.findall(r'<a href="([^"#:]+)', home.partition("<article")[2].partition("</article>")[0])
    assert "files/" in links and len(links) > 15
    assert [link for link in links if not (site / link).exists()] == []


def test_a_page_outside_of_docs_links_back(site):
    assert "../../embedded-model/#how-it-was-made" in (site / "recipes/tiny/index.html").read_text(encoding="utf-8")


def test_the_site_can_be_searched_and_fetches_nothing_from_elsewhere(site):
    assert "replay" in (site / "search/search_index.json").read_text(encoding="utf-8")
    for page in site.rglob("*.html"):
        assert re.findall(r'(?:src|<link[^>]*href)="(?:https?:)?//[^"]+', page.read_text(encoding="utf-8")) == [], page
