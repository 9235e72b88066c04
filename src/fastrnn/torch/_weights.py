# SPDX-License-Identifier: BSD-3-Clause
"""Weights in the kernels' private form, packed again only when they have changed."""

import weakref

from fastrnn.torch._memory import empty, memory

_cells = {}  # id of a cell's weight_ih: its Packed


class Packed:
    """The weights of one cell as the kernels read them; never changed once made.

    Attributes
    ----------
    forward, backward : Memory or None
        What the kernels read; None until a call needed it.
    fingerprint : bytes or None
        Of the weights; None until they were seen twice.
    """

    __slots__ = ("backward", "fingerprint", "forward", "kernels", "marks", "owner")


def packed(kernels, spec, I, weights, forward, backward):
    """What is packed of `weights`, one cell's, in PyTorch's flat order.

    A tensor's version tells that it was written to, and then there is nothing to
    compare.  It does not tell of writes through ``.data`` or NumPy: weights that seem
    the same are compared by their fingerprint.

    Parameters
    ----------
    forward, backward : bool
        Which of the two forms is needed.
    """
    first = weights[0]
    marks = tuple([_mark(w) for w in weights])
    made = Packed()
    made.forward = made.backward = made.fingerprint = None
    found = _cells.get(id(first))
    if (
        found is not None
        and found.owner() is first
        and found.marks == marks
        and found.kernels is kernels
    ):
        made.fingerprint = b"".join([kernels.fingerprint(memory(w)) for w in weights])
        if found.fingerprint == made.fingerprint:
            forward = forward and found.forward is None
            backward = backward and found.backward is None
            if not forward and not backward:
                return found
            made.forward, made.backward = found.forward, found.backward
    made.owner, made.marks = weakref.ref(first, _forget), marks
    made.kernels = kernels
    if forward:
        made.forward = _pack(kernels, False, spec, I, weights)
    if backward:
        made.backward = _pack(kernels, True, spec, I, weights)
    _cells[id(first)] = made
    return made


def _mark(weight):
    """What changes when PyTorch writes to a tensor or gives it other memory."""
    return weight.data_ptr(), None if weight.is_inference() else weight._version


def _pack(kernels, backward, spec, I, weights):
    what = backward, spec.cell, I, spec.H
    size = kernels.packed_size(*what, spec.options)
    into = memory(empty(size, weights[0].dtype))
    *arrays, W_hr = spec.by_name([memory(w) for w in weights])
    kernels.pack(*what, *arrays, into, spec.options, W_hr=W_hr)
    return into


def _forget(owner):
    """A weight is gone: so is what was packed of it."""
    for key, held in tuple(_cells.items()):
        if held.owner is owner:
            _cells.pop(key, None)
