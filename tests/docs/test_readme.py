# SPDX-License-Identifier: BSD-3-Clause
"""The README: short, code first, and every link leads somewhere."""

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


def test_one_picture_and_one_table_of_figures():
    assert README.count("![") == 1
    assert README.count("<!-- bench-table: ") == 1


@pytest.mark.parametrize("link", sorted(set(LINKS)))
def test_links_lead_to_files_of_the_tree(link):
    assert (PROJECT / link).exists(), link
