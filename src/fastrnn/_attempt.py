# SPDX-License-Identifier: BSD-3-Clause
"""A backward that does all or nothing, where it is made of several steps.

A layer whose backward is one kernel call allocates first, and then cannot fail. Where
several calls or layers add to gradients one after the other, any of them may run out of
memory when others are done: what those added is then taken back.
"""

import threading

import numpy as np

from fastrnn import _core, _threads


class _Running(threading.local):
    """The outermost attempt of each thread, None where there is none."""

    attempt = None


_running = _Running()


class Attempt:
    """A `with` block after which, if it fails, gradients and contexts are as before.

    Within another attempt's block a block does nothing: the outer one is of a module
    that contains this one's.

    Gradients are mostly zero before a backward, because `zero_grad` came first. To find
    that out costs one reading of them, and nothing needs to be kept then; otherwise
    they are copied.

    Parameters
    ----------
    module : Module
        Whose backward this is, with all modules below it.
    """

    def __init__(self, module):
        self._module = module

    def __enter__(self):
        self._is_inner = _running.attempt is not None
        if self._is_inner:
            return
        self._spent = []  # contexts released in the block, with what they held
        grads, spans = self._module._grads_in_use()
        kernels = _core.kernels(grads.dtype)
        largest = kernels.norm(_threads.for_kernel(), grads, np.inf, spans)
        self._before = []
        if largest != 0:  # NaN, too
            spans = [(0, grads.size)] if spans is None else spans
            self._before = [(begin, grads[begin:end].copy()) for begin, end in spans]
        _running.attempt = self

    def __exit__(self, kind, error, traceback):
        if self._is_inner:
            return
        _running.attempt = None
        if kind is None:
            return
        grads, spans = self._module._grads_in_use()
        _core.kernels(grads.dtype).clear(_threads.for_kernel(), grads, spans)
        for begin, values in self._before:
            grads[begin : begin + values.size] = values
        for context, saved in self._spent:
            context.restore(saved)


def note_release(context):
    """`context` is being released: an attempt that fails restores it."""
    if _running.attempt is not None:
        _running.attempt._spent.append((context, context.saved))
