# SPDX-License-Identifier: BSD-3-Clause
"""The README: short, code first, and every link leads somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
LINKS = re.findall(r"\]\(([^)\s]+)\)", README)


def test_it_is_short_and_begins_with_a_program():
    assert len(README.splitlines()) < 150
    before, _, rest = README.partition("```python\n")
    block = rest.partition("```\n")[0]
    assert len(before.splitlines()) < 8
    assert "\n#" not in before
    code = [line for line in block.splitlines() if line.strip()]
    assert len(code) <= 12
    for step in (".compile(", ".fit(", ".predict("):
        assert step in block


def test_one_picture_and_a_table_of_speed_and_one_of_fewer_bits():
    assert README.count("![") == 1
    tables = re.findall(r"<!-- bench-table: .* (\w+) -->", README)
    assert tables == ["summary", "brief"]


@pytest.mark.parametrize("link", sorted(set(LINKS)))
def test_links_lead_to_files_of_the_tree(link):
    assert (PROJECT / link).exists(), link


def test_links_have_an_address_on_an_index(tmp_path):
    """An index shows the README without the tree around it."""
    place = importlib.util.spec_from_file_location(
        "absolute_links", PROJECT / "docs" / "absolute_links.py"
    )
    script = importlib.util.module_from_spec(place)
    place.loader.exec_module(script)
    copy = tmp_path / "README.md"
    copy.write_text(
        README + "[away](https://x.org/y) [here](#fast)\n", encoding="utf-8"
    )
    assert script.main([str(copy), "https://host.org/us/fastrnn/", "v1"]) == 0
    text = copy.read_text(encoding="utf-8")
    base = "https://host.org/us/fastrnn"
    assert f"]({base}/raw/v1/bench/results/training.png)" in text
    assert f"[docs/numerics.md]({base}/blob/v1/docs/numerics.md)" in text
    assert text.endswith("[away](https://x.org/y) [here](#fast)\n")
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(found) == len(LINKS) + 2
    assert all(re.match(r"https://|#", link) for link in found)
