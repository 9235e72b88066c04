# SPDX-License-Identifier: BSD-3-Clause
"""Runs a script and says what is amiss in the pictures that it saves.

    python drawn.py SCRIPT ARGUMENTS...

Every fault is a line on standard output that begins with "amiss: ".
"""

import runpy
import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("agg")

from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

_OVERLAP = 0.2  # of the smaller text's area, from which on neither can be read well


def _boxes(texts):
    """What texts that are seen cover, (N, 4), without the boxes drawn round them."""
    seen = [text for text in texts if text.get_visible() and text.get_text().strip()]
    found = [text.get_window_extent() for text in seen]
    extents = np.array([box.extents for box in found]).reshape(-1, 4)
    return [text.get_text() for text in seen], extents


def _printed_on_each_other(axes):
    words, boxes = _boxes(axes.texts)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for i in range(len(words) - 1):
        rest = boxes[i + 1 :]
        low = np.maximum(boxes[i, :2], rest[:, :2])
        high = np.minimum(boxes[i, 2:], rest[:, 2:])
        both = np.prod(np.maximum(high - low, 0), axis=1)
        for j in np.flatnonzero(both > _OVERLAP * np.minimum(areas[i], areas[i + 1 :])):
            yield f"{words[i]!r} is printed on {words[i + 1 + j]!r}"


def _under_the_legend(axes):
    legend = axes.get_legend()
    if legend is None:
        return
    box = legend.get_window_extent()
    for line in axes.lines:
        points = line.get_transform().transform(line.get_xydata())
        if any(box.contains(*point) for point in points):
            yield f"the legend lies on the data of {line.get_label()!r}"


def _unlabelled(axes):
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        shown = any(
            tick.label1.get_visible() or tick.label2.get_visible()
            for tick in axis.get_major_ticks()
            if (tick.label1.get_text() or tick.label2.get_text())
        )
        # Names in place of numbers say themselves what they are.
        named = axis.get_majorticklabels() and not any(
            letter.isdigit() for letter in axis.get_majorticklabels()[0].get_text()
        )
        if shown and not named and not axis.label.get_text():
            yield f"the {name} axis has no label"
        if axis.label.get_text() == "epoch":
            inside = Bbox([axes.viewLim.min, axes.viewLim.max])
            low, high = inside.intervalx if name == "x" else inside.intervaly
            ticks = [tick for tick in axis.get_ticklocs() if low <= tick <= high]
            if any(tick != round(tick) for tick in ticks):
                yield f"ticks of epochs at {ticks}"


def faults(figure):
    """What is amiss in a figure, a sentence each."""
    figure.draw_without_rendering()
    for i, axes in enumerate(figure.axes):
        if not axes.get_visible():
            continue
        checks = [_printed_on_each_other, _under_the_legend]
        checks += [_unlabelled] if axes.axison else []
        for check in checks:
            for fault in check(axes):
                yield f"axes {i}: {fault}"


def words(figure):
    """All text of a figure."""
    return " ".join(found.get_text() for found in figure.findobj(matplotlib.text.Text))


def main():
    save = Figure.savefig

    def look_and_save(figure, *args, **kwargs):
        for fault in faults(figure):
            print(f"amiss: {fault}")
        if "--quick" in sys.argv and "quick" not in words(figure):
            print("amiss: the picture does not say that the run was a quick one")
        return save(figure, *args, **kwargs)

    Figure.savefig = look_and_save
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
