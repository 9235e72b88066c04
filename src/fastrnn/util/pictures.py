# SPDX-License-Identifier: BSD-3-Clause
"""What the library's own pictures have in common: axes, epochs and legends."""

import importlib

from fastrnn.util.extras import pyplot


def axes_for(who, given):
    """Axes to draw on.

    Parameters
    ----------
    who : str
        The function that draws.
    given : matplotlib.axes.Axes or None
        The user's. Default: a new figure's, which makes room for what is outside.

    Returns
    -------
    axes : matplotlib.axes.Axes
    new : bool
        Whether they are new.

    Raises
    ------
    TypeError
        If `given` is nothing to draw on.
    """
    if given is not None:
        if not callable(getattr(given, "set_xlabel", None)):
            raise TypeError(
                f"{who}: ax must be matplotlib's Axes, got {type(given).__name__}"
            )
        return given, False
    # Wider than usual, for the legend beside the axes.
    return pyplot(who).subplots(figsize=(8.5, 4.8), layout="constrained")[1], True


def count_epochs(axes):
    """Call the horizontal axis "epoch" and put its ticks at whole numbers alone."""
    ticker = importlib.import_module("matplotlib.ticker")
    axes.set_xlabel("epoch")
    # One tick is enough: with two, a run of one epoch would have ticks beside it.
    locator = ticker.MaxNLocator("auto", integer=True, min_n_ticks=1)
    axes.xaxis.set_major_locator(locator)


def name_lines(axes, new, title=None):
    """Add a legend: outside of new axes, where it hides least in the user's."""
    if new:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), title=title)
    else:
        axes.legend(loc="best", title=title)
