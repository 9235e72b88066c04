# SPDX-License-Identifier: BSD-3-Clause
"""docs/guide/pictures: what the lines show, and that the files show these lines."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

import fastrnn

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "guide" / "pictures"
SPEC = importlib.util.spec_from_file_location("guide_pictures", FOLDER / "draw.py")
draw = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(draw)
LINE = re.compile(r'<g id="line: ([^"]+)">\s*<path d="([^"]+)"')


@pytest.fixture(autouse=True)
def _one_thread():
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(1)  # small arrays
    yield
    fastrnn.set_num_threads(before)


def test_lines_of_vanishing_gradients_are_in_the_order_that_the_text_says():
    lines = draw.vanishing()
    kept = {name: norms[-1] / norms[0] for name, norms in lines.items()}
    assert kept["RNN, PyTorch's first values"] < 1e-20
    assert kept["GRU"] < 1e-15
    assert kept["GRU"] < kept["LSTM"] < kept["RNN, orthogonal"] < 1e-2
    assert kept["LSTM, forget_bias=3"] > 0.1


def test_lines_of_exploding_gradients_grow_and_their_bound_holds():
    lines = draw.exploding()
    assert lines["gain 2"][-1] > 1e6 * lines["gain 2"][0]
    assert lines["gain 0.8"][-1] < 1e-8 * lines["gain 0.8"][0]
    assert lines["gain 2, clip_state_grad"].max() == lines["gain 2"][0]


def test_the_loss_that_is_clipped_falls_and_the_other_one_jumps():
    lines = draw.clipping()
    assert lines["not clipped"].max() > 1e4
    assert lines["norm at most 1"].max() < 10
    assert lines["norm at most 1"][-20:].mean() < lines["norm at most 1"][:20].mean()


def points(path):
    """The points of each line of a picture, by the line's label."""
    found = {}
    for name, way in LINE.findall(path.read_text(encoding="utf-8")):
        numbers = re.findall(r"-?\d+(?:\.\d+)?", way)
        found[name] = np.array(numbers, float).reshape(-1, 2)
    return found


def test_the_pictures_are_those_that_the_script_draws(tmp_path):
    pytest.importorskip("matplotlib")
    draw.draw(tmp_path)
    for name in draw.PICTURES:
        kept, drawn = FOLDER / f"{name}.svg", tmp_path / f"{name}.svg"
        assert kept.stat().st_size < 60_000
        before, now = points(kept), points(drawn)
        assert before.keys() == now.keys() != set()
        for label, line in now.items():
            # Of 540 points; another matplotlib may lay the picture out anew.
            np.testing.assert_allclose(before[label], line, atol=10)
