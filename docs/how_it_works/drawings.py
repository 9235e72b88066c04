# SPDX-License-Identifier: BSD-3-Clause
"""The drawings of these pages: ``python docs/how_it_works/drawings.py`` writes them.

Every drawing is dark ink on a light card, so that it reads on a light and on a dark
page.  Colours are those of Okabe and Ito, lightened; no drawing needs them to be
understood.
"""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
INK, CARD, LINE = "#1f2328", "#f4f5f7", "#5f6b7a"
# One colour for each gate of an LSTM, and others by what they stand for.
GATES = {"i": "#a6cdf0", "f": "#f3c79c", "g": "#a9dcc4", "o": "#e4bcd6"}
PLAIN, STRONG, QUIET = "#ffffff", "#ffe08a", "#dfe3e8"
THREADS = ["#a6cdf0", "#f3c79c", "#a9dcc4", "#e4bcd6"]


class Drawing:
    """A picture of `width` by `height` units, to which shapes are added."""

    def __init__(self, width, height, title):
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'font-family="system-ui, sans-serif" font-size="15" role="img">',
            f"<title>{title}</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" '
            'markerWidth="7" markerHeight="7" orient="auto-start-reverse">'
            f'<path d="M0 0L8 4L0 8z" fill="{LINE}"/></marker></defs>',
            f'<rect width="{width}" height="{height}" rx="10" fill="{CARD}"/>',
        ]

    def box(self, x, y, width, height, fill=PLAIN, text="", size=15, line=LINE):
        """A box, with lines of text in its middle."""
        self._parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}" '
            f'stroke="{line}"/>'
        )
        if text:
            self.text(x + width / 2, y + height / 2, text, "middle", size)

    def text(self, x, y, text, anchor="start", size=15, bold=False):
        """Lines of text, in the middle of whose height the point lies."""
        lines = text.split("\n")
        weight = ' font-weight="600"' if bold else ""
        top = y - (len(lines) - 1) * size * 0.6
        for k, line in enumerate(lines):
            self._parts.append(
                f'<text x="{x:g}" y="{top + k * size * 1.2:g}" fill="{INK}" '
                f'font-size="{size}" text-anchor="{anchor}"{weight} '
                f'dominant-baseline="central">{line}</text>'
            )

    def arrow(self, x0, y0, x1, y1, dash=False):
        style = ' stroke-dasharray="5 4"' if dash else ""
        self._parts.append(
            f'<path d="M{x0} {y0}L{x1} {y1}" stroke="{LINE}" stroke-width="1.6" '
            f'fill="none" marker-end="url(#tip)"{style}/>'
        )

    def line(self, x0, y0, x1, y1, width=1.6, dash=False):
        style = ' stroke-dasharray="5 4"' if dash else ""
        self._parts.append(
            f'<path d="M{x0} {y0}L{x1} {y1}" stroke="{LINE}" stroke-width="{width}" '
            f'fill="none"{style}/>'
        )

    def svg(self):
        return "\n".join([*self._parts, "</svg>"]) + "\n"


def layers():
    """Who calls whom, from Python down to the tile."""
    d = Drawing(640, 330, "From Python down to the register tile")
    rows = [
        ("Python decides", "checks, shapes, random numbers, memory", "#a6cdf0"),
        ("Cython passes", "fills a struct, lets go of the interpreter lock", "#cfe3f5"),
        ("driver", "time, batch rows, threads: any cell", "#f3c79c"),
        ("cell", "the equations, on a few rows and units", STRONG),
        ("tile", "sums of products in registers", "#a9dcc4"),
    ]
    for k, (name, what, fill) in enumerate(rows):
        y = 18 + 62 * k
        d.box(20, y, 170, 44, fill, name)
        d.text(210, y + 22, what)
        if k:
            d.arrow(105, y - 18, 105, y - 2)
    d.line(510, 142, 510, 310)
    d.text(522, 226, "C, compiled\nonce for each\ntarget and type", size=13)
    return d


def panels():
    """W in memory, and the panel that has all gates of the same units."""
    d = Drawing(640, 380, "A panel has the columns of all gates of the same units")
    d.text(130, 26, "W, (4 H, I)", "middle", bold=True)
    for g, (gate, fill) in enumerate(GATES.items()):
        y = 46 + 76 * g
        d.box(50, y, 160, 70, fill)
        d.text(34, y + 35, gate, "middle", 17)
        d.box(50, y + 20, 160, 16, STRONG)
        d.arrow(214, y + 28, 296, 150 + 34 * g)
    d.text(130, 362, "rows of the same V units in each gate", "middle", 13)
    d.text(460, 26, "a panel of the forward pack", "middle", bold=True)
    for g, (gate, fill) in enumerate(GATES.items()):
        x = 310 + 75 * g
        d.box(x, 66, 75, 240, fill)
        d.text(x + 37, 52, gate, "middle", 17)
    for k in range(1, 8):
        d.line(310, 66 + 30 * k, 610, 66 + 30 * k, 0.6)
    d.box(310, 66, 300, 30, "none", "", line=INK)
    d.text(460, 81, "k = 0: V numbers of each gate", "middle", 13)
    d.text(460, 111, "k = 1", "middle", 13)
    d.text(460, 171, "and so on, row after row", "middle", 13)
    d.text(460, 291, "k = I - 1", "middle", 13)
    d.text(460, 330, "read from beginning to end,", "middle", 13)
    d.text(460, 348, "one row for each k of the product", "middle", 13)
    return d


def tile():
    """A tile of 6 rows by 4 vectors, and what the cell does with it."""
    d = Drawing(640, 370, "The register tile, and the cell that works on its results")
    d.text(85, 28, "A: x or h", "middle", bold=True)
    for r in range(6):
        d.box(20, 50 + 22 * r, 130, 22, PLAIN)
    d.box(66, 50, 18, 132, STRONG)
    d.text(75, 198, "k", "middle")
    d.arrow(90, 198, 146, 198)
    d.text(85, 234, "6 rows of the batch,\none number of each", "middle", 13)
    d.text(190, 116, "times", "middle", 13)
    d.text(395, 28, "a panel", "middle", bold=True)
    for g, (gate, fill) in enumerate(GATES.items()):
        d.box(245 + 75 * g, 50, 75, 110, fill)
        d.text(282 + 75 * g, 142, gate, "middle")
    d.box(245, 82, 300, 18, STRONG)
    d.text(558, 91, "row k", size=13)
    d.arrow(395, 164, 395, 206)
    d.text(408, 186, "24 FMAs for each k, k ascending", size=13)
    for r in range(6):
        for g, fill in enumerate(GATES.values()):
            d.box(245 + 75 * g, 212 + 15 * r, 75, 15, fill)
    d.text(234, 257, "sums in\n24 registers", "end", 13)
    d.arrow(395, 304, 395, 326)
    d.box(245, 328, 300, 30, STRONG, "cell: i f g o of the same units")
    return d


def tape():
    """What is kept, without and with checkpoint_every."""
    d = Drawing(640, 400, "What forward keeps for backward")
    d.text(20, 26, "usually", bold=True)
    for t in range(12):
        x = 95 + 44 * t
        d.box(x, 44, 38, 30, PLAIN, f"{t}", 13)
        d.box(x, 80, 38, 40, GATES["f"])
    d.text(20, 59, "y", size=13)
    d.text(20, 100, "tape", size=13)
    d.arrow(620, 138, 98, 138)
    d.text(
        355, 156, "backward reads each step's tape, the last step first", "middle", 13
    )
    d.line(20, 180, 620, 180, 0.8)
    d.text(20, 202, "checkpoint_every=4", bold=True)
    for t in range(12):
        x = 95 + 44 * t
        d.box(x, 220, 38, 30, PLAIN, f"{t}", 13)
        if t % 4 == 0:
            d.box(x - 5, 256, 10, 40, STRONG)
        if t >= 8:
            d.box(x + 2, 256, 36, 40, GATES["f"])
    d.text(20, 235, "y", size=13)
    d.text(20, 276, "states", size=13)
    d.arrow(440, 316, 616, 316)
    d.text(528, 334, "1. the last block again,\nnow with a tape", "middle", 13)
    d.arrow(616, 368, 440, 368)
    d.text(430, 368, "2. back through it; then the same memory", "end", 13)
    d.text(430, 386, "serves the block before", "end", 13)
    return d


def _grid(d, x, y, owner, columns=6, rows=4, size=32):
    """Steps to the right, rows of the batch or units downwards."""
    for t in range(columns):
        for r in range(rows):
            d.box(x + size * t, y + size * r, size, size, THREADS[owner(t, r)])


def teams():
    """Rows owned, units shared, and calls that are chained."""
    d = Drawing(640, 560, "Three ways to share the work")
    d.text(20, 28, "1. Threads own rows", bold=True)
    _grid(d, 90, 50, lambda t, r: r // 2)
    d.text(76, 82, "thread 0", "end", 13)
    d.text(76, 146, "thread 1", "end", 13)
    d.text(186, 194, "steps", "middle", 13)
    d.arrow(210, 194, 280, 194)
    d.text(
        310, 90, "Each thread takes its rows through all\nsteps. Nobody waits.", size=14
    )
    d.text(310, 146, "Where rows are enough, and R fits\na core's cache.", size=14)
    d.text(20, 228, "2. Threads share units", bold=True)
    for t in range(4):
        x = 90 + 52 * t
        d.box(x, 250, 34, 56, THREADS[0])
        d.box(x, 306, 34, 56, THREADS[1])
        d.line(x + 43, 244, x + 43, 368, 2, True)
    d.text(76, 278, "units 0..", "end", 13)
    d.text(76, 334, "units H/2..", "end", 13)
    d.text(190, 382, "a barrier after each step", "middle", 13)
    d.text(
        310,
        290,
        "h of a step has parts by all threads:\nthe next step waits for it.",
        size=14,
    )
    d.text(310, 340, "Where rows are few, or R is large.", size=14)
    d.text(20, 416, "3. Calls in a chain", bold=True)
    for t in range(6):
        d.box(90 + 32 * t, 438, 32, 32, THREADS[0])
        d.box(90 + 32 * (t + 2), 476, 32, 32, THREADS[1])
    d.arrow(170, 468, 170, 482)
    d.text(76, 454, "layer 0", "end", 13)
    d.text(76, 492, "layer 1", "end", 13)
    d.text(220, 530, "layer 1 stays some steps behind", "middle", 13)
    d.text(
        370,
        472,
        "Layers of a stack, or both directions,\neach on a part of the team.",
        size=14,
    )
    return d


def sums():
    """A weight's gradient: chains, blocks, the gradient."""
    d = Drawing(640, 300, "How the gradient of a weight is summed")
    d.text(20, 28, "rows of all steps, the last step first", bold=True)
    for k in range(48):
        x = 20 + 12.5 * k
        d.box(x, 46, 12.5, 26, GATES["i"] if k // 4 % 2 else "#cfe3f5")
    d.text(
        320, 90, "each chain: at most 64 rows, one FMA after the other", "middle", 13
    )
    for k in range(12):
        d.box(20 + 50 * k, 108, 48, 26, GATES["g"], "64", 13)
    for b in range(3):
        x = 20 + 200 * b
        d.arrow(x + 98, 138, x + 98, 166)
        d.box(x, 168, 196, 30, GATES["f"], "block of at most 256 rows", 13)
        d.arrow(x + 98, 200, 316 + 4 * b, 236)
    d.box(220, 238, 200, 34, STRONG, "dW += each block")
    d.text(434, 255, "complete before it is added", size=13)
    return d


def ragged():
    """Rows sorted by length, and the active rows of each step."""
    d = Drawing(640, 330, "A ragged batch: only active rows are computed")
    lengths = [9, 8, 8, 5, 3, 1]
    d.text(20, 28, "rows, sorted by length", bold=True)
    for r, length in enumerate(lengths):
        d.text(60, 66 + 34 * r, f"row {r}", "end", 13)
        for t in range(9):
            x = 76 + 40 * t
            if t < length:
                owner = 0 if r < 2 else 1
                d.box(x, 50 + 34 * r, 40, 34, THREADS[owner])
            else:
                d.box(x, 50 + 34 * r, 40, 34, CARD, line="#c3cad3")
    for t in range(9):
        active = sum(length > t for length in lengths)
        d.text(96 + 40 * t, 272, f"{active}", "middle", 14)
    d.text(60, 272, "active", "end", 13)
    d.text(76, 302, "steps", size=13)
    d.arrow(118, 302, 430, 302)
    d.box(460, 70, 24, 20, THREADS[0])
    d.text(494, 80, "thread 0: 17 steps", size=13)
    d.box(460, 104, 24, 20, THREADS[1])
    d.text(494, 114, "thread 1: 17 steps", size=13)
    d.box(460, 138, 24, 20, CARD, line="#c3cad3")
    d.text(494, 148, "not computed", size=13)
    d.text(
        460,
        200,
        "Groups get about the\nsame work, and not the\nsame number of rows.",
        size=13,
    )
    return d


DRAWINGS = {
    f"{draw.__name__}.svg": draw
    for draw in (layers, panels, tile, tape, teams, sums, ragged)
}


def main():
    for name, draw in DRAWINGS.items():
        (FOLDER / name).write_text(draw().svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
