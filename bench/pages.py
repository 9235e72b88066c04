# SPDX-License-Identifier: BSD-3-Clause
"""Write the tables of committed results into the pages that show them.

A table stands between two comments, of which the first says what it is::

    <!-- bench-table: epyc-2core-0.1.0.json train model -->
    <!-- bench-table-end -->

After the name of a file of ``bench/results``, or of several with ``+`` between, come
words: ``machine`` is the sentence about the machine and the versions; ``forward``,
``train``, ``step`` and ``model`` are the tables of these passes; ``summary`` is one
table of the cases of the suite of that name; ``gains`` is one of programs without and
with one line more; ``narrow`` are those of speed and accuracy, of the suites ``bf16``
and ``int8``, and ``brief`` is one table of a file of each of these suites. ``python -m
bench.pages`` brings all pages up to date. A test holds the pages to the files.
"""

import argparse
import re
import sys
from pathlib import Path

from bench import narrow, report
from bench.result import FormatError, load

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "benchmarks.md",
    ROOT / "docs" / "benchmarks_narrow.md",
)
MARK = re.compile(
    r"(?P<begin><!-- bench-table: (?P<file>\S+) (?P<words>[a-z ]+) -->\n)"
    r".*?(?P<end><!-- bench-table-end -->)",
    re.DOTALL,
)


def _parts(results, words, mark):
    result, *more = results
    for word in words:
        if word == "machine":
            yield report.machine(result)
        elif word == "summary":
            yield report.summary_table(result)
        elif word == "gains":
            yield report.gains_table(result)
        elif word == "narrow":
            yield from narrow.tables(result)
        elif word == "brief":
            yield narrow.brief(result, *more)
        elif word in report.PASSES:
            yield from report.pass_tables(result, [word])
        else:
            others = "machine", "summary", "gains", "narrow", "brief"
            known = ", ".join((*others, *report.PASSES))
            raise FormatError(f"bench.pages: {mark}: must be of {known}, got {word}")


def with_tables(text):
    """The text of a page with its tables made anew from the files that it names."""

    def table(found):
        results = [load(RESULTS / name) for name in found["file"].split("+")]
        words = found["words"].split()
        parts = "\n\n".join(_parts(results, words, found["begin"].strip()))
        return f"{found['begin']}{parts}\n{found['end']}"

    return MARK.sub(table, text)


def main(arguments=None):
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser("python -m bench.pages", description=__doc__)
    parser.parse_args(arguments)
    try:
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            page.write_text(with_tables(text), encoding="utf-8")
    except FormatError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
