# SPDX-License-Identifier: BSD-3-Clause
"""Keras's own tests of its recurrent layers, with fastrnn's layers in their place.

The tests are those of the Keras that is installed. Run it for each backend:

    KERAS_BACKEND=torch python tests/keras/keras_own_tests.py

It runs the tests with Keras's layers and again with fastrnn's, prints how many passed
and how many calls the kernels ran, and fails unless all that pass with Keras's layers
pass with fastrnn's. A word as an argument, such as lstm, runs tests of that file alone.
"""

import collections
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FILES = ("lstm", "gru", "simple_rnn", "bidirectional", "rnn")


class _Outcomes:
    """A plugin of pytest that notes how each test ended."""

    def __init__(self):
        self.found = {}

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            self.found[report.nodeid.rpartition("/")[2]] = report.outcome


def _put_ours_in_their_place():
    """Let Keras's modules have fastrnn's classes under the names of its own."""
    import keras
    from keras.src import api_export, layers

    from fastrnn.keras.drop_in.layers import OURS

    for theirs, ours in OURS.items():
        for module in (layers, keras.layers):
            setattr(module, theirs.__name__, ours)
        # What Keras makes of a configuration.
        name = api_export.get_name_from_symbol(theirs)
        api_export.register_internal_serializable(name, ours)


def run(files, ours, report):
    """Run the tests in this process; write what came of them to a file."""
    import pytest

    folder = Path(importlib.util.find_spec("keras").submodule_search_locations[0])
    outcomes, calls = _Outcomes(), []
    with contextlib.ExitStack() as stack:
        if ours:
            from fastrnn.keras.drop_in import paths

            _put_ours_in_their_place()
            calls = stack.enter_context(paths.watching())
        pytest.main(
            [
                *(str(folder / f"src/layers/rnn/{name}_test.py") for name in files),
                *("-q", "--no-header", "--import-mode=importlib"),
                *("-p", "no:cacheprovider", "-p", "no:warnings"),
                *(f"--rootdir={folder}", "-c", os.devnull),
            ],
            plugins=[outcomes],
        )
    counts = collections.Counter(str(path) for _, path in calls)
    report.write_text(json.dumps({"tests": outcomes.found, "calls": counts}))


def main(arguments):
    """Run both ways, each in a process of its own; print and compare."""
    files = [name for name in FILES if name in arguments] or list(FILES)
    found = {}
    for which in ("stock", "ours"):
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report"
            command = [sys.executable, __file__, "--run", which, str(report), *files]
            subprocess.run(command, check=True)
            found[which] = json.loads(report.read_text())
    passed = {
        which: {name for name, end in one["tests"].items() if end == "passed"}
        for which, one in found.items()
    }
    print(f"backend {os.environ.get('KERAS_BACKEND', 'of the configuration')}")
    for which, names in passed.items():
        print(f"{which}: {len(names)} of {len(found[which]['tests'])} passed")
    for path, count in sorted(found["ours"]["calls"].items()):
        print(f"{count:5} calls by {path}")
    lost = sorted(passed["stock"] - passed["ours"])
    for name in lost:
        print(f"passes with Keras's layers alone: {name}")
    return 1 if lost or not passed["stock"] else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[4:], sys.argv[2] == "ours", Path(sys.argv[3]))
        sys.exit(0)
    sys.exit(main(sys.argv[1:]))
