# SPDX-License-Identifier: BSD-3-Clause
"""Weights in the kernels' private form, packed again only when they have changed."""

from fastrnn.native import weights
from fastrnn.native.memory import Locked


class PackedWeights(Locked):
    """The packed weights of a layer, for calls from any number of Python threads.

    Parameters
    ----------
    layout : weights.Layout
    pool : weights.MemoryPool
    """

    def __init__(self, layout, pool):
        self._made_of = layout, pool
        self._packer = weights.Packer(layout, pool)
        super().__init__()

    def __reduce__(self):
        return PackedWeights, self._made_of  # a copy starts empty

    @property
    def current(self):
        """What is packed at the moment: by cell, a `weights.Packed` or None."""
        return self._packer.current

    def take(self, kernels, n_threads, parameters, start, with_backward):
        """The `weights.Use` of what is packed of the weights as they are now.

        Parameters
        ----------
        kernels : core.Kernels
        n_threads : int
        parameters : ndarray, 1-D
            The layer's begin at element `start`.
        with_backward : bool
            Whether backward will use it too.
        """
        use = self._packer.take(kernels, n_threads, parameters, start, with_backward)
        if use is None:
            with self._lock:
                use = self._packer.renew(
                    kernels, n_threads, parameters, start, with_backward
                )
        return use
