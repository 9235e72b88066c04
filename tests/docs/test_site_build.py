# SPDX-License-Identifier: BSD-3-Clause
"""The documentation site: it builds without a warning, and nothing in it is broken.

A build takes a minute of one processor, so this is not part of every run; ``python -m
pytest --grid tests/docs/test_site_build.py`` is. ``FASTRNN_SITE=FOLDER`` checks a site
that has been built.
"""

import os
import shutil
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

PROJECT = Path(__file__).resolve().parents[2]
# Pages that Sphinx makes of no source of ours.
ITS_OWN = {"genindex.html", "search.html", "py-modindex.html"}
pytestmark = pytest.mark.only_grid


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder with the built site."""
    if "FASTRNN_SITE" in os.environ:
        return Path(os.environ["FASTRNN_SITE"]).resolve()
    pytest.importorskip("sphinx", reason="sphinx is not installed")
    tree = tmp_path_factory.mktemp("site") / "tree"  # a build writes beside sources
    no_sources = shutil.ignore_patterns(
        ".*", "build", "_build", "generated", "gallery", "*.so", "__pycache__"
    )
    shutil.copytree(PROJECT, tree, ignore=no_sources)
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*build, "docs", "html"], cwd=tree, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return tree / "html"


class _Page(HTMLParser):
    """What a page links to, which anchors it has, its images, its main headings."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors, self.images, self.headings = [], {""}, [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors.update(attrs[key] for key in ("id", "name") if attrs.get(key))
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        if tag == "img":
            self.images.append(attrs["src"])
        self.headings += tag == "h1"


@cache
def read(path):
    return _Page(path.read_text(encoding="utf-8"))


def pages(site):
    found = [path for path in site.rglob("*.html") if "_static" not in path.parts]
    assert len(found) > 150
    return found


def target(page, url):
    """The file and the anchor that a link leads to; None if that is another site."""
    parts = urlsplit(url)
    if parts.scheme or parts.netloc:
        return None
    path = page if not parts.path else (page.parent / unquote(parts.path)).resolve()
    return path, unquote(parts.fragment)


def test_no_link_is_broken(site):
    broken = []
    for page in pages(site):
        for url in read(page).links:
            found = target(page, url)
            if found is None:
                continue
            path, anchor = found
            lost = not path.is_file() or (
                path.suffix == ".html" and anchor not in read(path).anchors
            )
            if lost and url != "#":
                broken.append(f"{page.relative_to(site)}: {url}")
    assert broken == []


def test_each_page_has_one_main_heading(site):
    wrong = [
        f"{page.relative_to(site)}: {read(page).headings}"
        for page in pages(site)
        if page.name not in ITS_OWN
        and "_modules" not in page.parts
        and read(page).headings != 1
    ]
    assert wrong == []


def test_images_are_there(site):
    seen = set()
    for page in pages(site):
        for url in read(page).images:
            if url.startswith("data:"):
                continue
            path, _ = target(page, url)
            assert path.is_file(), f"{page.relative_to(site)}: {url}"
            is_picture = "_images" in path.parts
            assert path.stat().st_size > 1000 * is_picture, url
            seen.add(path.name)
    assert {"weather.png", "weather_quick.png", "forgetting.png"} <= seen


def test_search_knows_the_layers(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    for word in ("LSTM", "api/generated/fastrnn.LSTM", '"lstm"', "load_model"):
        assert word in index


def test_pages_ask_no_other_server(site):
    """Fonts, scripts and styles are the site's own: it reads without a network."""
    for page in pages(site):
        text = page.read_text(encoding="utf-8")
        for tag in ('src="http', '<link rel="stylesheet" href="http'):
            assert tag not in text, page.relative_to(site)
