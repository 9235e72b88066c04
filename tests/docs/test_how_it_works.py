# SPDX-License-Identifier: BSD-3-Clause
"""docs/how_it_works: every path and name exists, and drawings are what is drawn."""

import importlib.util
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import fastrnn

PROJECT = Path(__file__).resolve().parents[2]
FOLDER = PROJECT / "docs" / "how_it_works"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
FENCE = re.compile(r"^```.*?^```\n", re.MULTILINE | re.DOTALL)
ROLE = re.compile(r"\{\w+\}`")
PATH = re.compile(
    r"(?:csrc|src|tests|docs|bench|examples)/[\w./]+|[A-Z]+\.md|setup\.py"
)
# A name of the code; shorter ones, as in `da = dh R`, are the letters of equations.
NAME = re.compile(r"[A-Za-z_]\w{2,}")
ELSEWHERE = {"PackedSequence"}  # PyTorch's


def in_backticks(text):
    """What stands in backticks in prose, without roles and arguments."""
    prose = ROLE.sub("{role}", FENCE.sub("", text))
    return re.findall(r"(?<!\{role\})`([^`\n]+)`", prose)


def paths(text):
    return sorted({found for found in in_backticks(text) if PATH.fullmatch(found)})


def names(text):
    """Names of the code: ``f(x=1)`` and ``name=value`` count by their first name."""
    heads = {re.split(r"[=(]", found)[0] for found in in_backticks(text)}
    return sorted({h for h in heads if NAME.fullmatch(h)} - ELSEWHERE)


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page):
    missing = [path for path in paths(PAGES[page]) if not (PROJECT / path).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_names_are_in_the_files_that_the_page_names(page):
    files = [PROJECT / path for path in paths(PAGES[page])]
    code = "\n".join(f.read_text(encoding="utf-8") for f in files if f.is_file())
    words = set(re.findall(r"\w+", code))
    assert not [name for name in names(PAGES[page]) if name not in words]


@pytest.mark.parametrize("page", PAGES)
def test_public_names_are_public(page):
    for found in in_backticks(PAGES[page]):
        if match := re.match(r"fastrnn\.([A-Za-z_]\w*)", found):
            assert hasattr(fastrnn, match[1]), found


def test_what_is_missing_would_be_found():
    text = "See `csrc/kernels/none.c`, `no_such_name(x)` and {doc}`none_such`."
    assert paths(text) == ["csrc/kernels/none.c"]
    assert names(text) == ["no_such_name"]
    assert all(paths(text) or page == "index" for page, text in PAGES.items())
    assert sum(len(names(text)) for text in PAGES.values()) > 50


INCLUDE = re.compile(
    r"^```\{literalinclude\} (\S+)\n((?::[\w-]+: .*\n)*)```$", re.MULTILINE
)


def test_included_parts_are_there():
    """Sphinx cuts files where these texts stand: in this order, each in its file."""
    included = [found for text in PAGES.values() for found in INCLUDE.finditer(text)]
    assert sum(text.count("literalinclude") for text in PAGES.values()) == len(included)
    for found in included:
        text = (FOLDER / found[1]).read_text(encoding="utf-8")
        options = dict(re.findall(r"^:([\w-]+): \"?(.*?)\"?$", found[2], re.MULTILINE))
        start = text.find(options["start-at"].replace('\\"', '"'))
        end = options.get("end-at", options.get("end-before")).replace('\\"', '"')
        assert 0 <= start < text.find(end, start + 1), found[0]


def test_drawings_are_what_the_script_draws():
    """`python docs/how_it_works/drawings.py` writes them."""
    place = importlib.util.spec_from_file_location("drawings", FOLDER / "drawings.py")
    drawings = importlib.util.module_from_spec(place)
    place.loader.exec_module(drawings)
    for name, draw in drawings.DRAWINGS.items():
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert text == draw().svg()
        assert ET.fromstring(text).tag.endswith("svg")
    shown = set(re.findall(r"!\[[^]]+\]\((\w+\.svg)\)", "".join(PAGES.values())))
    assert shown == set(drawings.DRAWINGS)
    assert shown == {path.name for path in FOLDER.glob("*.svg")}


def test_pages_are_reached_from_the_first():
    tree = re.search(r"```\{toctree\}\n(?::.*\n)*\n(.*?)```", PAGES["index"], re.DOTALL)
    assert {*tree[1].split(), "index"} == set(PAGES)
    every = "".join(PAGES.values())
    linked = [f"{page}.md" for page in re.findall(r"\{doc\}`([^`]+)`", every)]
    linked += re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", every))
    for path in linked:
        assert (FOLDER / path).exists(), path
