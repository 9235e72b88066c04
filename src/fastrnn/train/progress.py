# SPDX-License-Identifier: BSD-3-Clause
"""How training gets on: a bar on a terminal, a line now and then elsewhere."""

import sys
import textwrap
import time
from typing import TYPE_CHECKING

from fastrnn.util.later import Later
from fastrnn.util.printable import printable

if TYPE_CHECKING:
    import shutil

    import tqdm
    import tqdm.auto as tqdm_auto
else:
    shutil, tqdm = Later("shutil"), Later("tqdm")
    tqdm_auto = Later("tqdm.auto")

# Seconds between lines where there is no terminal.
LINE_SECONDS = 10.0
# Columns that a bar without its text has at least: share, bar, time left; and the rate,
# where there is room.
_LEAST, _WITH_RATE = 24, 40


def _bar_class():
    """tqdm's class for a terminal, or in a notebook the one that draws a widget."""
    if "ipykernel" in sys.modules:  # as it is in no other process
        return tqdm_auto.tqdm
    return tqdm.tqdm


def fitted(where, columns):
    """As much of a text as there is room for, cut between its parts.

    Examples
    --------
    >>> fitted("epoch 1/9  loss 0.5  mae 0.25", 60)
    'epoch 1/9  loss 0.5  mae 0.25'
    >>> fitted("epoch 1/9  loss 0.5  mae 0.25", 50)
    'epoch 1/9  loss 0.5'
    """
    parts = where.split("  ")
    while len(parts) > 1 and len("  ".join(parts)) > columns - _LEAST:
        parts.pop()
    return "  ".join(parts)


class Progress:
    """A tqdm bar on a terminal or in a notebook, else a line every 10 seconds.

    Both go to standard error.

    Parameters
    ----------
    total : int or None
        Units in the whole run; None where it is not known.
    first : int
        Those done before this process.
    unit : str
        What is counted.
    """

    def __init__(self, total, first, unit):
        self._total, self._done, self._first, self._unit = total, first, first, unit
        self._start = self._last_line = time.monotonic()
        # A terminal that says it has no size, as in a container, counts as 80 x 24.
        self._columns, rows = shutil.get_terminal_size()
        rate = " {rate_fmt}" if self._columns >= 2 * _WITH_RATE else ""
        bar = "{percentage:3.0f}%|{bar}| {remaining} left" + rate
        # disable=None: no bar unless the file is a terminal.
        self._bar = _bar_class()(
            total=total,
            initial=first,
            file=sys.stderr,
            unit=f" {unit}",
            unit_scale=True,
            ncols=self._columns,
            nrows=rows,
            disable=None,
            leave=None,
            bar_format="{desc}" + (bar if total else "{n_fmt}{unit} {elapsed}"),
        )

    @property
    def speed(self):
        """Units per second in this process, pauses included."""
        elapsed = max(time.monotonic() - self._start, 1e-9)
        return (self._done - self._first) / elapsed

    @property
    def elapsed(self):
        """Seconds since training started in this process, as text."""
        return tqdm.tqdm.format_interval(time.monotonic() - self._start)

    def update(self, n, where):
        """Count `n` units; `where` says how far the run is and how it does."""
        self._done += n
        if not self._bar.disable:
            text = fitted(where, self._columns)
            self._bar.set_description_str(f"{text} ", refresh=False)
            self._bar.update(n)
            return
        now = time.monotonic()
        if now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            left = ""
            if self._total:
                seconds = (self._total - self._done) / self.speed
                left = f"  {tqdm.tqdm.format_interval(seconds)} left"
            print(
                f"{where}  {self.speed:,.0f} {self._unit}/s{left}",
                file=sys.stderr,
                flush=True,
            )

    def clear(self):
        """Take the bar away."""
        self._bar.leave = False
        self._bar.close()

    def close(self, where=None):
        """Leave the bar and go on below it; or a line in its place: how it ended."""
        if where is None:
            self._bar.close()
            return
        self.clear()
        print(f"{where}  {self.elapsed}", file=sys.stderr, flush=True)


class Reporter(Progress):
    """Shows how a `fastrnn.training.Trainer` gets on, as `fastrnn.training.train` asks.

    Evaluations go to standard output, progress to standard error.

    Parameters
    ----------
    trainer : Trainer
        Before the first window of this process.
    """

    def __init__(self, trainer):
        total = trainer.settings.epochs * trainer.batches.n_characters
        super().__init__(total, trainer.characters_done, "chars")

    def window(self, trainer, n_characters):
        """Count a window that has been trained on."""
        epochs = trainer.settings.epochs
        self.update(
            n_characters,
            f"epoch {trainer.epoch:.1f}/{epochs}  {trainer.train_bits:.3f} bits/char",
        )

    def evaluation(self, trainer, found):
        """Show the figures of an evaluation and its sample."""
        head = (
            f"epoch {found.epoch:.1f}/{trainer.settings.epochs}: "
            f"{found.held_out_bits:.3f} bits/char held out, "
            f"{found.train_bits:.3f} in training"
        )
        sample = printable(found.sample.strip("\n"), keep="\n\t")
        sample = textwrap.indent(sample, "    | ", lambda line: True)
        tqdm.tqdm.write(f"{head}\n{sample}", file=sys.stdout)
        sys.stdout.flush()
