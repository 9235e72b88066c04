# SPDX-License-Identifier: BSD-3-Clause
"""Tables in pages are those of the committed results, and runs that go on."""

import json
import re

import pytest


def test_tables_are_those_of_the_results(bench):
    """`python -m bench.pages` brings the pages up to date."""
    pages = bench("pages")
    for page in pages.PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(pages.MARK.findall(text)) == text.count("<!-- bench-table: ") > 0
        assert pages.with_tables(text) == text, page


def test_a_changed_figure_is_found(bench):
    pages = bench("pages")
    text = pages.PAGES[0].read_text(encoding="utf-8")
    figure = re.search(r"\| \d[\d.]* ms \(", text)[0]
    changed = text.replace(figure, "| 1234 ms (", 1)
    assert changed != text
    assert pages.with_tables(changed) == text


def test_every_committed_result_is_in_a_page(bench):
    pages = bench("pages")
    texts = [page.read_text(encoding="utf-8") for page in pages.PAGES]
    marks = [found["file"] for text in texts for found in pages.MARK.finditer(text)]
    named = {name for files in marks for name in files.split("+")}
    assert named == {path.name for path in pages.RESULTS.glob("*.json")}


def test_an_unknown_word_is_refused(bench):
    text = "<!-- bench-table: epyc-2core-0.1.0.json many -->\n<!-- bench-table-end -->"
    with pytest.raises(bench("result").FormatError, match=r"many -->: must be of .*"):
        bench("pages").with_tables(text)


def test_the_summary_has_its_cases_in_order(bench):
    report, cases = bench("report"), bench("cases")
    result = bench("result").load(bench("pages").RESULTS / "epyc-2core-0.1.0.json")
    rows = report.summary_table(result).splitlines()[2:]
    assert len(rows) == len(cases.summary())
    assert rows[0].startswith("| LSTM T100 B64 I128 H128 |")
    assert rows[-1].startswith("| Character model V65 E64 H128 T50 B32 |")


def test_the_best_peer_is_the_one_of_the_smallest_ratio(bench):
    """Medians of times and of ratios may have another order; the tables show ratios."""
    ratios = {"torch": 2.73, "keras": 2.81, "jax": 3.4}
    libraries = {name: {"ratio": {"median": r}} for name, r in ratios.items()}
    libraries |= {"fastrnn": {"ms": {"median": 1.0}}}
    best = bench("result").best_peer({"libraries": libraries})
    assert best == {"name": "torch", "ratio": {"median": 2.73}}


ABOUT = {
    "machine": {"cpu": "a CPU", "load_average": 0.1},
    "libraries": {"fastrnn": {"versions": {"fastrnn": "1"}}},
    "absent": {},
    "settings": {"suite": "summary", "threads": 2},
}


def test_a_run_goes_on_under_the_same_conditions_alone(bench):
    goes_on = bench("run").goes_on
    before = {**ABOUT, "cases": [{"id": "lstm/train/T1-B1-I1-H1"}]}
    later = {**ABOUT, "machine": {"cpu": "a CPU", "load_average": 3.0}, "cases": []}
    assert goes_on(before, later) is before
    for what in ABOUT:
        other = json.loads(json.dumps(later))
        other[what] = {"cpu": "another"}
        message = rf"--go-on: {what} must be that of the file, .* got .*another"
        with pytest.raises(bench("result").FormatError, match=message):
            goes_on(before, other)


def test_go_on_needs_a_file(bench, capsys):
    with pytest.raises(SystemExit):
        bench("run").main(["--quick", "--go-on"])
    assert "--go-on needs --json FILE" in capsys.readouterr().err
