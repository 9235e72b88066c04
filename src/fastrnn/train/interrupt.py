# SPDX-License-Identifier: BSD-3-Clause
"""Ctrl-C while a model is trained: what is put right, and what is said about it."""

import contextlib
import signal
import sys
import threading


@contextlib.contextmanager
def once_more_later():
    """A further Ctrl-C waits for the end of the body, and interrupts there."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or handler is None:
        yield  # signals are another thread's, or not Python's
        return
    came = []
    signal.signal(signal.SIGINT, lambda *args: came.append(args))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if came:
        raise KeyboardInterrupt


def say(run, epoch, best):
    """Print where a run was stopped and which weights the model has now.

    Parameters
    ----------
    run : fastrnn.train.fit.Run
        Its ``verbose`` says where to print: 0 nowhere, 1 on standard error, 2 on
        standard output.
    epoch : int or None
        The epoch that was stopped, from 0; None before the first.
    best : (float, ndarray, int) or None
        Figure, parameters and number of the best epoch.
    """
    if run.verbose == 0:
        return
    if epoch is None:
        text = "stopped before the first epoch"
    else:
        text = f"stopped in epoch {epoch + 1} of {run.epochs}"
    if best is not None:
        text += (
            f"; best weights kept: those of epoch {best[2] + 1}, {run.monitored} "
            f"{best[0]:.4g}"
        )
    else:
        text += (
            f"; no epoch of this run has a {run.monitored} yet, so the weights are "
            "those of the last step"
        )
    print(f"fit: {text}", file=sys.stderr if run.verbose == 1 else sys.stdout)
