# SPDX-License-Identifier: BSD-3-Clause
"""What `fastrnn train` shows: a bar on a terminal, a line now and then elsewhere."""

import shutil
import sys
import textwrap
import time

from tqdm import tqdm

# Seconds between lines where there is no terminal.
LINE_SECONDS = 10.0


class Reporter:
    """Shows how a `fastrnn.training.Trainer` gets on, as `fastrnn.training.train` asks.

    Evaluations go to standard output, progress to standard error: a tqdm bar if that is
    a terminal, else a line every 10 seconds.

    Parameters
    ----------
    trainer : Trainer
        Before the first window of this process.
    """

    def __init__(self, trainer):
        self._total = trainer.settings.epochs * trainer.batches.n_characters
        self._done = self._first = trainer.characters_done
        self._start = self._last_line = time.monotonic()
        # A terminal that says it has no size, as in a container, counts as 80 x 24.
        columns, rows = shutil.get_terminal_size()
        # disable=None: no bar unless the file is a terminal.
        self._bar = tqdm(
            total=self._total,
            initial=self._first,
            file=sys.stderr,
            unit=" chars",
            unit_scale=True,
            ncols=columns,
            nrows=rows,
            disable=None,
            bar_format="{desc}{percentage:3.0f}%|{bar}| {rate_fmt} {remaining} left",
        )

    @property
    def speed(self):
        """Characters per second in this process, evaluations included."""
        elapsed = max(time.monotonic() - self._start, 1e-9)
        return (self._done - self._first) / elapsed

    @property
    def elapsed(self):
        """Seconds since training started in this process, as text."""
        return tqdm.format_interval(time.monotonic() - self._start)

    def window(self, trainer, n_characters):
        """Count a window that has been trained on."""
        self._done += n_characters
        epochs = trainer.settings.epochs
        where = (
            f"epoch {trainer.epoch:.1f}/{epochs}  {trainer.train_bits:.3f} bits/char"
        )
        if not self._bar.disable:
            self._bar.set_description_str(f"{where} ", refresh=False)
            self._bar.update(n_characters)
            return
        now = time.monotonic()
        if now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            left = tqdm.format_interval((self._total - self._done) / self.speed)
            print(
                f"{where}  {self.speed:,.0f} chars/s  {left} left",
                file=sys.stderr,
                flush=True,
            )

    def evaluation(self, trainer, found):
        """Show the figures of an evaluation and its sample."""
        head = (
            f"epoch {found.epoch:.1f}/{trainer.settings.epochs}: "
            f"{found.held_out_bits:.3f} bits/char held out, "
            f"{found.train_bits:.3f} in training"
        )
        sample = textwrap.indent(found.sample.strip("\n"), "    | ", lambda line: True)
        tqdm.write(f"{head}\n{sample}", file=sys.stdout)
        sys.stdout.flush()

    def close(self):
        """Leave the bar as it is and go on below it."""
        self._bar.close()
