# SPDX-License-Identifier: BSD-3-Clause
"""Weights in the kernels' private form, packed again only when they have changed."""

from fastrnn import _core
from fastrnn._pool import Locked


class Packed:
    """The packed weights of one cell, as they were at one moment.

    Attributes
    ----------
    forward, backward : ndarray or None
        What the kernels read.
    """

    __slots__ = ("backward", "fingerprint", "forward", "target", "users")

    def __init__(self):
        self.forward = self.backward = self.fingerprint = self.target = None
        self.users = 0


class PackedWeights(Locked):
    """Packed weights of a layer's cells, by name suffix.

    A user may write to a parameter at any time and through any view, so each call takes
    a fingerprint of the weights. A context goes on using what it was given: its
    backward is the derivative of its forward even if an optimiser stepped in between.
    """

    def __init__(self, cell, pool):
        self._cell = cell
        self._pool = pool
        self._current = {}
        super().__init__()

    def __reduce__(self):
        return PackedWeights, (self._cell, self._pool)  # a copy starts empty

    def take(self, kernels, suffix, memory, weights, with_backward):
        """What is packed of `weights`; to be given back.

        Parameters
        ----------
        memory : ndarray, 1-D
            The stretch of the flat buffer that holds all of `weights`.
        weights : sequence
            weight_ih, weight_hh, bias_ih, bias_hh.
        with_backward : bool
            Whether `Packed.backward` is needed as well.
        """
        (_, I), (_, H) = weights[0].shape, weights[1].shape
        cell = _core.CELLS[self._cell]
        with self._lock:
            fingerprint = kernels.fingerprint(memory)
            packed = self._current.get(suffix)
            same = (
                packed is not None
                and packed.fingerprint == fingerprint
                and packed.target == kernels.target
            )
            if not same:
                before = self._current.pop(suffix, None)
                if before is not None and before.users == 0:
                    self._pool.give(before.forward, before.backward)
                packed = self._current[suffix] = Packed()
                packed.forward = self._pool.take(kernels.packed_size(False, cell, I, H))
                kernels.pack(False, cell, I, H, *weights, packed.forward)
                packed.fingerprint, packed.target = fingerprint, kernels.target
            if with_backward and packed.backward is None:
                packed.backward = self._pool.take(kernels.packed_size(True, cell, I, H))
                kernels.pack(True, cell, I, H, *weights, packed.backward)
            packed.users += 1
        return packed

    def give(self, suffix, packed):
        """Give back what `take` gave."""
        with self._lock:
            packed.users -= 1
            if packed.users == 0 and self._current.get(suffix) is not packed:
                self._pool.give(packed.forward, packed.backward)
