# SPDX-License-Identifier: BSD-3-Clause
"""Everything public with drawn arguments: results, or errors that say what is wrong.

FASTRNN_CALLS=1000000 makes so many cases.
"""

import os
import re
import subprocess
import sys

import argument_fuzz
import numpy as np
import pytest

import fastrnn

CASES = int(os.environ.get("FASTRNN_CALLS", "2000"))


def test_public_names_with_drawn_arguments(tried):
    done = subprocess.run(
        [sys.executable, argument_fuzz.__file__, "--cases", str(CASES)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    count = done.stdout.splitlines()[-1]
    n_names, results = re.match(
        rf"{CASES} cases, (\d+) public names: (\d+) results", count
    ).groups()
    assert int(n_names) > 100
    assert int(results) > CASES // 4
    tried(CASES, f"cases of public names with drawn arguments: {count}")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: fastrnn.Stream(fastrnn.Linear(2, 3)),
            TypeError,
            "Stream: layer must be a recurrent layer, such as LSTM, got Linear",
        ),
        (
            lambda: fastrnn.LSTM(2, 3).stream().step([[1.0, 2.0]]),
            TypeError,
            r"Stream\.step: x_t must be a float32 array, got a list",
        ),
        (
            lambda: fastrnn.WordTokenizer().decode([1]),
            RuntimeError,
            "WordTokenizer: fit must come before decode",
        ),
        (
            lambda: fastrnn.callbacks.layer_norms("model"),
            TypeError,
            "layer_norms: model must be a Module, got str",
        ),
        (
            lambda: fastrnn.objectives.class_weights("fit", "balanced", "mse", [1]),
            TypeError,
            "fit: loss must be a Loss, got str",
        ),
        (
            lambda: fastrnn.metrics.by_name("compile", "mse", "mse"),
            TypeError,
            "compile: loss must be a Loss, got str",
        ),
        (
            lambda: fastrnn.callbacks.GradientMonitor().plot(np.zeros(3)),
            TypeError,
            r"GradientMonitor\.plot: ax must be matplotlib's Axes, got ndarray",
        ),
        (
            lambda: fastrnn.Concatenate().merge_masks([1, 2], [None, "all"]),
            TypeError,
            "Concatenate: masks must be ndarrays of bool or None, got str",
        ),
    ],
)
def test_messages_of_what_was_found(call, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        call()
