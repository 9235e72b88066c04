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
else:
    shutil, tqdm = Later("shutil"), Later("tqdm")

# Seconds between lines where there is no terminal.
LINE_SECONDS = 10.0


class Progress:
    """A tqdm bar if standard error is a terminal, else a line every 10 seconds there.

    Parameters
    ----------
    total, first : int
        Units in the whole run, and those done before this process.
    unit : str
        What is counted.
    """

    def __init__(self, total, first, unit):
        self._total, self._done, self._first, self._unit = total, first, first, unit
        self._start = self._last_line = time.monotonic()
        # A terminal that says it has no size, as in a container, counts as 80 x 24.
        columns, rows = shutil.get_terminal_size()
        # disable=None: no bar unless the file is a terminal.
        self._bar = tqdm.tqdm(
            total=total,
            initial=first,
            file=sys.stderr,
            unit=f" {unit}",
            unit_scale=True,
            ncols=columns,
            nrows=rows,
            disable=None,
            bar_format="{desc}{percentage:3.0f}%|{bar}| {remaining} left {rate_fmt}",
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
            self._bar.set_description_str(f"{where} ", refresh=False)
            self._bar.update(n)
            return
        now = time.monotonic()
        if now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            left = tqdm.tqdm.format_interval((self._total - self._done) / self.speed)
            print(
                f"{where}  {self.speed:,.0f} {self._unit}/s  {left} left",
                file=sys.stderr,
                flush=True,
            )

    def close(self, where=None):
        """Leave the bar and go on below it; without a bar, say how it ended."""
        if where is not None and self._bar.disable:
            print(f"{where}  {self.elapsed}", file=sys.stderr, flush=True)
        self._bar.close()


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
