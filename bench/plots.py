# SPDX-License-Identifier: BSD-3-Clause
"""Pictures of a result: share of peak and ratio against the number of hidden units.

``training.png``, made for a README, shows every library's share of peak in a training
step. ``share.png`` and ``ratio.png`` show shares and ratios in every pass, with panels
of their own for single rows.
"""

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from bench.adapters import NAMES
from bench.cases import CELLS
from bench.result import CELL_NAMES, FormatError, threads

# Colour, marker and line style of each library. Colour-blind readers can tell the
# colours apart (Okabe and Ito), and each library can be told by its marker or style
# alone.
STYLES = {
    "fastrnn": ("#0072B2", "o", "-"),
    "torch": ("#D55E00", "s", "--"),
    "keras": ("#009E73", "^", "-."),
    "jax": ("#CC79A7", "D", ":"),
    "onnxruntime": ("#000000", "v", (0, (5, 1, 1, 1, 1, 1))),
}
# The rows of a picture. By name: the pass, and whether batches have a single row.
ROWS = {
    "Training step": ("train", False),
    "Forward": ("forward", False),
    "Training step, one row": ("train", True),
    "Forward, one row": ("forward", True),
}
DPI = 150
# The ratios that the axis marks.
RATIOS = (0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 16, 32, 64, 128)


def points(result, cell, row, value):
    """The lines of one panel, ``{library: [(H, y), ...]}``.

    The function `value` gives the y of a record and a library's name. Of several cases
    with the same number of hidden units, the one with the most operations is shown.
    """
    direction, is_one_row = ROWS[row]
    lines = {}
    for record in sorted(result["cases"], key=lambda record: record["flops"]):
        if (
            record["kind"] == "layer"
            and "share" in record
            and (record["cell"], record["pass"]) == (cell, direction)
            and (record["B"] == 1) == is_one_row
            and record["T"] > 1
        ):
            for name in record["libraries"]:
                y = value(record, name)
                if y is not None:
                    lines.setdefault(name, {})[record["H"]] = y
    return {name: sorted(found.items()) for name, found in lines.items()}


def share(record, name):
    """A library's share of the FMA peak that was measured with this case."""
    return record["libraries"][name]["gflops"] / record["peak_gflops"]["median"]


def ratio(record, name):
    """The time of a library divided by fastrnn's; None for fastrnn itself."""
    entry = record["libraries"][name].get("ratio")
    return entry["median"] if entry else None


def _draw(axes, lines):
    for name in STYLES:
        if name in lines:
            colour, marker, style = STYLES[name]
            axes.plot(
                *zip(*lines[name], strict=True),
                color=colour,
                marker=marker,
                linestyle=style,
                linewidth=2.4 if name == "fastrnn" else 1.6,
                markersize=5,
                label=NAMES[name],
                zorder=3 if name == "fastrnn" else 2,
            )
    sizes = sorted({size for found in lines.values() for size, _ in found})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _picture(result, rows, value, label, finish):
    """A figure with a row for each pass and a column for each cell.

    None if no panel has a line.
    """
    panels = {
        (row, cell): points(result, cell, row, value) for row in rows for cell in CELLS
    }
    rows = [row for row in rows if any(panels[row, cell] for cell in CELLS)]
    cells = [cell for cell in CELLS if any(panels[row, cell] for row in rows)]
    if not rows:
        return None
    figure, grid = pyplot.subplots(
        len(rows),
        len(cells),
        figsize=(3.1 * len(cells) + 0.6, 2.5 * len(rows) + 0.9),
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    handles = {}
    for line, row in zip(grid, rows, strict=True):
        for axes, cell in zip(line, cells, strict=True):
            _draw(axes, panels[row, cell])
            axes.set_title(f"{CELL_NAMES[cell]}, {row.lower()}", fontsize=10)
            finish(axes)
            found, names = axes.get_legend_handles_labels()
            handles |= dict(zip(names, found, strict=True))
        line[0].set_ylabel(label)
    for axes in grid[-1]:
        axes.set_xlabel("hidden units")
    order = [name for name in NAMES.values() if name in handles]
    figure.legend(
        [handles[name] for name in order],
        order,
        loc="outside lower center",
        ncols=len(order),
        frameon=False,
    )
    machine, settings = result["machine"], result["settings"]
    figure.suptitle(
        f"{machine['cpu']}, {threads(result)}, {settings['dtype']}",
        fontsize=9,
        color="#555555",
    )
    return figure


def _finish_share(axes):
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _finish_ratio(axes):
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_locator(FixedLocator(RATIOS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.axhline(1, color=STYLES["fastrnn"][0], linewidth=1.2)


def write(result, folder):
    """Write the pictures for which the result has cases.

    Parameters
    ----------
    result : dict
        As `bench.result.load` returns it.
    folder : pathlib.Path
        Made if it does not exist.

    Returns
    -------
    list of pathlib.Path
        The files that were written.

    Raises
    ------
    bench.result.FormatError
        If the result has no timed layer over sequences, so that there is nothing to
        draw.
    """
    pictures = {
        "training.png": (["Training step"], share, "share of FMA peak", _finish_share),
        "share.png": (list(ROWS), share, "share of FMA peak", _finish_share),
        "ratio.png": (list(ROWS), ratio, "time / fastrnn's time", _finish_ratio),
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, arguments in pictures.items():
        figure = _picture(result, *arguments)
        if figure is not None:
            # Without a date or a version in it, the same result gives the same file.
            figure.savefig(folder / name, dpi=DPI, metadata={"Software": None})
            pyplot.close(figure)
            written.append(folder / name)
    if not written:
        raise FormatError(
            "bench.plots: the result must have timed layers over sequences, got none"
        )
    return written
