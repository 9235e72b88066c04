# SPDX-License-Identifier: BSD-3-Clause
"""A backward that does all or nothing, where it is made of several steps.

A layer whose backward is one kernel call allocates first, and then cannot fail. Where
several calls or layers add to gradients one after the other, any of them may run out of
memory, or be interrupted, when others are done: what those added is then taken back.

Each layer releases its context when it is about to add to its gradients. That is when
an attempt notes both.
"""

import threading

from fastrnn.native import addresses


class _Running(threading.local):
    """The outermost attempt of each thread, None where there is none."""

    attempt = None


running = _Running()


class Attempt:
    """A `with` block after which, if it fails, gradients and contexts are as before.

    Within another attempt's block a block does nothing: the outer one sees to it.
    """

    __slots__ = ("_before", "_is_outer", "_spent")

    def __enter__(self):
        self._is_outer = running.attempt is None
        if self._is_outer:
            self._spent = []  # contexts released in the block, with what they held
            self._before = {}  # by layer: pieces of its gradients, where they begin
            running.attempt = self

    def __exit__(self, kind, error, traceback):
        if not self._is_outer:
            return
        running.attempt = None
        if kind is None:
            return
        for layer, pieces in self._before.items():
            grads = layer._buffers[1]
            for begin, end in layer._spans_in_use():
                grads[begin:end] = 0
            for begin, values in pieces:
                grads[begin : begin + values.size] = values
        for context, saved in self._spent:
            context.restore(saved)

    def note(self, context):
        """The context's layer is about to release it and to add to its gradients."""
        layer = context.owner
        if layer._shapes and layer not in self._before:
            grads, start = layer._buffers[1], layer._start
            if layer._table is None and addresses.is_clear(
                grads, start, start + layer._size
            ):  # as after `zero_grad`
                self._before[layer] = ()
            else:
                self._before[layer] = [
                    (begin, grads[begin:end].copy())
                    for begin, end in layer._spans_in_use()
                    if not addresses.is_clear(grads, begin, end)
                ]
        self._spent.append((context, context.saved))
